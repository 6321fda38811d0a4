"""The largest singular values of a few changes, with the bounds that are known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, RIGHT, Figure
from trimtab_gui.plots.scale import number, tick_texts, ticks
from trimtab_gui.widgets.paint import faded

_LEFT, _TOP, _RIGHT, _BOTTOM = 42.0, 6.0, 4.0, 32.0
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpectrumCurve:
    """Singular values in falling order, float64 [n], nan from where none are known.

    `low` and `high`, float64 [n], bound them; `role` and `index` give the colour.
    """

    label: str
    role: str
    values: Values
    low: Values
    high: Values
    index: int = 0

    @property
    def colour(self) -> QColor:
        """The colour in the theme in force."""
        return theme.role_color(self.role, self.index)


class SpectrumPlot(Figure):
    """Hovering, or the arrow keys, read the values of one index."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Spectrum"))
        self.curves: tuple[SpectrumCurve, ...] = ()
        self.marked = -1
        self._count, self._top = 1, 1.0

    def set_curves(self, curves: Sequence[SpectrumCurve]) -> None:
        """Show other spectra; the index that is read stays."""
        self.curves = tuple(curves)
        known = [int((~np.isnan(c.values)).sum()) for c in self.curves]
        self._count = max([*known, 1])
        tops = [float(np.nanmax(c.high)) for c in self.curves if not np.isnan(c.high).all()]
        self._top = max(tops, default=0.0) or 1.0
        self.marked = min(self.marked, self._count - 1)
        self.set_summary("; ".join(self._words(c) for c in self.curves))
        self.update()

    def _words(self, curve: SpectrumCurve) -> str:
        if np.isnan(curve.values).all():
            return self.tr("{name}: not known").format(name=curve.label)
        return self.tr("{name}: largest singular value {value}").format(
            name=curve.label, value=number(float(curve.values[0]))
        )

    def csv_table(self) -> Table:
        """Return a row for each index: value and bounds of every curve."""
        headers = ["index"]
        for c in self.curves:
            headers += [c.label, f"{c.label} low", f"{c.label} high"]
        rows: list[list[str | float]] = []
        for k in range(self._count):
            row: list[str | float] = [float(k + 1)]
            for c in self.curves:
                row += [float(c.values[k]), float(c.low[k]), float(c.high[k])]
            rows.append(row)
        return headers, rows

    # Geometry.

    def _plot(self) -> QRectF:
        return QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)

    def place(self, index: int, value: float) -> QPointF:
        """Return the pixel of a value; `index` counts from 0."""
        plot = self._plot()
        across = index / max(self._count - 1, 1)
        return QPointF(
            plot.left() + across * plot.width(),
            plot.bottom() - value / (self._top * 1.05) * plot.height(),
        )

    def index_at(self, point: QPointF) -> int:
        """Return the index under a pixel, -1 beside the plot."""
        plot = self._plot()
        if not self.curves or not plot.adjusted(-4, 0, 4, 0).contains(point):
            return -1
        share = (point.x() - plot.left()) / max(plot.width(), 1.0)
        return min(max(round(share * (self._count - 1)), 0), self._count - 1)

    def reading(self, index: int) -> str:
        """Return the values of an index in words, with their bounds where these differ."""
        lines = [self.tr("singular value {n}").format(n=index + 1)]
        for c in self.curves:
            if np.isnan(c.values[index]):
                continue
            low, high = float(c.low[index]), float(c.high[index])
            text = f"{c.label}: {number(float(c.values[index]))}"
            if high - low > 5e-3 * max(high, 1e-300):
                text += self.tr(" ({low} to {high})").format(low=number(low), high=number(high))
            lines.append(text)
        return "\n".join(lines)

    # Events.

    def tip(self, point: QPointF) -> str:
        found = self.index_at(point)
        return self.reading(found) if found >= 0 else ""

    def hover(self, point: QPointF | None) -> None:
        self._mark(-1 if point is None else self.index_at(point))

    def _mark(self, index: int) -> None:
        if index != self.marked:
            self.marked = index
            self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        step = steps.get(Qt.Key(event.key()))
        if step is None or not self.curves:
            super().keyPressEvent(event)
            return
        self._mark(min(max(self.marked + step, 0), self._count - 1))
        self.setToolTip(self.reading(self.marked))

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        plot = self._plot()
        self._draw_axes(painter, plot)
        for curve in self.curves:
            self._draw_curve(painter, curve)
        if 0 <= self.marked < self._count:
            x = self.place(self.marked, 0.0).x()
            painter.setPen(QPen(faded(theme.color("muted"), 0.6), 1))
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
            for curve in self.curves:
                value = float(curve.values[self.marked])
                if not np.isnan(value):
                    painter.setPen(Qt.PenStyle.NoPen)
                    painter.setBrush(curve.colour)
                    painter.drawEllipse(self.place(self.marked, value), 2.6, 2.6)

    def _draw_axes(self, painter: QPainter, plot: QRectF) -> None:
        painter.setFont(theme.font("caption"))
        grid, muted = QPen(faded(theme.color("line"), 0.6), 1), theme.color("muted")
        values = ticks(0.0, self._top, 3)
        for value, text in zip(values, tick_texts(values), strict=True):
            y = round(self.place(0, value).y()) + 0.5
            painter.setPen(grid)
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(muted)
            painter.drawText(QRectF(0, y - 8, plot.left() - 6, 16), RIGHT, text)
        painter.setPen(muted)
        marks = [0, *(k - 1 for k in (16, 32, 48, 64) if k <= self._count)]
        if self._count < 16:
            marks = sorted({0, self._count - 1})
        for k in marks:
            at = self.place(k, 0.0).x()
            painter.drawText(QRectF(at - 15, plot.bottom() + 3, 30, 14), CENTRE, str(k + 1))
        caption = QRectF(plot.left(), plot.bottom() + 17, plot.width(), 14)
        painter.drawText(caption, CENTRE, self.tr("singular value"))

    def _draw_curve(self, painter: QPainter, curve: SpectrumCurve) -> None:
        known = np.flatnonzero(~np.isnan(curve.values))
        points = [self.place(int(k), float(curve.values[k])) for k in known]
        sure = known[~(np.isnan(curve.low[known]) | np.isnan(curve.high[known]))]
        upper = [self.place(int(k), float(curve.high[k])) for k in sure]
        lower = [self.place(int(k), float(curve.low[k])) for k in sure]
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(faded(curve.colour, 0.2))
        painter.drawPolygon(QPolygonF([*upper, *reversed(lower)]))
        painter.setPen(QPen(curve.colour, 1.6))
        for one, other in pairwise(points):
            painter.drawLine(one, other)
        if len(points) == 1:
            painter.setBrush(curve.colour)
            painter.drawEllipse(points[0], 1.6, 1.6)
