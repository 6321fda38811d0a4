"""Keep or remove: the brush of the heatmap, and what it does to the selected region."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from trimtab_gui.plots.paintable import KEEP, REMOVE
from trimtab_gui.widgets import label
from trimtab_gui.widgets.tabs import Tabs


class Brush(QWidget):
    """Keep or remove, by the hand or for the selected region."""

    chosen = Signal(str)
    region = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(8)
        self.current = REMOVE
        titles = [(REMOVE, self.tr("Remove")), (KEEP, self.tr("Keep")), ("", self.tr("Select"))]
        self.switch = Tabs(self.tr("Brush"), titles)
        self.switch.set_current(REMOVE)
        self.switch.chosen.connect(self.choose)
        rows.addWidget(self.switch)
        row = QHBoxLayout()
        row.setSpacing(8)
        self.remove = QPushButton(self.tr("Remove"))
        self.keep = QPushButton(self.tr("Keep"))
        self.remove.setAccessibleName(self.tr("Remove the selected region"))
        self.keep.setAccessibleName(self.tr("Keep the selected region"))
        row.addWidget(label(self.tr("selected region"), "caption", "muted"), 1)
        self.remove.clicked.connect(lambda: self.region.emit(False))
        self.keep.clicked.connect(lambda: self.region.emit(True))
        row.addWidget(self.remove)
        row.addWidget(self.keep)
        rows.addLayout(row)

    def choose(self, key: str) -> None:
        """Take another brush; none selects."""
        self.current = key
        self.switch.set_current(key)
        self.chosen.emit(key)

    def set_region(self, selected: bool) -> None:
        """Say whether a region is selected."""
        self.remove.setEnabled(selected)
        self.keep.setEnabled(selected)
