"""A choice between a few signs that is as small as a sign."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QComboBox

from trimtab_gui import theme
from trimtab_gui.widgets.paint import card

_WIDTH, _HEIGHT = 26, 24
_LIST = 54


class OpChip(QComboBox):
    """Shows the sign alone; the list opens by a click, the arrow keys go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.setStyleSheet("min-height: 0; padding: 0;")
        self.setFixedSize(_WIDTH, _HEIGHT)
        self.view().setMinimumWidth(_LIST)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        theme.manager().changed.connect(self.update)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens, rect = theme.current(), QRectF(self.rect())
        fill = QColor(theme.mix(tokens.card, tokens.muted, 0.12 if self.underMouse() else 0.0))
        border = theme.color("accent" if self.hasFocus() else "line")
        card(painter, rect, theme.CONTROL_RADIUS, fill, border)
        painter.setFont(theme.font("title"))
        painter.setPen(theme.color("accent"))
        painter.drawText(rect, int(Qt.AlignmentFlag.AlignCenter), self.currentText())
