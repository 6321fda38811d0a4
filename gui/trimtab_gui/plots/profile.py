"""Curves over the layers, and the ratio of each layer drawn into them to be dragged."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import QWidget

from trimtab_gui.plots import profile_paint, scale
from trimtab_gui.plots.canvas import Canvas
from trimtab_gui.plots.curves import Curve, Flags, Ratio, RatioDrag, Values

_HANDLE_PX = 9.0
_EDGE_PX = 5.0
_DRAG_PX = 3
_NONE = (-1, -1)


class ProfileView(Canvas):
    """Norms have the left axis, the ratio has its own at the right.

    One gesture on the ratio is ``ratio_drag_started``, any number of ``ratio_moved`` with a dict
    from column to value, and ``ratio_drag_finished``. ``selection_changed`` carries the first and
    last column of the range, (-1, -1) for none.
    """

    ratio_drag_started = Signal()
    ratio_moved = Signal(object)
    ratio_drag_finished = Signal()
    ratio_reset = Signal(int)
    selection_changed = Signal(int, int)
    hovered_column = Signal(int)

    def __init__(
        self, x_label: str = "layer", y_label: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.x_label, self.y_label = x_label, y_label
        self.from_zero = True
        self.curves: list[Curve] = []
        self.ratio: Ratio | None = None
        self.selection: tuple[int, int] = _NONE
        self.hover_column, self.chosen_column = -1, -1
        self._top, self._bottom = 1.0, 0.0
        self._press = QPointF()
        self._pressed_on = ""
        self._press_column = -1
        self._moved = False
        self._drag: RatioDrag | None = None
        self._span_at_press: tuple[int, int] = _NONE

    # What is shown.

    def set_columns(self, column_labels: list[str]) -> None:
        """Name the columns; curves and ratio of another length go away."""
        self.columns = list(column_labels)
        count = len(self.columns)
        self.curves = [c for c in self.curves if c.values.size == count]
        if self.ratio is not None and self.ratio.values.size != count:
            self.ratio = None
        self.selection, self.hover_column, self.chosen_column = _NONE, -1, -1
        self.reset_view()
        self.viewport().update()

    def set_curves(self, curves: list[Curve]) -> None:
        """Draw curves; ValueError when one does not have a value for each column."""
        if any(c.values.shape != (len(self.columns),) for c in curves):
            raise ValueError("a curve needs one value for each column")
        self.curves = list(curves)
        self._rescale()
        self.viewport().update()

    def set_ratio(
        self,
        values: Values | None,
        pinned: Flags | None = None,
        minimum: float = 0.0,
        maximum: float = 1.5,
        enabled: bool = True,
    ) -> None:
        """Draw the ratio of each column, float64 [n_columns] (nan: none), filled where ``pinned``.

        None takes the ratio away; ValueError when a length does not fit.
        """
        if values is None:
            self.ratio = None
        else:
            flags = np.zeros(values.size, dtype=np.bool_) if pinned is None else pinned
            if values.shape != (len(self.columns),) or flags.shape != values.shape:
                raise ValueError("the ratio needs one value for each column")
            self.ratio = Ratio(
                np.array(values, dtype=np.float64), flags.copy(), minimum, maximum, enabled
            )
        self.viewport().update()

    def set_selection(self, col_lo: int, col_hi: int) -> None:
        """Shade the columns from ``col_lo`` to ``col_hi`` without emitting; -1, -1 for none."""
        span = (col_lo, col_hi) if 0 <= col_lo <= col_hi else _NONE
        if span != self.selection:
            self.selection = span
            self.viewport().update()

    def set_hover(self, column: int) -> None:
        """Mark a column that is hovered elsewhere, without emitting; -1 for none."""
        if column != self.hover_column:
            self.hover_column = column
            self.viewport().update()

    def set_summary(self, text: str) -> None:
        """Describe the plot in words, for those who do not see it."""
        self.setAccessibleDescription(text)

    def csv_table(self) -> tuple[list[str], list[list[str | float]]]:
        """Return one row for each column: its label, every curve, the ratio, and 1 if pinned."""
        headers = [self.x_label]
        for c in self.curves:
            headers += (
                [c.label] if c.low is None else [c.label, f"{c.label} low", f"{c.label} high"]
            )
        if self.ratio is not None:
            headers += ["ratio", "pinned"]
        rows: list[list[str | float]] = []
        for j, name in enumerate(self.columns):
            row: list[str | float] = [name]
            for c in self.curves:
                row += [float(line[j]) for line in (c.values, c.low, c.high) if line is not None]
            if self.ratio is not None:
                row += [float(self.ratio.values[j]), float(self.ratio.pinned[j])]
            rows.append(row)
        return headers, rows

    def readout(self) -> str:
        """Return what is written about the column under the pointer, or the chosen handle."""
        j = self.hover_column if self.hover_column >= 0 else self.chosen_column
        if not 0 <= j < len(self.columns):
            return ""
        parts = [f"{self.x_label} {self.columns[j]}"]
        parts += [f"{c.label} {scale.number(float(c.values[j]))}" for c in self.curves]
        if self.ratio is not None and np.isfinite(self.ratio.values[j]):
            parts.append(self.tr("ratio {value:.2f}").format(value=float(self.ratio.values[j])))
        return "   ".join(parts)

    # Geometry.

    def _rescale(self) -> None:
        lines = [x for c in self.curves for x in (c.values, c.low, c.high) if x is not None]
        known = np.concatenate([x[np.isfinite(x)] for x in lines]) if lines else np.zeros(0)
        if known.size and not self.from_zero:
            low, high = float(known.min()), float(known.max())
            room = 0.06 * (high - low or abs(high) or 1.0)
            self._bottom, self._top = low - room, high + room
            return
        low = float(known.min(initial=0.0))
        high = float(known.max(initial=0.0))
        if high <= low:
            high = low + 1.0
        self._bottom = low * 1.06
        self._top = low + (high - low) * 1.08

    def limits(self) -> tuple[float, float]:
        """Return bottom and top of the left axis."""
        return self._bottom, self._top

    def y_px(self, value: float) -> float:
        """Return the pixel of a value on the left axis."""
        rect = self.plot_rect()
        return rect.bottom() - (value - self._bottom) / (self._top - self._bottom) * rect.height()

    def ratio_px(self, value: float) -> float:
        """Return the pixel of a ratio on the right axis."""
        rect = self.plot_rect()
        low, high = (0.0, 1.0) if self.ratio is None else (self.ratio.minimum, self.ratio.maximum)
        return rect.bottom() - (value - low) / (high - low) * rect.height()

    def handle_px(self, column: int) -> QPointF:
        """Return the middle of a column's handle."""
        value = 0.0 if self.ratio is None else float(self.ratio.values[column])
        return QPointF(self.x_px(column + 0.5), self.ratio_px(value))

    def _ratio_at(self, y: float) -> float:
        if self.ratio is None:
            return 0.0
        rect = self.plot_rect()
        share = (rect.bottom() - y) / rect.height()
        return self.ratio.minimum + share * (self.ratio.maximum - self.ratio.minimum)

    def handle_at(self, point: QPointF) -> int:
        """Return the column whose handle is under a pixel, -1 for none."""
        if self.ratio is None or not self.ratio.enabled:
            return -1
        near = self.column_at(point.x())
        best, reach = -1, _HANDLE_PX
        for j in range(max(near - 1, 0), min(near + 2, len(self.columns))):
            if np.isfinite(self.ratio.values[j]):
                gap = point - self.handle_px(j)
                distance = float(np.hypot(gap.x(), gap.y()))
                if distance <= reach:
                    best, reach = j, distance
        return best

    def _target(self, point: QPointF) -> str:
        """Return what a press here would take: handle, low or high edge, region, or plot."""
        if self.handle_at(point) >= 0:
            return "handle"
        if self.selection != _NONE:
            low, high = self.x_px(self.selection[0]), self.x_px(self.selection[1] + 1)
            if abs(point.x() - low) <= _EDGE_PX:
                return "low"
            if abs(point.x() - high) <= _EDGE_PX:
                return "high"
            if low < point.x() < high:
                return "region"
        return "plot"

    # Gestures.

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        if not self.columns or self.begin_pan(event):
            return
        point = event.position()
        reach = self.plot_rect().adjusted(-_HANDLE_PX, -_HANDLE_PX, _HANDLE_PX, _HANDLE_PX)
        if event.button() != Qt.MouseButton.LeftButton or not reach.contains(point):
            return
        self._press, self._moved = point, False
        self._pressed_on = self._target(point)
        self._press_column = self.column_at(point.x())
        self._span_at_press = self.selection
        if self._pressed_on == "handle" and self.ratio is not None:
            column = self.handle_at(point)
            self.chosen_column = column
            span = self.selection if self.selection != _NONE else None
            self._drag = RatioDrag(self.ratio, column, span)
        self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        point = event.position()
        if self.continue_pan(event):
            return
        if not self._pressed_on:
            self._point_at(point)
            return
        if not self._moved:
            if (point - self._press).manhattanLength() < _DRAG_PX:
                return
            self._moved = True
            if self._drag is not None:
                self.ratio_drag_started.emit()
        if self._drag is not None:
            column = self.column_at(point.x())
            self._send(self._drag.move(column, self._ratio_at(point.y())))
        else:
            self._drag_region(self.column_at(point.x()))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self.end_pan():
            return
        if self._drag is not None and self._moved:
            self.ratio_drag_finished.emit()
        elif self._pressed_on == "plot" and not self._moved and self.selection != _NONE:
            self._select(_NONE)
        self._drag, self._pressed_on, self._moved = None, "", False

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        column = self.handle_at(event.position())
        if column >= 0:
            self.ratio_reset.emit(column)
        else:
            self.mousePressEvent(event)

    def pointer_left(self) -> None:
        if self.hover_column != -1:
            self.hover_column = -1
            self.viewport().update()
            self.hovered_column.emit(-1)

    def _point_at(self, point: QPointF) -> None:
        shapes = {
            "handle": Qt.CursorShape.SizeVerCursor,
            "low": Qt.CursorShape.SizeHorCursor,
            "high": Qt.CursorShape.SizeHorCursor,
            "region": Qt.CursorShape.OpenHandCursor,
            "plot": Qt.CursorShape.ArrowCursor,
        }
        self.viewport().setCursor(shapes[self._target(point)])
        inside = self.columns and self.plot_rect().contains(point)
        column = self.column_at(point.x()) if inside else -1
        if column != self.hover_column:
            self.hover_column = column
            self.viewport().update()
            self.hovered_column.emit(column)

    def _drag_region(self, column: int) -> None:
        low, high = self._span_at_press
        if self._pressed_on == "plot":
            span = (min(self._press_column, column), max(self._press_column, column))
        elif self._pressed_on == "region":
            step = column - self._press_column
            step = min(max(step, -low), len(self.columns) - 1 - high)
            span = (low + step, high + step)
        elif self._pressed_on == "low":
            span = (min(column, high), high)
        else:
            span = (low, max(column, low))
        if span != self.selection:
            self._select(span)

    def _select(self, span: tuple[int, int]) -> None:
        self.selection = span
        self.viewport().update()
        self.selection_changed.emit(*span)

    def _send(self, changes: dict[int, float]) -> None:
        if self.ratio is None or not changes:
            return
        values, pinned = self.ratio.values.copy(), self.ratio.pinned.copy()
        for column, value in changes.items():
            values[column], pinned[column] = value, True
        ratio = self.ratio
        self.set_ratio(values, pinned, ratio.minimum, ratio.maximum, ratio.enabled)
        self.ratio_moved.emit(changes)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        if key == Qt.Key.Key_Escape:
            self._select(_NONE)
            self.cleared.emit()
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self._choose(-1 if key == Qt.Key.Key_Left else 1)
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            shifted = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            self._nudge((0.1 if shifted else 0.01) * (1 if key == Qt.Key.Key_Up else -1))
        elif key == Qt.Key.Key_Delete and self._editable():
            self.ratio_reset.emit(self.chosen_column)
        else:
            super().keyPressEvent(event)

    def _editable(self) -> bool:
        return self.ratio is not None and self.ratio.enabled and self.chosen_column >= 0

    def _choose(self, step: int) -> None:
        if self.ratio is None:
            return
        present = np.flatnonzero(np.isfinite(self.ratio.values))
        if not present.size:
            return
        later = present[present > self.chosen_column]
        earlier = present[present < self.chosen_column]
        if step > 0:
            self.chosen_column = int(later[0]) if later.size else int(present[-1])
        else:
            self.chosen_column = int(earlier[-1]) if earlier.size else int(present[0])
        view = self.view_range()
        left = min(max(view.left(), self.chosen_column + 1 - view.width()), self.chosen_column)
        self.set_view(QRectF(left, view.top(), view.width(), view.height()))
        self.viewport().update()

    def _nudge(self, change: float) -> None:
        if self.ratio is None or not self._editable():
            return
        span = self.selection if self.selection != _NONE else None
        drag = RatioDrag(self.ratio, self.chosen_column, span)
        start = float(self.ratio.values[self.chosen_column])
        self.ratio_drag_started.emit()
        self._send(drag.move(self.chosen_column, start + change))
        self.ratio_drag_finished.emit()

    # Drawing.

    def paint_plot(self, painter: QPainter) -> None:
        if self.columns:
            profile_paint.paint(painter, self)
