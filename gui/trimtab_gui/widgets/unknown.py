"""Stands where numbers would, when nobody can know them yet, and says why."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.labels import label

_ICON = 22


class Unknown(QWidget):
    """A quiet icon with a sentence below it, in the middle."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._mark = QLabel()
        self._mark.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text = label("", "caption", "muted")
        self._text.setWordWrap(True)
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(18, 0, 18, 0)
        outer.setSpacing(8)
        outer.addStretch(1)
        outer.addWidget(self._mark)
        outer.addWidget(self._text)
        outer.addStretch(1)
        theme.manager().changed.connect(self._recolour)
        self._recolour()

    def set_text(self, text: str) -> None:
        """Say why."""
        self._text.setText(text)
        self.setAccessibleName(text)

    def text(self) -> str:
        """Return what is said."""
        return self._text.text()

    def _recolour(self) -> None:
        mark = theme.icon("source-merge", "muted")
        self._mark.setPixmap(mark.pixmap(QSize(_ICON, _ICON), self.devicePixelRatioF()))
