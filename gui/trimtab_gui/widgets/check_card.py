"""A card with a box to tick, an edge in its role's colour, a kind and a name."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card

_HEIGHT, _BOX = 44, 14.0
_LINE = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


class CheckCard(FocusButton):
    """``toggled`` as any button that can be on; ``role`` is a role, or control."""

    def __init__(self, role: str, kind: str, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._role, self._kind, self._name = role, kind, ""
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.set_name(name)
        theme.manager().changed.connect(self.update)

    def set_name(self, name: str) -> None:
        """Show another name."""
        if name != self._name:
            self._name = name
            self.setAccessibleName(f"{self._kind}: {name}")
            self.setToolTip(f"{self._kind}: {name}")
            self.update()

    def name(self) -> str:
        """Return the name shown."""
        return self._name

    def sizeHint(self) -> QSize:
        return QSize(220, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens, rect = theme.current(), QRectF(self.rect())
        known = self._role in theme.ROLES
        edge = theme.role_color(self._role) if known else theme.color("muted")
        fill = theme.color("card")
        if self.underMouse():
            fill = QColor(theme.mix(tokens.card, tokens.muted, 0.08))
        border = theme.color("accent" if self.keyboard_focus() else "line")
        card(painter, rect, theme.CARD_RADIUS, fill, border, edge)
        self._draw_box(painter, QRectF(14, (rect.height() - _BOX) / 2, _BOX, _BOX))
        left = 14 + _BOX + 12
        room = rect.width() - left - 10
        painter.setFont(theme.font("caps"))
        painter.setPen(theme.text_color(self._role) if known else theme.color("muted"))
        painter.drawText(QRectF(left, 5, room, 16), _LINE, self._kind)
        strong = theme.font("strong")
        painter.setFont(strong)
        painter.setPen(theme.color("text" if self.isChecked() else "muted"))
        mode = Qt.TextElideMode.ElideMiddle
        text = QFontMetricsF(strong).elidedText(self._name, mode, room)
        painter.drawText(QRectF(left, 21, room, 17), _LINE, text)

    def _draw_box(self, painter: QPainter, box: QRectF) -> None:
        tokens = theme.current()
        if self.isChecked():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("accent"))
            painter.drawRoundedRect(box, 4, 4)
            icons.draw(painter, "check", tokens.on_accent, box.adjusted(1, 1, -1, -1))
        else:
            painter.setPen(QPen(QColor(theme.mix(tokens.muted, tokens.card, 0.3)), 1))
            painter.setBrush(theme.color("background"))
            painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
