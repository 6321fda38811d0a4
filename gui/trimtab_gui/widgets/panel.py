"""The rounded surface on which everything else in the window lies."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.labels import ElidedLabel, label
from trimtab_gui.widgets.paint import card


class Surface(QWidget):
    """A panel without a header."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme.manager().changed.connect(self.update)

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self),
            QRectF(self.rect()),
            theme.PANEL_RADIUS,
            theme.color("panel"),
            theme.color("line"),
        )


class Panel(Surface):
    """A panel with its title in capitals, a quiet remark at the right, and a ``body``."""

    def __init__(self, title: str = "", aside: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        horizontal, vertical = theme.PANEL_PADDING
        outer = QVBoxLayout(self)
        outer.setContentsMargins(horizontal, vertical, horizontal, vertical)
        outer.setSpacing(theme.ROW_GAP)
        self._header = QWidget()
        self.header_layout = QHBoxLayout(self._header)
        self.header_layout.setContentsMargins(0, 0, 0, 0)
        self.header_layout.setSpacing(8)
        self._title = label(title, "caps", "muted")
        self._aside = ElidedLabel(aside, "caption", "muted")
        self._aside.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.header_layout.addWidget(self._title)
        self.header_layout.addWidget(self._aside, 1)
        outer.addWidget(self._header)
        self.body = QVBoxLayout()
        self.body.setContentsMargins(0, 0, 0, 0)
        self.body.setSpacing(theme.ROW_GAP)
        outer.addLayout(self.body, 1)
        self.setAccessibleName(title)
        self._header.setVisible(bool(title or aside))

    def set_title(self, title: str) -> None:
        """Change the title."""
        self._title.setText(title)
        self.setAccessibleName(title)
        self._header.setVisible(bool(title or self._aside.text()))

    def set_heading(self, heading: QWidget) -> None:
        """Put a widget where the title is seen; the title stays the panel's name."""
        self._title.setVisible(False)
        self.header_layout.insertWidget(0, heading)

    def set_aside(self, text: str) -> None:
        """Change the remark at the right of the title."""
        self._aside.setText(text)
        self._header.setVisible(bool(self._title.text() or text))
