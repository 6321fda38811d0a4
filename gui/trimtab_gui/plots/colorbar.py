"""The colour scale beside a heatmap, with two handles that set which values it spans."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QImage, QPainter, QPen, QPolygonF

from trimtab_gui import theme
from trimtab_gui.plots import scale
from trimtab_gui.plots.canvas import LEFT_ALIGNED

WIDTH = 12.0
GAP = 8.0
_REACH = 9.0


class ColorBar:
    """It spans the whole range of the data; the map runs between the two levels."""

    def __init__(self) -> None:
        self.full = (0.0, 1.0)
        self.levels = (0.0, 1.0)
        self.signed = False
        self.map_name = scale.MAGNITUDE
        self._cached: tuple[object, QImage] | None = None

    def set_range(self, full: tuple[float, float], signed: bool) -> None:
        """Begin anew with the range of other data."""
        self.full = self.levels = full
        self.signed = signed

    def rect(self, plot: QRectF) -> QRectF:
        """Return where the bar is drawn beside a plot."""
        return QRectF(plot.right() + GAP, plot.top(), WIDTH, plot.height())

    def _y(self, plot: QRectF, value: float) -> float:
        low, high = self.full
        return plot.bottom() - (value - low) / (high - low) * plot.height()

    def handle_at(self, plot: QRectF, place: QPointF) -> int:
        """Return 0 for the lower handle, 1 for the upper, -1 for neither."""
        bar = self.rect(plot).adjusted(-4, -6, 8, 6)
        if not bar.contains(place):
            return -1
        distances = [abs(self._y(plot, level) - place.y()) for level in self.levels]
        nearest = 0 if distances[0] <= distances[1] else 1
        return nearest if distances[nearest] <= _REACH else -1

    def drag(self, plot: QRectF, handle: int, y: float) -> bool:
        """Move a handle to a pixel; return whether the levels changed."""
        low, high = self.full
        value = low + (plot.bottom() - y) / plot.height() * (high - low)
        value = min(max(value, low), high)
        least = (high - low) / 100
        before = self.levels
        if self.signed:
            # Both move: zero keeps the colour of zero.
            reach = max(value if handle == 1 else -value, least)
            self.levels = (-reach, reach)
        elif handle == 0:
            self.levels = (min(value, self.levels[1] - least), self.levels[1])
        else:
            self.levels = (self.levels[0], max(value, self.levels[0] + least))
        return self.levels != before

    def reset(self) -> None:
        """Span the whole range again."""
        self.levels = self.full

    def paint(self, painter: QPainter, plot: QRectF) -> None:
        """Draw the bar, its ticks and its handles."""
        bar = self.rect(plot)
        painter.drawImage(bar, self._image(round(bar.height())))
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("muted"))
        marks = scale.ticks(*self.full, at_most=max(int(bar.height() / 46), 2))
        for value, text in zip(marks, scale.tick_texts(marks), strict=True):
            y = self._y(plot, value)
            painter.drawText(QRectF(bar.right() + 7, y - 8, 46, 16), LEFT_ALIGNED, text)
        for level in self.levels:
            self._paint_handle(painter, bar, self._y(plot, level))

    def _image(self, height: int) -> QImage:
        key = (height, self.full, self.levels, self.map_name)
        if self._cached is None or self._cached[0] != key:
            low, high = self.full
            first, last = self.levels
            values = high - (np.arange(max(height, 1)) + 0.5) / max(height, 1) * (high - low)
            share = np.clip((values - first) / (last - first), 0.0, 1.0)
            table = scale.lookup_table(self.map_name)
            pixels = np.ascontiguousarray(table[np.rint(255 * share).astype(np.intp)])
            view = QImage(pixels.data, 1, max(height, 1), 4, QImage.Format.Format_RGBA8888)
            self._cached = (key, view.copy())
        return self._cached[1]

    def _paint_handle(self, painter: QPainter, bar: QRectF, y: float) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(theme.color("panel"), 3))
        painter.drawLine(QPointF(bar.left(), y), QPointF(bar.right(), y))
        painter.setPen(QPen(theme.color("text"), 1))
        painter.drawLine(QPointF(bar.left() - 1, y), QPointF(bar.right() + 1, y))
        middle, reach = bar.center().x(), 4.5
        diamond = QPolygonF(
            [
                QPointF(middle - reach, y),
                QPointF(middle, y - reach),
                QPointF(middle + reach, y),
                QPointF(middle, y + reach),
            ]
        )
        painter.setPen(QPen(theme.color("panel"), 1))
        painter.setBrush(theme.color("text"))
        painter.drawPolygon(diamond)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.restore()
