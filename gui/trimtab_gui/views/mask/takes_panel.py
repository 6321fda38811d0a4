"""What the stack takes away of the change, of its energy and of alignment, beside chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QPushButton

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.masking import Masking
from trimtab_gui.widgets import Panel, label

_ROWS = ("entries", "tau", "output", "alignment")


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
                       "Σ ((1 − m) τ_ij s_j)² / Σ (τ_ij s_j)², s: strengths of the inputs"),
            "alignment": (self.tr("alignment energy removed"), "‖(1 − m) ⊙ a‖² / ‖a‖²"),
        }  # fmt: skip
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(0, 1)
        self.values: dict[str, tuple[QLabel, QLabel]] = {}
        for row, key in enumerate(_ROWS):
            name, formula = names[key]
            caption = label(name)
            caption.setToolTip(formula)
            value, chance = label("–", "number"), label("", "small_number", "muted")
            for cell in (value, chance):
                cell.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            value.setToolTip(formula)
            chance.setMinimumWidth(46)
            grid.addWidget(caption, row, 0)
            grid.addWidget(value, row, 1)
            grid.addWidget(chance, row, 2)
            self.values[key] = value, chance
        self.body.addLayout(grid)
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.body.addWidget(self.note)
        self.button = QPushButton()
        self.button.clicked.connect(self._clicked)
        self.body.addWidget(self.button)
        masking.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is known of the stack as it is."""
        masking = self._masking
        account, control, shares = masking.account, masking.control, masking.shares
        on = any(entry.on for entry in masking.stack)
        total: Mapping[str, Any] = account["total"] if account is not None and on else {}
        other: Mapping[str, Any] = control["account"]["total"] if control is not None else {}
        self.set_aside(
            "" if not total else self.tr("vs random control") if other else self.tr("vs chance")
        )
        for key, (value, chance) in self.values.items():
            share = total.get(f"share_of_{key}")
            if key == "entries" and share is None and shares is not None and on:
                share = 1 - shares.kept  # known before τ is read
            value.setText("—" if share is None else texts.percent(share))
            expected = other.get(f"share_of_{key}")
            if not other:
                # whole tensors leave chance no choice within them: it chooses over the model
                whole = all(entry.rule is not None for entry in masking.stack if entry.on)
                of = "share_of_entries" if whole or key == "entries" else (
                    f"share_of_{key}_by_chance")  # fmt: skip
                expected = total.get(of) if share is not None else None
            chance.setText("" if expected is None else texts.percent(expected))
        self.values["output"][0].setToolTip(
            self.tr("Needs the strengths of the inputs on a calibration set: "
                    "'trimtab mask show --norms' tells it.")
        )  # fmt: skip
        self._tell(bool(total), on)

    def _tell(self, told: bool, on: bool) -> None:
        masking = self._masking
        error, busy = masking.error, masking.asking("control") or masking.asking("answers")
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
            said = self.tr("Control: random entries that take the same energy, to {off}.").format(
                off=texts.percent(off, 2)
            )
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

    def _clicked(self) -> None:
        if self._masking.account is None:
            self._masking.wish("account")
        else:
            self._masking.wish("control")
