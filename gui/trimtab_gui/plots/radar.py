"""Shares by category around a circle: only with their intervals, each as a band."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QPainter, QPainterPath, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.dots import Dot, Series
from trimtab_gui.plots.figure import CENTRE, Figure
from trimtab_gui.widgets.paint import faded

_SIDE, _OVER, _LABEL = 84.0, 38.0, 96.0
_RINGS = (0.25, 0.5, 0.75, 1.0)


class RadarPlot(Figure):
    """Spokes are categories, from 0 in the middle to 100 % at the rim.

    A spoke without data breaks the line; numbers that must not be read are not drawn. Controls are
    dashed and have no band.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Radar of shares by category"))
        self.categories: tuple[str, ...] = ()
        self.series: tuple[Series, ...] = ()

    def set_data(self, categories: Sequence[str], series: Sequence[Series]) -> None:
        """Show other data."""
        self.categories, self.series = tuple(categories), tuple(series)
        self.update()

    def _place(self, centre: QPointF, radius: float, spoke: int, share: float) -> QPointF:
        angle = 2 * math.pi * spoke / len(self.categories) - math.pi / 2
        reach = radius * share
        return QPointF(
            centre.x() + reach * math.cos(angle), centre.y() + reach * math.sin(angle)
        )  # fmt: skip

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        if len(self.categories) < 3:
            painter.setFont(theme.font("caption"))
            painter.setPen(theme.color("muted"))
            painter.drawText(rect, CENTRE, self.tr("A radar needs three categories."))
            return
        centre = rect.center()
        radius = max(min(rect.width() / 2 - _SIDE, rect.height() / 2 - _OVER), 20.0)
        self._draw_web(painter, centre, radius)
        for one in self.series:
            self._draw_series(painter, centre, radius, one)

    def _draw_web(self, painter: QPainter, centre: QPointF, radius: float) -> None:
        spokes = range(len(self.categories))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(theme.color("line"), 1))
        for ring in _RINGS:
            painter.drawPolygon(QPolygonF([self._place(centre, radius, j, ring) for j in spokes]))
        painter.setFont(theme.font("caption"))
        metrics = QFontMetricsF(theme.font("caption"))
        for j in spokes:
            painter.setPen(QPen(theme.color("line"), 1))
            painter.drawLine(centre, self._place(centre, radius, j, 1.0))
            # neighbours at top and bottom stand side by side: every other one a line further out
            level = abs(math.cos(2 * math.pi * j / len(self.categories))) > 0.85
            at = self._place(centre, radius + 14 + (13 if level and j % 2 else 0), j, 1.0)
            text = metrics.elidedText(self.categories[j], Qt.TextElideMode.ElideRight, _LABEL)
            width = metrics.horizontalAdvance(text) + 2
            side = math.sin(2 * math.pi * j / len(self.categories))
            left = at.x() - width / 2 + side * width / 2
            left = min(max(left, 0.0), self.width() - width)
            painter.setPen(theme.color("muted"))
            painter.drawText(QRectF(left, at.y() - 8, width, 16), CENTRE, text)

    def _draw_series(self, painter: QPainter, centre: QPointF, radius: float, one: Series) -> None:
        dots = [None if dot is None or dot.greyed else dot for dot in one.dots]
        known = [dot for dot in dots if dot is not None]
        if len(known) == len(dots) and one.hollow is None:
            band = self._outline(centre, radius, [dot.high for dot in known])
            band.addPath(self._outline(centre, radius, [dot.low for dot in known]))
            band.setFillRule(Qt.FillRule.OddEvenFill)
            painter.fillPath(band, faded(one.colour, 0.13))
        dashed = Qt.PenStyle.SolidLine if one.hollow is None else Qt.PenStyle.DashLine
        painter.setPen(QPen(one.colour, 1.4, dashed))
        count = len(dots)
        for j, dot in enumerate(dots):
            after: Dot | None = dots[(j + 1) % count]
            if dot is None:
                continue
            here = self._place(centre, radius, j, dot.value)
            if after is not None:
                painter.drawLine(here, self._place(centre, radius, (j + 1) % count, after.value))
            painter.drawLine(
                self._place(centre, radius, j, dot.low), self._place(centre, radius, j, dot.high)
            )

    def _outline(self, centre: QPointF, radius: float, shares: Sequence[float]) -> QPainterPath:
        path = QPainterPath()
        places = [self._place(centre, radius, j, share) for j, share in enumerate(shares)]
        path.addPolygon(QPolygonF(places))
        path.closeSubpath()
        return path
