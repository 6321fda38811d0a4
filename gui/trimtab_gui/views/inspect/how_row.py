"""Chooses what becomes of the selection when something else is selected."""

from __future__ import annotations

from typing import get_args

from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QWidget

from trimtab_gui.desk import Desk
from trimtab_gui.selection import How
from trimtab_gui.widgets import ElidedLabel
from trimtab_gui.widgets.sign_button import SignButton


class HowRow(QWidget):
    """Four signs, and in words which of them is on; keys do the same for one gesture."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._bus = desk.selection
        self.setAccessibleName(self.tr("What becomes of the selection"))
        self._words: dict[How, tuple[str, str, str]] = {
            "replace": ("◻", self.tr("New selection"), ""),
            "union": ("∪", self.tr("Union"), self.tr("Ctrl")),
            "intersect": ("∩", self.tr("Intersect"), self.tr("Ctrl+Shift")),
            "difference": ("−", self.tr("Difference"), self.tr("Ctrl+Alt")),
        }
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        group = QButtonGroup(self)
        self.buttons: dict[How, SignButton] = {}
        how: How
        for how in get_args(How):
            sign, name, keys = self._words[how]
            tip = self.tr("Brush, range and rule; {keys} for one of them").format(keys=keys)
            button = SignButton(sign, name, tip if keys else "")
            button.clicked.connect(lambda _checked=False, how=how: self._bus.set_how(how))
            group.addButton(button)
            self.buttons[how] = button
            row.addWidget(button)
        row.addSpacing(6)
        self.says = ElidedLabel("", "caption", "muted")
        row.addWidget(self.says, 1)
        self._bus.how_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show which way is chosen."""
        how = self._bus.how
        self.buttons[how].setChecked(True)
        self.says.setText(self._words[how][1])
