"""How a profile draws its axes, region, curves and the ratio with its handles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPaintEngine, QPainter, QPen, QPolygonF

from trimtab_gui import theme
from trimtab_gui.plots import scale
from trimtab_gui.plots.canvas import LEFT_ALIGNED, RIGHT_ALIGNED
from trimtab_gui.plots.curves import Curve, Ratio, Values, dashes, pieces, thinned
from trimtab_gui.widgets.paint import faded

if TYPE_CHECKING:
    from trimtab_gui.plots.profile import ProfileView

_HANDLE = 3.6
_DASH = (7.0, 4.0)


def paint(painter: QPainter, plot: ProfileView) -> None:
    """Draw the whole plot."""
    rect = plot.plot_rect()
    _grid(painter, plot, rect)
    painter.save()
    painter.setClipRect(rect.adjusted(0, -6, 0, 6))
    _region(painter, plot, rect)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for curve in plot.curves:
        _band(painter, plot, curve)
    for curve in plot.curves:
        if curve.fill:
            _curve(painter, plot, curve)
    for curve in plot.curves:
        if not curve.fill:
            _curve(painter, plot, curve)
    if plot.ratio is not None:
        _ratio(painter, plot, plot.ratio)
    painter.restore()
    plot.paint_columns(painter, plot.x_label, plot.readout())


def curve_color(curve: Curve) -> QColor:
    """Return the colour of a curve in the theme in force."""
    if curve.color_role in theme.ROLES:
        return theme.role_color(curve.color_role, curve.index)
    return theme.color(curve.color_role)


def _grid(painter: QPainter, plot: ProfileView, rect: QRectF) -> None:
    low, high = plot.limits()
    painter.setFont(theme.font("caption"))
    marks = scale.ticks(low, high, max(int(rect.height() / 40), 2)) if plot.curves else []
    for value, text in zip(marks, scale.tick_texts(marks), strict=True):
        y = round(plot.y_px(value)) + 0.5
        painter.setPen(QPen(faded(theme.color("line"), 0.6), 1))
        painter.drawLine(QLineF(rect.left(), y, rect.right(), y))
        painter.setPen(theme.color("muted"))
        painter.drawText(QRectF(0, y - 8, rect.left() - 7, 16), RIGHT_ALIGNED, text)
    painter.setPen(QPen(theme.color("line"), 1))
    bottom = round(rect.bottom()) + 0.5
    painter.drawLine(QLineF(rect.left(), bottom, rect.right(), bottom))
    if plot.y_label:
        painter.save()
        painter.translate(10, rect.center().y())
        painter.rotate(-90)
        painter.setPen(theme.color("muted"))
        middle = int(Qt.AlignmentFlag.AlignCenter)
        painter.drawText(QRectF(-100, -8, 200, 16), middle, plot.y_label)
        painter.restore()
    if plot.ratio is not None:
        marks = scale.ticks(plot.ratio.minimum, plot.ratio.maximum, 3)
        painter.setPen(theme.text_color("accent"))
        for value, text in zip(marks, scale.tick_texts(marks), strict=True):
            y = plot.ratio_px(value)
            painter.drawText(QRectF(rect.right() + 8, y - 8, 40, 16), LEFT_ALIGNED, text)


def _region(painter: QPainter, plot: ProfileView, rect: QRectF) -> None:
    if plot.hover_column >= 0:
        left = plot.x_px(plot.hover_column)
        band = QRectF(left, rect.top(), plot.column_px(), rect.height())
        painter.fillRect(band, faded(theme.color("muted"), 0.08))
    low, high = plot.selection
    if low < 0:
        return
    left, right = round(plot.x_px(low)) + 0.5, round(plot.x_px(high + 1)) - 0.5
    colour = theme.color("aligned")
    painter.fillRect(QRectF(left, rect.top(), right - left, rect.height()), faded(colour, 0.09))
    pen = QPen(colour, 1)
    pen.setDashPattern([4, 3])
    painter.setPen(pen)
    for x in (left, right):
        painter.drawLine(QLineF(x, rect.top(), x, rect.bottom()))


def _curve(painter: QPainter, plot: ProfileView, curve: Curve) -> None:
    colour = curve_color(curve)
    chosen = thinned(curve.values, max(int(plot.plot_rect().width()), 64))
    points = _points(plot, chosen, curve.values[chosen], plot.y_px(0.0), plot.y_px(1.0))
    zero = plot.y_px(0.0)
    for run in pieces(points):
        if curve.fill:
            _area(painter, run, zero, faded(colour, 0.18))
        if len(run) == 1:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawEllipse(run[0], 2, 2)
        elif curve.dashed:
            pen = QPen(colour, curve.width)
            pen.setCapStyle(Qt.PenCapStyle.FlatCap)
            painter.setPen(pen)
            painter.drawLines(dashes(run, 3.0, 4.0))
        else:
            _line(painter, run, colour, curve.width)


def _band(painter: QPainter, plot: ProfileView, curve: Curve) -> None:
    """Shade between the curve's low and high, column by column, where both are known."""
    if curve.low is None or curve.high is None:
        return
    columns = np.arange(curve.values.size)
    axis = plot.y_px(0.0), plot.y_px(1.0)
    below = _points(plot, columns, curve.low, *axis)
    above = _points(plot, columns, curve.high, *axis)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(faded(curve_color(curve), 0.18))
    # slices that share an edge would show it: they meet at whole pixels, as areas do
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, _is_vector(painter))
    edges = [None if p is None or q is None else (p, q) for p, q in zip(below, above, strict=True)]
    for one, other in pairwise(edges):
        if one is not None and other is not None:
            painter.drawConvexPolygon(QPolygonF([one[0], one[1], other[1], other[0]]))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)


