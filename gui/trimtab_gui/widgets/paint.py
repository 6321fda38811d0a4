"""Shapes that several controls draw: cards with or without a coloured edge."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen


def card(
    painter: QPainter,
    rect: QRectF,
    radius: float,
    fill: QColor,
    border: QColor,
    edge: QColor | None = None,
    border_width: float = 1.0,
) -> None:
    """Fill a rounded rectangle with a thin border; ``edge`` colours a strip of 3 px at its left."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    inner = rect.adjusted(0.5, 0.5, -0.5, -0.5)
    painter.setPen(QPen(border, border_width))
    painter.setBrush(fill)
    painter.drawRoundedRect(inner, radius, radius)
    if edge is not None:
        outline = QPainterPath()
        outline.addRoundedRect(rect, radius, radius)
        strip = QPainterPath()
        strip.addRect(QRectF(rect.left(), rect.top(), 3, rect.height()))
        painter.fillPath(outline.intersected(strip), edge)


def transparent() -> QColor:
    """Return a colour that draws nothing."""
    return QColor(Qt.GlobalColor.transparent)


def faded(colour: QColor, alpha: float) -> QColor:
    """Return the colour at an opacity of ``alpha`` (0..1)."""
    result = QColor(colour)
    result.setAlphaF(alpha)
    return result
