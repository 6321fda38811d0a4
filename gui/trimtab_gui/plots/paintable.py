"""A heatmap whose cells can be painted: a stroke is reported once, when the hand lets go."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent

from trimtab_gui.plots.heatmap import HeatmapView

KEEP, REMOVE = "keep", "remove"


class PaintableHeatmap(HeatmapView):
    """With a brush, dragging paints cells and Space paints the one under the cell cursor.

    ``painted`` carries the ids of a stroke (int32, sorted) and whether they are kept. While the
    hand moves they are shown as they will be: 1 or 0. Without a brush it selects as ever.
    """

    painted = Signal(object, bool)

    def __init__(self, x_label: str = "layer") -> None:
        super().__init__(x_label)
        self.brush = ""
        self._stroke: set[int] = set()
        self._at: QPointF | None = None

    def set_brush(self, brush: str) -> None:
        """Paint to keep, to remove, or not at all (empty)."""
        self.brush = brush
        shape = Qt.CursorShape.CrossCursor if brush else Qt.CursorShape.ArrowCursor
        self.viewport().setCursor(shape)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        panning = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        inside = self.plot_rect().contains(event.position())
        left = event.button() == Qt.MouseButton.LeftButton
        if not self.brush or not inside or not left or panning:
            super().mousePressEvent(event)
            return
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        self._stroke, self._at = set(), event.position()
        self._touch(event.position())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._at is None:
            super().mouseMoveEvent(event)
            return
        # a fast hand skips cells between two events
        start, end = self._at, event.position()
        steps = max(int((end - start).manhattanLength() / 3), 1)
        for k in range(1, steps + 1):
            self._touch(start + (end - start) * (k / steps))
        self._at = end

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self._at is None:
            super().mouseReleaseEvent(event)
            return
        self._at = None
        self._report(self._stroke)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if self.brush and event.key() == Qt.Key.Key_Space and self.cursor_cell >= 0:
            self._stroke = set()
            self._show(self.cursor_cell)
            self._report({self.cursor_cell})
        else:
            super().keyPressEvent(event)

    def _touch(self, point: QPointF) -> None:
        if self.plot_rect().contains(point):
            self._show(self.cell_at(point))

    def _show(self, cell: int) -> None:
        if cell < 0 or cell in self._stroke or np.isnan(self.values[cell]):
            return
        self._stroke.add(cell)
        self.values[cell] = float(self.brush == KEEP)
        self._recolour_cells()

    def _report(self, cells: set[int]) -> None:
        known = sorted(cell for cell in cells if not np.isnan(self.values[cell]))
        self._stroke = set()
        if known:
            self.painted.emit(np.array(known, dtype=np.int32), self.brush == KEEP)
