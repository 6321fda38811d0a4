"""A small button that bears a sign and stays pressed: one of a few ways to go about something."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent

from trimtab_gui import theme
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card

_WIDTH, _HEIGHT = 28, 24


class SignButton(FocusButton):
    """`name` is what it is called and the first line of its tooltip."""

    def __init__(self, sign: str, name: str, tip: str = "") -> None:
        super().__init__()
        self.setText(sign)
        self.setCheckable(True)
        self.setAccessibleName(name)
        self.setToolTip(f"{name}\n{tip}".strip())
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFixedSize(_WIDTH, _HEIGHT)
        theme.manager().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(_WIDTH, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens, rect, on = theme.current(), QRectF(self.rect()), self.isChecked()
        fill = theme.mix(tokens.card, tokens.muted, 0.12 if self.underMouse() else 0.0)
        if on:
            fill = theme.mix(tokens.card, tokens.accent, 0.18)
        border = "accent" if on or self.keyboard_focus() else "line"
        card(painter, rect, theme.CONTROL_RADIUS, QColor(fill), theme.color(border))
        if self.keyboard_focus():
            inner = rect.adjusted(3, 3, -3, -3)
            card(painter, inner, theme.CONTROL_RADIUS - 2, QColor(fill), theme.color("accent"))
        painter.setFont(theme.font("title"))
        painter.setPen(theme.color("text" if on else "muted"))
        painter.drawText(rect, int(Qt.AlignmentFlag.AlignCenter), self.text())
