"""Layers x modules at one look: a grid of cells that can be read, brushed, zoomed and exported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter, QTransform
from PySide6.QtWidgets import QGraphicsItem, QGraphicsRectItem, QWidget

from trimtab_gui import theme
from trimtab_gui.plots import heatmap_paint, scale
from trimtab_gui.plots.canvas import Canvas
from trimtab_gui.plots.colorbar import ColorBar
from trimtab_gui.plots.grid import (
    NO_SPAN,
    NOWHERE,
    CellGrid,
    Ids,
    Span,
    Values,
    colour_cells,
    value_range,
)
from trimtab_gui.plots.pg import CellImage

_DRAG_PX = 4
_ARROWS = {
    Qt.Key.Key_Left: (0, -1),
    Qt.Key.Key_Right: (0, 1),
    Qt.Key.Key_Up: (-1, 0),
    Qt.Key.Key_Down: (1, 0),
}


class HeatmapView(Canvas):
    """``hovered`` and ``cursor_changed`` carry a cell id, -1 for none.

    ``selection_changed`` carries the ids (int32, sorted), the row range and the column range; both
    bounds of a range belong to it, (-1, -1) is no selection.
    """

    hovered = Signal(int)
    cursor_changed = Signal(int)
    selection_changed = Signal(object, object, object)
    levels_changed = Signal(float, float)

    def __init__(self, x_label: str = "layer", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._zoom_rows = True
        self._x_label = x_label
        self.bar = ColorBar()
        self.grid = CellGrid(np.full((1, 1), -1, dtype=np.int32))
        self.row_labels: list[str] = []
        self.values: Values = np.zeros(0, dtype=np.float64)
        self.empty = self.grid.without_value(self.values)
        self._label, self._unit = "", ""
        self._fmt: Callable[[float], str] = scale.number
        self._readout: Callable[[int], str] | None = None
        self._chosen_map: str | None = None
        self.cursor_cell, self.hover_cell = -1, -1
        self.selection: Span | None = None
        self._parts: list[Span] = []
        self._anchor: tuple[int, int] | None = None
        self._press = QPointF()
        self._brushing, self._brush = False, NO_SPAN
        self._level = -1
        self._clip = QGraphicsRectItem()
        self._clip.setPen(Qt.PenStyle.NoPen)
        self._clip.setFlag(QGraphicsItem.GraphicsItemFlag.ItemClipsChildrenToShape)
        self.scene().addItem(self._clip)
        self._image = CellImage(self._clip)

    # What is shown.

    def set_grid(
        self, row_labels: list[str], column_labels: list[str], cell_ids: npt.NDArray[np.int32]
    ) -> None:
        """Lay out cells: ``cell_ids`` int32 [rows, columns], -1 where there is none.

        ValueError when the labels do not fit. One id may fill a rectangle of cells.
        """
        if cell_ids.shape != (len(row_labels), len(column_labels)):
            raise ValueError("cell_ids must be [rows, columns]")
        self.grid = CellGrid(cell_ids)
        self.row_labels, self.columns = list(row_labels), list(column_labels)
        self.rows_shown = len(row_labels)
        self.values = np.full(self.grid.count, np.nan)
        self.empty = self.grid.without_value(self.values)
        self.cursor_cell = self.hover_cell = -1
        self.selection, self._parts = None, []
        self._recolour_cells()
        self.reset_view()
        self.place_items()

    def set_values(
        self,
        values: Values,
        *,
        signed: bool,
        label: str,
        unit: str = "",
        fmt: Callable[[float], str] = scale.number,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Colour the cells by float64 ``values`` [n_ids]; nan is no value and is hatched.

        ``limits`` holds the colour scale still while values change; None is their own range.
        Levels set by hand stay for as long as label, sign and scale do. ValueError when an id of
        the grid has no entry.
        """
        if values.ndim != 1 or values.size < self.grid.count:
            raise ValueError("values must hold one number for each id")
        self.values = np.array(values[: self.grid.count], dtype=np.float64)
        self.empty = self.grid.without_value(self.values)
        full = limits or value_range(self.values, signed)
        if (label, signed, full) != (self._label, self.bar.signed, self.bar.full):
            self.bar.set_range(full, signed)
        self._label, self._unit, self._fmt = label, unit, fmt
        self._apply_map()
        self.setAccessibleName(label)
        self._recolour_cells()

    def set_colormap(self, name: str | None) -> None:
        """Use a named map (cividis, say); None is viridis, or vik for signed values."""
        self._chosen_map = name
        self._apply_map()
        self._recolour_cells()

    def set_readout(self, text: Callable[[int], str] | None) -> None:
        """Say what is written for the cell under the pointer; None is labels and value."""
        self._readout = text

    def set_summary(self, text: str) -> None:
        """Describe the plot in words, for those who do not see it."""
        self.setAccessibleDescription(text)

    def set_selection(
        self,
        ids: Ids | None = None,
        rows: tuple[int, int] = NOWHERE,
        cols: tuple[int, int] = NOWHERE,
    ) -> None:
        """Show a selection without emitting; without ranges, the rectangles that ``ids`` fill."""
        parts: list[Span] = []
        if rows != NOWHERE and cols != NOWHERE:
            parts = [Span(*rows, *cols)]
        elif ids is not None:
            parts = self.grid.rectangles(ids)
        span: Span | None = None
        if parts:
            bounds = np.array([(s.row_low, s.row_high, s.column_low, s.column_high) for s in parts])
            (top, _, left, _), (_, bottom, _, right) = bounds.min(0), bounds.max(0)
            span = Span(int(top), int(bottom), int(left), int(right))
        if span != self.selection or parts != self._parts:
            self.selection, self._parts = span, parts
            self.viewport().update()

    def selected_parts(self) -> list[Span]:
        """Return the rectangles that are selected."""
        if self.selection is None:
            return []
        return self._parts if len(self._parts) > 1 else [self.selection]

    def set_cursor(self, cell: int) -> None:
        """Outline a cell without emitting; -1 for none."""
        if cell != self.cursor_cell:
            self.cursor_cell = cell
            self.viewport().update()

    def csv_table(self) -> tuple[list[str], list[list[str | float]]]:
        """Return every cell once: row label, column label, value (nan where there is none)."""
        headers = ["module", self._x_label, self._label or "value"]
        rows: list[list[str | float]] = []
        for cell in range(self.grid.count):
            span = self.grid.span(cell)
            if span is not None:
                rows.append([*self.cell_name(span), float(self.values[cell])])
        return headers, rows

    def cell_name(self, span: Span) -> tuple[str, str]:
        """Return a cell's row and column label; a tall cell goes by its column alone."""
        column = self.columns[span.column_low]
        tall = span.row_high > span.row_low
        return ("" if tall else self.row_labels[span.row_low], column)

    def readout(self) -> str:
        """Return what is written about the cell under the pointer, or else under the cursor."""
        cell = self.hover_cell if self.hover_cell >= 0 else self.cursor_cell
        span = self.grid.span(cell)
        if span is None:
            return ""
        if self._readout is not None:
            return self._readout(cell)
        row, column = self.cell_name(span)
        value = self.values[cell]
        shown = self.tr("no value") if np.isnan(value) else f"{self._fmt(float(value))}"
        unit = f" {self._unit}" if self._unit and not np.isnan(value) else ""
        place = f"{column} · {row}" if row else column
        return f"{place}   {shown}{unit}"

    # Geometry.

    def y_px(self, y: float) -> float:
        """Return the pixel of a row coordinate."""
        rect, view = self.plot_rect(), self.view_range()
        return rect.top() + (y - view.top()) / view.height() * rect.height()

    def span_rect(self, span: Span) -> QRectF:
        """Return the pixels of a rectangle of cells."""
        left, right = self.x_px(span.column_low), self.x_px(span.column_high + 1)
        top, bottom = self.y_px(span.row_low), self.y_px(span.row_high + 1)
        return QRectF(left, top, right - left, bottom - top)

    def place_at(self, point: QPointF) -> tuple[int, int]:
        """Return row and column under a pixel, held within the grid."""
        rect, view = self.plot_rect(), self.view_range()
        row = int((view.top() + (point.y() - rect.top()) / rect.height() * view.height()) // 1)
        return min(max(row, 0), self.grid.shape[0] - 1), self.column_at(point.x())

    def cell_at(self, point: QPointF) -> int:
        """Return the id under a pixel, -1 outside."""
        if not self.columns or not self.plot_rect().contains(point):
            return -1
        row, column = self.place_at(point)
        return int(self.grid.ids[row, column])

    def place_items(self) -> None:
        rect, view = self.plot_rect(), self.view_range()
        self._clip.setRect(rect)
        across, down = rect.width() / view.width(), rect.height() / view.height()
        move = QTransform.fromTranslate(
            rect.left() - view.left() * across, rect.top() - view.top() * down
        )
        self._image.item.setTransform(QTransform.fromScale(across, down) * move)

    def recolour(self) -> None:
        self._recolour_cells()

    def _apply_map(self) -> None:
        usual = scale.SIGNED if self.bar.signed else scale.MAGNITUDE
        self.bar.map_name = self._chosen_map or usual

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the colours of the grid, uint8 [rows, columns, 4]."""
        empty = theme.color("card")
        return colour_cells(
            self.grid,
            self.values,
            self.bar.levels,
            scale.lookup_table(self.bar.map_name),
            (empty.red(), empty.green(), empty.blue()),
        )

    def _recolour_cells(self) -> None:
        self._image.set_pixels(self.pixels())
        self.viewport().update()

    # Gestures.

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        if not self.columns or self.begin_pan(event):
            return
        if event.button() != Qt.MouseButton.LeftButton:
            return
        point = event.position()
        self._level = self.bar.handle_at(self.plot_rect(), point)
        if self._level < 0 and self.plot_rect().contains(point):
            self._anchor, self._press, self._brushing = self.place_at(point), point, False
            self._brush = NO_SPAN

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        point = event.position()
        if self.continue_pan(event):
            return
        if self._level >= 0:
            if self.bar.drag(self.plot_rect(), self._level, point.y()):
                self._recolour_cells()
                self.levels_changed.emit(*self.bar.levels)
        elif self._anchor is not None:
            moved = (point - self._press).manhattanLength()
            self._brushing = self._brushing or moved >= _DRAG_PX
            if self._brushing:
                self._brush_to(*self.place_at(point))
        else:
            self._hover(self.cell_at(point))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self.end_pan():
            return
        if self._anchor is not None and not self._brushing:
            self._pick(int(self.grid.ids[self._anchor]))
        self._anchor, self._level, self._brushing = None, -1, False
        self._hover(self.cell_at(event.position()))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if self.bar.rect(self.plot_rect()).contains(event.position()):
            self.bar.reset()
            self._recolour_cells()
            self.levels_changed.emit(*self.bar.levels)
        else:
            self.mousePressEvent(event)

    def pointer_left(self) -> None:
        self._hover(-1)

    def _hover(self, cell: int) -> None:
        if cell != self.hover_cell:
            self.hover_cell = cell
            self.viewport().update()
            self.hovered.emit(cell)

    def _brush_to(self, row: int, column: int) -> None:
        if self._anchor is None:
            return
        (top, bottom), (left, right) = (
            sorted(pair) for pair in zip(self._anchor, (row, column), strict=True)
        )
        span = Span(top, bottom, left, right)
        if span != self._brush:
            self._brush = span
            self._select(span, self.grid.inside(span))

    def _pick(self, cell: int) -> None:
        span = self.grid.span(cell)
        if span is None:
            return
        self._move_cursor(cell)
        self._select(span, np.array([cell], dtype=np.int32))

    def _select(self, span: Span, ids: Ids) -> None:
        self.selection, self._parts = span, []
        self.viewport().update()
        rows, columns = (span.row_low, span.row_high), (span.column_low, span.column_high)
        self.selection_changed.emit(ids, rows, columns)

    def _move_cursor(self, cell: int) -> None:
        if cell != self.cursor_cell:
            self.cursor_cell = cell
            self.viewport().update()
            self.cursor_changed.emit(cell)

    def clear_selection(self) -> None:
        """Select nothing and say so."""
        self.selection, self._parts = None, []
        self._move_cursor(-1)
        self.viewport().update()
        self.selection_changed.emit(np.zeros(0, dtype=np.int32), NOWHERE, NOWHERE)
        self.cleared.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        if key in _ARROWS and self.grid.count:
            cell = self.grid.neighbour(self.cursor_cell, *_ARROWS[Qt.Key(key)])
            self._move_cursor(cell)
            self._reveal(cell)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._pick(self.cursor_cell)
        elif key == Qt.Key.Key_Escape:
            self.clear_selection()
        else:
            super().keyPressEvent(event)

    def _reveal(self, cell: int) -> None:
        span = self.grid.span(cell)
        view = self.view_range()
        if span is None:
            return
        left = min(max(view.left(), span.column_high + 1 - view.width()), span.column_low)
        top = min(max(view.top(), span.row_high + 1 - view.height()), span.row_low)
        self.set_view(QRectF(left, top, view.width(), view.height()))

    # Drawing.

    def paint_to(self, painter: QPainter, vector: bool) -> None:
        if vector:
            painter.fillRect(QRectF(self.viewport().rect()), theme.color("panel"))
            heatmap_paint.cells(painter, self)
            self.paint_plot(painter)
        else:
            super().paint_to(painter, vector)

    def paint_plot(self, painter: QPainter) -> None:
        if not self.columns:
            return
        rect = self.plot_rect()
        painter.save()
        painter.setClipRect(rect)
        heatmap_paint.empty_cells(painter, self)
        heatmap_paint.gaps(painter, self)
        # Outlines on the border of the grid are as wide as those within.
        painter.setClipRect(rect.adjusted(-2, -2, 2, 2))
        heatmap_paint.outlines(painter, self)
        painter.restore()
        self.paint_columns(painter, self._x_label, self.readout())
        heatmap_paint.row_labels(painter, self)
        self.bar.paint(painter, rect)
