"""A word in a rounded frame: what was found of the thing it stands beside."""

from __future__ import annotations

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.labels import set_tone
from trimtab_gui.widgets.paint import card


class Chip(QLabel):
    """Framed in the colour of a role or token; the word says the same without it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tone = "muted"
        self.setFont(theme.font("caption"))
        self.setContentsMargins(7, 1, 7, 2)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def show_word(self, word: str, tone: str = "muted") -> None:
        """Show a word; nothing is shown for none."""
        self._tone = tone
        set_tone(self, tone)
        self.setText(word)
        self.setVisible(bool(word))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        rect = QRectF(self.rect())
        painter = QPainter(self)
        # a surface, not a tint: on these, texts are known to be legible
        card(painter, rect, rect.height() / 2, theme.color("panel"), theme.color(self._tone))
        painter.end()
        super().paintEvent(event)
