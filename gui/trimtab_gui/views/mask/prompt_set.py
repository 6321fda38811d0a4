"""A set of prompts to choose: the demo's own, or a file, with how many there are and whose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from trimtab.activations.calibration import load_calibration
from trimtab.demo.pairs import demo_pairs_file
from trimtab.errors import UserError
from trimtab.realign.preferences import read_preferences
from trimtab_gui.desk import Desk
from trimtab_gui.views.mask.builders import Field
from trimtab_gui.widgets import Choice, ElidedLabel

_DEMO_TITLES = {
    "demo": "demo", "demo-harmful": "demo, harmful", "demo-refused": "demo, refused",
    "demo-benign": "demo, benign",
}  # fmt: skip


class PromptSet(QWidget):
    """``changed`` when another set was chosen, or what it holds became known.

    `path` is empty until then. With the demo's models the demo's own sets are offered, and the
    first of them is chosen. A `brief` one says no more of itself than what is wrong.
    """

    changed = Signal()

    def __init__(self, desk: Desk, field: Field, *, brief: bool = False) -> None:
        super().__init__()
        self._brief = brief
        self._desk, self._field = desk, field
        self._topic = f"prompts {id(self)}"
        self._own = False
        self._demo = field.demo[0] if field.demo else ""
        self.path = ""
        self.count = 0
        self.error: UserError | None = None
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(1)
        self.box = Choice()
        self.box.setAccessibleName(field.title)
        self.box.setToolTip(field.tip)
        self.box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.box.setMinimumContentsLength(6)
        self.box.activated.connect(self._activated)
        self.says = ElidedLabel("", "caption", "muted")
        rows.addWidget(self.box)
        rows.addWidget(self.says)
        desk.project_changed.connect(self.refresh)
        desk.state_changed.connect(self.refresh)
        self._shown: object = None
        self.refresh()

    @property
    def _with_demo(self) -> bool:
        return self._desk.is_demo and bool(self._field.demo)

    def refresh(self) -> None:
        """Offer the demo's own sets with its models only."""
        state = (self._desk.is_demo, self.path)
        if state == self._shown:
            return
        dropped = not self._with_demo and not self._own and bool(self.path)
        if dropped:
            self.path, self.count = "", 0
        if self._with_demo and not self.path:
            self._shown = (self._desk.is_demo, "")
            self._read_demo(self._demo)
        self._shown = (self._desk.is_demo, self.path)
        self._fill()
        if dropped:
            self.changed.emit()

    def _fill(self) -> None:
        self.box.clear()
        if self.error is not None or not (self._with_demo or self._own):
            self.box.addItem(self.tr("none chosen"), "none")
        for name in self._field.demo if self._with_demo else ():
            self.box.addItem(self.tr(_DEMO_TITLES[name]), name)
        if self._own:
            self.box.addItem(Path(self.path).name, "own")
        if self.error is None:
            chosen = "own" if self._own else self._demo
            self.box.setCurrentIndex(max(self.box.findData(chosen), 0))
        self.box.addItem(self.tr("Choose a file…"), "choose")
        self._tell()

    def _activated(self, row: int) -> None:
        kind = self.box.itemData(row)
        if kind == "choose":
            kinds = self.tr("Prompts (*.jsonl *.csv *.parquet *.json);;All (*)")
            name, _ = QFileDialog.getOpenFileName(self, self._field.title, "", kinds)
            if name:
                self.choose(Path(name))
            else:
                self._fill()
        elif kind in self._field.demo:
            self._read_demo(kind)

    def choose(self, path: Path) -> None:
        """Take a file."""
        name = str(path.absolute())
        self._read(name, lambda: _count(name, self._field), own=True)

    def _read_demo(self, name: str) -> None:
        self._demo = name
        if self._field.sets == "pairs":
            self._desk.background.submit(
                self._topic, _demo_pairs, lambda found: self._arrived(*found, own=False),
                self._failed,
            )  # fmt: skip
        else:
            self._read(name, lambda: _count(name, self._field), own=False)

    def _read(self, path: str, work: Callable[[], int], *, own: bool) -> None:
        self._desk.background.submit(
            self._topic, work, lambda count: self._arrived(path, count, own=own), self._failed
        )

    def _arrived(self, path: str, count: int, *, own: bool) -> None:
        self.path, self.count, self.error, self._own = path, count, None, own
        self._settle()

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.path, self.count, self.error = "", 0, error
        self._own = False
        self._settle()

    def _settle(self) -> None:
        self._shown = (self._desk.is_demo, self.path)
        self._fill()
        self.changed.emit()

    def _tell(self) -> None:
        self.says.setVisible(not self._brief or self.error is not None)
        if self.error is not None:
            self.says.setText(f"{self.error.what} {self.error.why}")
            return
        kind = self.tr("pairs") if self._field.sets == "pairs" else self.tr("examples")
        text = self.tr("needs {kind}").format(kind=kind)
        if self.path:
            whose = self.path if self._own else self.tr("shipped, never scored on")
            text = f"{self.count:,} {kind} · {whose}"
        self.says.setText(text)


def _demo_pairs() -> tuple[str, int]:
    path = demo_pairs_file()
    return str(path), len(read_preferences(path).pairs)


def _count(path: str, field: Field) -> int:
    if field.sets == "pairs":
        try:
            return len(read_preferences(Path(path)).pairs)
        except UserError as error:
            # Antidote takes plain prompts with answers as well
            if error.code not in ("pairs_format", "suite_unreadable") or field.key == "pairs":
                raise
    return len(load_calibration(path).examples)
