"""A thin bar cut into shares, each in its colour."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme

_HEIGHT = 10
_GAP = 2
_LEAST = 4.0


class ShareBar(QWidget):
    """What there is least of is still to be seen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shares: list[tuple[str, float]] = []
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme.manager().changed.connect(self.update)

    def set_shares(self, shares: Sequence[tuple[str, float]], spoken: str) -> None:
        """Show (colour token, amount) from left to right; `spoken` says it in words."""
        self._shares = [(token, amount) for token, amount in shares if amount > 0]
        self.setAccessibleName(spoken)
        self.setToolTip(spoken)
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(240, _HEIGHT)

    def widths(self) -> list[float]:
        """Return the pixels of each share."""
        room = self.width() - _GAP * max(len(self._shares) - 1, 0)
        total = sum(amount for _, amount in self._shares) or 1.0
        plain = [max(amount / total * room, _LEAST) for _, amount in self._shares]
        over = sum(plain) - room
        if plain and over > 0:
            plain[plain.index(max(plain))] -= over
        return plain

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        outline = QPainterPath()
        outline.addRoundedRect(QRectF(self.rect()), _HEIGHT / 2, _HEIGHT / 2)
        painter.setClipPath(outline)
        painter.setPen(Qt.PenStyle.NoPen)
        if not self._shares:
            painter.fillRect(self.rect(), theme.color("line"))
        left = 0.0
        for (token, _), width in zip(self._shares, self.widths(), strict=True):
            painter.fillRect(QRectF(left, 0, width, _HEIGHT), theme.color(token))
            left += width + _GAP
