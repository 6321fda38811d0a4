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


class PromptSet(QWidget):
    """``changed`` when another set was chosen, or what it holds became known."""

    changed = Signal()

    def __init__(self, desk: Desk, field: Field) -> None:
        super().__init__()
        self._desk, self._field = desk, field
        self._topic = f"prompts {id(self)}"
        self._own = False
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

    def refresh(self) -> None:
        """Offer the demo's own set with its models only."""
        state = (self._desk.is_demo, self.path)
        if state == self._shown:
            return
        demo = self._desk.is_demo and bool(self._field.demo)
        if not demo and not self._own:
            self.path, self.count = "", 0
        if demo and not self.path:
            self._shown = (self._desk.is_demo, "")
            self._read_demo()
        self._shown = (self._desk.is_demo, self.path)
        self._fill(demo)

    def _fill(self, demo: bool) -> None:
        self.box.clear()
        if demo:
            self.box.addItem(self.tr("demo"), "demo")
        if self._own:
            self.box.addItem(Path(self.path).name, "own")
            self.box.setCurrentIndex(self.box.count() - 1)
        if not demo and not self._own:
            self.box.addItem(self.tr("none chosen"), "none")
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
                self._fill(self._desk.is_demo and bool(self._field.demo))
        elif kind == "demo":
            self._own = False
            self._read_demo()

    def choose(self, path: Path) -> None:
        """Take a file."""
        self._own = True
        self._read(str(path.absolute()), lambda: _count(str(path.absolute()), self._field))

    def _read_demo(self) -> None:
        name = self._field.demo
        if self._field.sets == "pairs":
            self._desk.background.submit(
                self._topic, _demo_pairs, lambda found: self._arrived(*found), self._failed
            )
        else:
            self._read(name, lambda: _count(name, self._field))

    def _read(self, path: str, work: Callable[[], int]) -> None:
        self._desk.background.submit(
            self._topic, work, lambda count: self._arrived(path, count), self._failed
        )

    def _arrived(self, path: str, count: int) -> None:
        self.path, self.count, self.error = path, count, None
        self._settle()

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.path, self.count, self.error = "", 0, error
        self._own = False
        self._settle()

    def _settle(self) -> None:
        self._shown = (self._desk.is_demo, self.path)
        self._fill(self._desk.is_demo and bool(self._field.demo))
        self.changed.emit()

    def _tell(self) -> None:
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
