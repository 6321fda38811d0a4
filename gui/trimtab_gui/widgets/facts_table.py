"""Rows of a quiet name and its value, for what is under the cursor."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from trimtab_gui.widgets.labels import ElidedLabel, label


class FactsTable(QWidget):
    """Names at the left, tabular values at the right."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(10)
        self._grid.setVerticalSpacing(7)
        self._grid.setColumnStretch(0, 1)
        self._cells: list[tuple[ElidedLabel, QLabel]] = []

    def set_rows(self, rows: list[tuple[str, str, str]]) -> None:
        """Show ``(name, value, tooltip)`` rows; labels are reused, so that hovering stays cheap."""
        while len(self._cells) < len(rows):
            name = ElidedLabel("", "caption", "muted")
            value = label("", "number")
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            row = len(self._cells)
            self._grid.addWidget(name, row, 0)
            self._grid.addWidget(value, row, 1)
            self._cells.append((name, value))
        for index, (name, value) in enumerate(self._cells):
            used = index < len(rows)
            name.setVisible(used)
            value.setVisible(used)
            if used:
                text, number, tip = rows[index]
                name.setText(text)
                value.setText(number)
                value.setAccessibleName(f"{text}: {number}")
                if tip:
                    name.setToolTip(tip)
                value.setToolTip(tip)

    def rows(self) -> list[tuple[str, str]]:
        """Return the names and values shown."""
        return [(a.text(), b.text()) for a, b in self._cells if not b.isHidden()]
