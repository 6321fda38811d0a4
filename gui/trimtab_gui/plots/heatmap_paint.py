"""How a heatmap draws what lies on its cells: gaps, hatching, cursor and selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QLineF, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QFontMetricsF, QImage, QPainter, QPen

from trimtab_gui import theme
from trimtab_gui.plots.canvas import RIGHT_ALIGNED
from trimtab_gui.plots.grid import Lines, Span
from trimtab_gui.widgets.paint import faded

if TYPE_CHECKING:
    from trimtab_gui.plots.heatmap import HeatmapView

_GAP_FROM_PX = 5.0
_GAP_PX = 1.5
_LABEL_PX = 13.0
_HATCH_FROM_PX = 4.0
_VECTOR_CELLS = 20_000


def cells(painter: QPainter, plot: HeatmapView) -> None:
    """Fill the cells as rectangles, for a file that is to stay sharp at every size."""
    pixels = plot.pixels()
    painter.save()
    painter.setClipRect(plot.plot_rect())
    if plot.grid.ids.size > _VECTOR_CELLS:
        rows, columns = plot.grid.shape
        whole = plot.span_rect(Span(0, rows - 1, 0, columns - 1))
        # Enlarged here, because viewers smooth a small image and blur the cells.
        image = QImage(pixels.data, columns, rows, 4 * columns, QImage.Format.Format_RGBA8888)
        painter.drawImage(whole, image.scaled(round(whole.width()) * 2, round(whole.height()) * 2))
    else:
        for cell in range(plot.grid.count):
            span = plot.grid.span(cell)
            if span is not None:
                red, green, blue, _ = (int(c) for c in pixels[span.row_low, span.column_low])
                painter.fillRect(plot.span_rect(span), QColor(red, green, blue))
    painter.restore()


def gaps(painter: QPainter, plot: HeatmapView) -> None:
    """Part different cells by thin lines of the background, where they are large enough."""
    ratio = painter.device().devicePixelRatioF()
    width = round(_GAP_PX * ratio)
    view = plot.view_range()

    def edge(place: float) -> float:
        # On whole device pixels every gap is equally wide, also at 125 or 150 %.
        return round(place * ratio - width / 2) / ratio

    lines: list[QRectF] = []
    if plot.column_px() >= _GAP_FROM_PX:
        for at, low, high in _visible(plot.grid.vertical, view.left(), view.right()):
            top, bottom = plot.y_px(low), plot.y_px(high)
            lines.append(QRectF(edge(plot.x_px(at)), top, width / ratio, bottom - top))
    if plot.y_px(1) - plot.y_px(0) >= _GAP_FROM_PX:
        for at, low, high in _visible(plot.grid.horizontal, view.top(), view.bottom()):
            left, right = plot.x_px(low), plot.x_px(high)
            lines.append(QRectF(left, edge(plot.y_px(at)), right - left, width / ratio))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme.color("panel"))
    painter.drawRects(lines)


def _visible(lines: Lines, low: float, high: float) -> list[tuple[int, int, int]]:
    seen = (lines.at >= low) & (lines.at <= high)
    return list(
        zip(
            lines.at[seen].tolist(),
            lines.low[seen].tolist(),
            lines.high[seen].tolist(),
            strict=True,
        )
    )


def empty_cells(painter: QPainter, plot: HeatmapView) -> None:
    """Hatch the cells that have no value, so that they are not read as a low one."""
    height = plot.y_px(1) - plot.y_px(0)
    if plot.column_px() < _HATCH_FROM_PX or height < _HATCH_FROM_PX:
        return
    view = plot.view_range()
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QBrush(faded(theme.color("muted"), 0.45), Qt.BrushStyle.BDiagPattern))
    rects = [
        plot.span_rect(Span(row, row, low, high - 1))
        for row, low, high in _visible(plot.empty, view.top() - 1, view.bottom())
    ]
    painter.drawRects(rects)


def outlines(painter: QPainter, plot: HeatmapView) -> None:
    """Draw what is hovered, what is selected, and the cell cursor, in this order."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    hover, cursor = plot.grid.span(plot.hover_cell), plot.grid.span(plot.cursor_cell)
    if hover is not None and hover != cursor:
        painter.setPen(QPen(faded(theme.color("text"), 0.8), 1))
        painter.drawRect(_crisp(plot.span_rect(hover)))
    selected = plot.selected_parts()
    if len(selected) > 1:
        _dashed(painter, _contour(plot, selected))
    elif selected and selected[0] != cursor:
        _dashed(painter, _crisp(plot.span_rect(selected[0])))
    if cursor is not None:
        rect = _crisp(plot.span_rect(cursor))
        painter.setPen(QPen(theme.color("panel"), 4))
        painter.drawRect(rect)
        painter.setPen(QPen(theme.color("text"), 2))
        painter.drawRect(rect)


def row_labels(painter: QPainter, plot: HeatmapView) -> None:
    """Name the rows at the left, as many as there is room for."""
    rect, small = plot.plot_rect(), theme.font("caption")
    metrics = QFontMetricsF(small)
    painter.setFont(small)
    painter.setPen(theme.color("muted"))
    step = max(math.ceil(_LABEL_PX / (plot.y_px(1) - plot.y_px(0))), 1)
    for row in range(0, len(plot.row_labels), step):
        y = plot.y_px(row + 0.5)
        if rect.top() - 1 <= y <= rect.bottom() + 1:
            room = rect.left() - 10
            text = metrics.elidedText(plot.row_labels[row], Qt.TextElideMode.ElideMiddle, room)
            painter.drawText(QRectF(0, y - 8, rect.left() - 7, 16), RIGHT_ALIGNED, text)


def _contour(plot: HeatmapView, spans: Sequence[Span]) -> list[QLineF]:
    """Return the lines around all that rectangles cover, whole ones and not each by itself."""
    upright, level = plot.grid.contour(spans)
    lines = [
        QLineF(round(plot.x_px(at)), round(plot.y_px(low)), round(plot.x_px(at)),
               round(plot.y_px(high)))
        for at, low, high in zip(upright.at, upright.low, upright.high, strict=True)
    ]  # fmt: skip
    return lines + [
        QLineF(round(plot.x_px(low)), round(plot.y_px(at)), round(plot.x_px(high)),
               round(plot.y_px(at)))
        for at, low, high in zip(level.at, level.low, level.high, strict=True)
    ]  # fmt: skip


def _dashed(painter: QPainter, shape: QRectF | list[QLineF]) -> None:
    """Dashes of the safety colour over a dark line: seen on every colour of the map."""
    dashes = QPen(theme.color("aligned"), 2)
    dashes.setDashPattern([4, 2])
    dashes.setCapStyle(Qt.PenCapStyle.FlatCap)
    for pen in (QPen(theme.color("panel"), 3), dashes):
        painter.setPen(pen)
        if isinstance(shape, QRectF):
            painter.drawRect(shape)
        else:
            painter.drawLines(shape)


def _crisp(rect: QRectF) -> QRectF:
    left, top = round(rect.left()), round(rect.top())
    return QRectF(left, top, round(rect.right()) - left, round(rect.bottom()) - top)
