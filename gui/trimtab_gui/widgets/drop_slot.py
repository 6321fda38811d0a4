"""A dashed place that waits for a checkpoint to be dropped."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton

_ICON = 26
_BLOCK = 72.0


class DropSlot(FocusButton):
    """``dropped`` with the local paths let go over it, ``clicked`` to choose in a dialog."""

    dropped = Signal(list)

    def __init__(
        self, role: str, title: str, hint: str, icon: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._role, self._hint, self._icon = role, hint, icon
        self._lit = False
        self.setText(title)
        self.setAcceptDrops(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(title)
        self.setAccessibleDescription(hint)
        theme.manager().changed.connect(self.update)

    def set_lit(self, lit: bool) -> None:
        """Light the slot up while something that it would take is dragged over the window."""
        if lit != self._lit:
            self._lit = lit
            self.update()

    def is_lit(self) -> bool:
        """Return whether the slot is lit."""
        return self._lit

    def sizeHint(self) -> QSize:
        return QSize(250, 148)

    def minimumSizeHint(self) -> QSize:
        return QSize(140, 112)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()
            self.set_lit(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.set_lit(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.set_lit(False)
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        event.acceptProposedAction()
        self.dropped.emit(paths)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.current()
        colour = theme.role_color(self._role)
        rect = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        share = 0.16 if self._lit else 0.05 if self.underMouse() else 0.0
        painter.setBrush(QColor(theme.mix(tokens.panel, colour.name(), share)))
        pen = QPen(colour, 2.0 if self._lit or self.keyboard_focus() else 1.5)
        if not self._lit:
            pen.setStyle(Qt.PenStyle.CustomDashLine)
            pen.setDashPattern([5, 3.5])
            pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        painter.drawRoundedRect(rect, theme.PANEL_RADIUS, theme.PANEL_RADIUS)
        if self.keyboard_focus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.color("accent"), 1))
            painter.drawRoundedRect(rect.adjusted(4, 4, -4, -4), 7, 7)
        top = (self.height() - _BLOCK) / 2
        x = (self.width() - _ICON) / 2
        icons.draw(painter, self._icon, colour.name(), QRectF(x, top, _ICON, _ICON))
        middle = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter)
        painter.setFont(theme.font("caps"))
        painter.setPen(theme.text_color(self._role))
        painter.drawText(QRectF(8, top + 34, self.width() - 16, 18), middle, self.text())
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("muted"))
        room = self.width() - 16
        hint = painter.fontMetrics().elidedText(self._hint, Qt.TextElideMode.ElideRight, room)
        painter.drawText(QRectF(8, top + 54, room, 18), middle, hint)
