"""A name, a share, and a thin bar as long as the share."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme

_HEIGHT, _BAR = 30, 5.0
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


class ShareLine(QWidget):
    """``role`` is a role or a token."""

    def __init__(self, name: str, role: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name, self._role = name, role
        self._share: float | None = None
        self._text = "–"
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(name)
        theme.manager().changed.connect(self.update)

    def set_share(self, share: float | None, text: str) -> None:
        """Show a share in 0..1 as a text; None for one that is not known."""
        self._share, self._text = share, text
        self.setAccessibleDescription(text)
        self.update()

    def text(self) -> str:
        """Return what is written."""
        return self._text

    def sizeHint(self) -> QSize:
        return QSize(240, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = float(self.width())
        painter.setFont(theme.font("body"))
        painter.setPen(theme.color("text"))
        painter.drawText(QRectF(0, 0, width, 20), _LEFT, self._name)
        painter.setFont(theme.font("number"))
        painter.setPen(theme.color("muted" if self._share is None else "text"))
        painter.drawText(QRectF(0, 0, width, 20), _RIGHT, self._text)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("line"))
        painter.drawRoundedRect(QRectF(0, 22, width, _BAR), _BAR / 2, _BAR / 2)
        if self._share:
            role = self._role
            painter.setBrush(theme.role_color(role) if role in theme.ROLES else theme.color(role))
            bar = QRectF(0, 22, max(width * min(self._share, 1.0), _BAR), _BAR)
            painter.drawRoundedRect(bar, _BAR / 2, _BAR / 2)
