"""A model of the lineup: its role, name, size and facts on a card with an edge in its colour."""

from __future__ import annotations

from PySide6.QtCore import QPoint, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QContextMenuEvent, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card, faded

_HEIGHT = 66


class ModelCard(FocusButton):
    """``clicked`` when chosen, ``menu_requested`` with a global position for a context menu.

    ``role`` is base, aligned, finetuned or merged; ``index`` counts further fine-tuned models,
    which get tints.
    """

    menu_requested = Signal(QPoint)

    def __init__(
        self,
        role: str,
        name: str,
        size: str,
        facts: str,
        index: int = 0,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._role, self._index = role, index
        self._name, self._size, self._facts = name, size, facts
        self._active = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._describe()
        theme.manager().changed.connect(self.update)

    def role_name(self) -> str:
        """Return the role as people read it."""
        names = {
            "base": self.tr("Base"),
            "aligned": self.tr("Aligned"),
            "finetuned": self.tr("Fine-tuned"),
            "merged": self.tr("Merged"),
        }
        return names[self._role]

    def set_active(self, active: bool) -> None:
        """Mark the card as the one that the other panels show."""
        self._active = active
        self._describe()
        self.update()

    def is_active(self) -> bool:
        """Return whether the card is marked."""
        return self._active

    def _describe(self) -> None:
        self.setAccessibleName(f"{self.role_name()}: {self._name}")
        shown = self.tr("shown") if self._active else ""
        self.setAccessibleDescription(
            ", ".join(part for part in (self._size, self._facts, shown) if part)
        )
        self.setToolTip(f"{self._name}\n{self._facts}")

    def sizeHint(self) -> QSize:
        return QSize(220, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, _HEIGHT)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        self.menu_requested.emit(event.globalPos())
        event.accept()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens = theme.current()
        edge = theme.role_color(self._role, self._index)
        fill = theme.color("card")
        if self.underMouse():
            fill = QColor(theme.mix(tokens.card, tokens.muted, 0.08))
        border = theme.color("line")
        if self.keyboard_focus():
            border = theme.color("accent")
        elif self._active:
            border = faded(edge, 0.75)
        rect = QRectF(self.rect())
        width = 1.5 if self._active else 1.0
        card(painter, rect, theme.CARD_RADIUS, fill, border, edge, width)
        left, right = 14.0, rect.width() - 11
        caps, caption, strong = (
            theme.font("caps"),
            theme.font("caption"),
            theme.font("strong"),
        )
        painter.setFont(caption)
        painter.setPen(theme.color("muted"))
        room = QFontMetricsF(caption).horizontalAdvance(self._size)
        painter.drawText(QRectF(right - room, 8, room + 1, 16), _LINE, self._size)
        facts = QFontMetricsF(caption).elidedText(
            self._facts, Qt.TextElideMode.ElideRight, right - left
        )
        painter.drawText(QRectF(left, 43, right - left, 16), _LINE, facts)
        painter.setFont(caps)
        painter.setPen(theme.text_color(self._role, self._index))
        painter.drawText(QRectF(left, 8, right - left - room, 16), _LINE, self.role_name())
        painter.setFont(strong)
        painter.setPen(theme.color("text"))
        name = QFontMetricsF(strong).elidedText(
            self._name, Qt.TextElideMode.ElideMiddle, right - left
        )
        painter.drawText(QRectF(left, 25, right - left, 17), _LINE, name)


_LINE = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