def _points(
    plot: ProfileView,
    columns: npt.NDArray[np.intp],
    values: Values,
    zero: float,
    one: float,
) -> list[QPointF | None]:
    """Return the pixels of values, None for nan; ``zero`` and ``one`` are the axis in pixels."""
    left, width = plot.x_px(0.0), plot.column_px()
    across = left + (columns + 0.5) * width
    down = zero + values * (one - zero)
    return [
        None if math.isnan(y) else QPointF(x, y)
        for x, y in zip(across.tolist(), down.tolist(), strict=True)
    ]


def _is_vector(painter: QPainter) -> bool:
    return painter.paintEngine().type() == QPaintEngine.Type.SVG


def _line(painter: QPainter, run: list[QPointF], colour: QColor, width: float) -> None:
    """Draw a line; on screen segment by segment: as one antialiased path wider than a pixel, 130
    points take 45 ms, as segments 0.4 ms."""
    pen = QPen(colour, width)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    pen.setCapStyle(Qt.PenCapStyle.SquareCap)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(pen)
    if _is_vector(painter):
        painter.drawPolyline(QPolygonF(run))
    else:
        painter.drawLines([QLineF(one, other) for one, other in pairwise(run)])


def _area(painter: QPainter, run: list[QPointF], zero: float, colour: QColor) -> None:
    """Fill down to zero; on screen in slices that meet at whole pixels, for the same reason."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    if _is_vector(painter):
        ends = [QPointF(run[-1].x(), zero), QPointF(run[0].x(), zero)]
        painter.drawPolygon(QPolygonF([*run, *ends]))
        return
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
    for one, other in pairwise(run):
        feet = [QPointF(other.x(), zero), QPointF(one.x(), zero)]
        painter.drawConvexPolygon(QPolygonF([one, other, *feet]))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)


def _ratio(painter: QPainter, plot: ProfileView, ratio: Ratio) -> None:
    colour = theme.color("accent" if ratio.enabled else "muted")
    pen = QPen(colour, 1.4)
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    columns = np.arange(len(plot.columns))
    points = _points(plot, columns, ratio.values, plot.ratio_px(0.0), plot.ratio_px(1.0))
    for run in pieces(points):
        painter.drawLines(dashes(run, *_DASH))
    radius = min(_HANDLE, plot.column_px() * 0.4)
    hollow = theme.color("panel")
    for j, point in enumerate(points):
        if point is None:
            continue
        lively = ratio.enabled and j in (plot.hover_column, plot.chosen_column)
        if radius < 1.5 and not ratio.pinned[j] and not lively:
            continue
        size = max(radius, 2.0) + (1.4 if lively else 0.0)
        painter.setPen(QPen(colour, 1.4))
        painter.setBrush(colour if ratio.pinned[j] else hollow)
        painter.drawEllipse(point, size, size)
    if plot.hasFocus() and 0 <= plot.chosen_column < len(points):
        point = points[plot.chosen_column]
        if point is not None:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.color("text"), 1))
            painter.drawEllipse(point, _HANDLE + 4, _HANDLE + 4)
