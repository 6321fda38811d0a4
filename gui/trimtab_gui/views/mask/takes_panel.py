"""What the stack takes away of the change, of its energy and of alignment, beside chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.masking import Masking
from trimtab_gui.views.mask.builders import Field
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import Panel, label
from trimtab_gui.widgets.labels import set_tone

_ROWS = ("entries", "tau", "alignment", "output")
_OUTPUTS = "‖X ((1 − m) ⊙ τ)ᵀ‖² / ‖X τᵀ‖², X: inputs of the Linears in the blocks"
_PROMPTS_WIDTH = 190
_PROMPTS = Field(
    "outputs", "prompts of the output energy", "The fine-tuned model is run on these prompts: what "
    "goes into each Linear says what a change does to its outputs.",
    sets="examples", demo=("demo-harmful", "demo-refused", "demo-benign"),
)  # fmt: skip


class TakesPanel(Panel):
    """The right column is what chance is expected to take, or the control took once it is made."""

    def __init__(self, desk: Desk, masking: Masking) -> None:
        super().__init__("What it takes away")
        self.set_title(self.tr("What it takes away"))
        self._desk, self._masking = desk, masking
        names = {
            "entries": (self.tr("entries removed"), "Σ(1 − m) / n"),
            "tau": (self.tr("energy of τ removed"), "‖(1 − m) ⊙ τ‖² / ‖τ‖²"),
            "output": (self.tr("output energy removed"),
                       _OUTPUTS),
            "alignment": (self.tr("alignment energy removed"), "‖(1 − m) ⊙ a‖² / ‖a‖²"),
        }  # fmt: skip
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(0, 1)
        self.values: dict[str, tuple[QLabel, QLabel]] = {}
        for line, key in enumerate(_ROWS):
            name, formula = names[key]
            caption = label(name)
            caption.setToolTip(formula)
            value, chance = label("–", "number"), label("", "small_number", "muted")
            for cell in (value, chance):
                cell.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            value.setToolTip(formula)
            chance.setMinimumWidth(46)
            grid.addWidget(caption, line, 0)
            grid.addWidget(value, line, 1)
            grid.addWidget(chance, line, 2)
            self.values[key] = value, chance
        self.choose = label(self.tr("choose prompts"), "caption", "muted")
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        grid.addWidget(self.choose, _ROWS.index("output"), 1, 1, 2, right)
        self.prompts = PromptSet(desk, _PROMPTS, brief=True)
        self.prompts.changed.connect(lambda: masking.set_calibration(self.prompts.path))
        caption = label(self.tr("outputs on"), "caption", "muted")
        caption.setBuddy(self.prompts)
        row = QHBoxLayout()
        row.setSpacing(10)
        row.addWidget(caption, 1)
        row.addWidget(self.prompts)
        self.prompts.setFixedWidth(_PROMPTS_WIDTH)
        self.body.addLayout(grid)
        self.body.addLayout(row)
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.body.addWidget(self.note)
        self.button = QPushButton()
        self.button.clicked.connect(self._clicked)
        self.run = QPushButton(self.tr("Run the model for the outputs"))
        self.run.clicked.connect(lambda: masking.wish("outputs"))
        self.body.addWidget(self.run)
        self.body.addWidget(self.button)
        masking.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is known of the stack as it is."""
        masking = self._masking
        on = masking.masked
        shares, control = masking.shares, masking.control
        self.set_aside(
            "" if not on or masking.account is None
            else self.tr("vs random control") if control is not None else self.tr("vs chance")
        )  # fmt: skip
        for key, (value, chance) in self.values.items():
            outputs = key == "output"
            account = (masking.outputs if outputs else masking.account) if on else None
            other = masking.control_outputs if outputs else (
                control["account"] if control is not None else None)  # fmt: skip
            share = account["total"][f"share_of_{key}"] if account is not None else None
            expected = _by_chance(account, key, masking.whole)
            if key == "entries" and share is None and shares is not None and on:
                share = 1 - shares.kept  # known before τ is read
            if control is not None:
                expected = other["total"][f"share_of_{key}"] if other is not None else None
            value.setText("—" if share is None else texts.percent(share))
            chance.setText("" if expected is None else texts.percent(expected))
        self._tell_outputs(on)
        self._tell(masking.account is not None, on)

    def _tell_outputs(self, on: bool) -> None:
        """Say of the outputs' energy what it is, or what it still needs."""
        masking = self._masking
        found, error = masking.outputs, masking.outputs_error
        value = self.values["output"][0]
        tip = _OUTPUTS
        if found is not None and on:
            tip = f"{tip}\n{_told(found)}"
        elif error is not None and on:
            tip = f"{error.what} {error.why} {error.fix}"
        elif masking.asking("outputs"):
            value.setText("…")
        value.setToolTip(tip)
        unasked = found is None and not masking.calibration
        self.choose.setVisible(unasked)
        for cell in self.values["output"]:
            cell.setVisible(not unasked)
        unknown = found is None or not on
        set_tone(value, "muted" if unknown else "text")

    def _tell(self, told: bool, on: bool) -> None:
        masking = self._masking
        error = masking.error or (masking.outputs_error if on else None)
        busy = masking.asking("control") or masking.asking("answers")
        said = ""
        if error is not None:
            said = f"{error.what} {error.why}"
        elif not on:
            said = self.tr("Nothing: no mask is on.")
        elif not told and not masking.is_small and not masking.asking("account"):
            size = texts.size(masking.bytes_read())
            said = self.tr("Energies take one read of {size}.").format(size=size)
        elif masking.control is not None:
            off = masking.control["error"]
            said = self.tr(
                "Control: random entries that take the same energy, within {off}."
            ).format(off=texts.percent(off, 2))
        elif masking.outputs is not None:
            said = _told(masking.outputs)
        self.note.setText(said)
        self.note.setVisible(bool(said))
        reads = on and not told and not masking.is_small
        self.button.setText(
            self.tr("Add up") if reads
            else self.tr("Making the control …") if busy
            else self.tr("Compare with a random control")
        )  # fmt: skip
        self.button.setVisible(on and (reads or masking.control is None or busy))
        self.button.setEnabled(not busy and not masking.asking("account"))
        runs = on and bool(masking.calibration) and masking.outputs is None
        self.run.setVisible(runs and not masking.is_tiny and not masking.asking("outputs"))

    def _clicked(self) -> None:
        if self._masking.account is None:
            self._masking.wish("account")
        else:
            self._masking.wish("control")


def _by_chance(account: Mapping[str, Any] | None, key: str, whole: bool) -> float | None:
    """Return what a mask of as many entries is expected to take, as a share.

    Whole tensors leave chance no choice within them: it chooses over the model.
    """
    if account is None:
        return None
    if whole:
        over: Mapping[str, float | None] = account["by_chance_over_all"]
        return over[key]
    total: Mapping[str, float | None] = account["total"]
    return total["share_of_entries" if key == "entries" else f"share_of_{key}_by_chance"]


def _told(account: Mapping[str, Any]) -> str:
    """Say whether the outputs' energy is exact, and over which tokens."""
    exact = account["knows"]["output"] == "exact"
    answers = account["measured"]["tokens"] == "answers"
    tr = QCoreApplication.translate
    how = tr("TakesPanel", "exact") if exact else (
        tr("TakesPanel", "diagonal, as if inputs were uncorrelated"))  # fmt: skip
    where = tr("TakesPanel", "their answers") if answers else tr("TakesPanel", "all their tokens")
    return tr("TakesPanel", "Outputs: {how}; {n} prompts, {where}.").format(
        how=how, n=account["measured"]["examples"], where=where
    )
