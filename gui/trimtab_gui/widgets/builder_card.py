"""A card to choose a way by: an icon, a title, and a few words."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card

_HEIGHT, _ICON = 40, 17.0
_LINE = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


class BuilderCard(FocusButton):
    """Checked, it is the one that is chosen, with a border in the safety colour."""

    def __init__(self, icon: str, title: str, says: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon, self._title, self._says = icon, title, says
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(title)
        self.setAccessibleDescription(says)
        theme.manager().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(220, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens, rect = theme.current(), QRectF(self.rect())
        fill = theme.color("card")
        if self.underMouse():
            fill = QColor(theme.mix(tokens.card, tokens.muted, 0.08))
        border = theme.color("aligned" if self.isChecked() else "line")
        if self.keyboard_focus():
            border = theme.color("accent")
        card(painter, rect, theme.CARD_RADIUS, fill, border, None, 1.2 if self.isChecked() else 1)
        tone = theme.text_color("aligned").name() if self.isChecked() else tokens.muted
        icons.draw(painter, self._icon, tone, QRectF(12, (rect.height() - _ICON) / 2, _ICON, _ICON))
        left, room = 40.0, rect.width() - 50
        for kind, colour, text, top in (
            ("strong", "text", self._title, 4), ("caption", "muted", self._says, 20),
        ):  # fmt: skip
            face = theme.font("strong" if kind == "strong" else "caption")
            painter.setFont(face)
            painter.setPen(theme.color(colour))
            short = QFontMetricsF(face).elidedText(text, Qt.TextElideMode.ElideRight, room)
            painter.drawText(QRectF(left, top, room, 16), _LINE, short)
