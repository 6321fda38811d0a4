"""Keeps the range of layers of a plot and what is selected elsewhere the same."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QMouseEvent

from trimtab_gui.desk import Desk
from trimtab_gui.joining import Joiner
from trimtab_gui.plots import ProfileView
from trimtab_gui.selection import NOTHING, Selection


class RangeLink(QObject):
    """Between one plot over the grid's columns and the selection.

    ``shown`` follows a gesture that joined ranges, when the plot shows what came of it.
    """

    shown = Signal()

    def __init__(self, desk: Desk, view: ProfileView) -> None:
        super().__init__(view)
        self._desk, self._view = desk, view
        self._joiner = Joiner(desk, view, self._press, self._let_go)
        view.selection_changed.connect(self.select)
        view.cleared.connect(lambda: desk.selection.clear(self))
        view.hovered_column.connect(view.set_hover)
        desk.selection.changed.connect(self._selected)
        desk.selection.hovered.connect(self._pointed_at)

    def _press(self, event: QMouseEvent) -> None:
        # what is pressed on joins the range that is shown: it must not move it
        if self._view.handle_at(event.position()) < 0:
            self._view.set_selection(-1, -1)

    def _let_go(self) -> None:
        self._show()
        self.shown.emit()

    def _show(self) -> None:
        self._view.set_selection(*(self._desk.selection.current.columns or (-1, -1)))

    def select(self, low: int, high: int) -> None:
        """Select everything in the columns from `low` to `high`; nothing for -1.

        A range that is drawn while others are to be joined with it joins them.
        """
        figures = self._desk.figures
        if figures is None or low < 0:
            self._desk.selection.select(NOTHING, self)
            return
        cells = figures.grid.cells[:, low : high + 1]
        groups = tuple(int(g) for g in np.unique(cells) if g >= 0)
        if self._joiner.under_way:
            self._joiner.take(groups)
            return
        rows = (0, len(figures.grid.rows) - 1)
        self._desk.selection.select(Selection(groups, rows, (low, high)), self)

    def _selected(self, selection: Selection, source: object) -> None:
        if source is not self and not self._joiner.under_way:
            self._show()

    def _pointed_at(self, group: int, source: object) -> None:
        figures = self._desk.figures
        if figures is not None:
            column = int(figures.grid.column_of[group]) if group >= 0 else -1
            self._view.set_hover(column)
