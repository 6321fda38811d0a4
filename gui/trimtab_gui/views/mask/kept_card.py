"""Layers × modules: the share of the active model's change that its masks keep, to be painted."""

from __future__ import annotations

import numpy as np
from PySide6.QtGui import QColor

from trimtab.project.mask_edits import Cell, paint
from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.figures import Floats
from trimtab_gui.masking import Masking
from trimtab_gui.plots import PlotCard
from trimtab_gui.plots.paintable import PaintableHeatmap
from trimtab_gui.selection import NOTHING, Selection


class KeptCard(PlotCard):
    """A stroke on the heatmap is one edit; selection and hover go through the bus."""

    def __init__(self, desk: Desk, masking: Masking) -> None:
        super().__init__("Share of τ kept")
        self.set_title(self.tr("Share of τ kept"))
        self._desk, self._masking = desk, masking
        self.view = PaintableHeatmap(self.tr("layer"))
        self.set_body(self.view)
        self.set_formula(
            self.title(),
            self.tr("How many of the entries that fine-tuning changed survive the stack of masks."),
            "Σ m / n", "0 to 1", self.tr("soft masks count by their values"),
        )  # fmt: skip
        self._grid: object = None
        self.view.painted.connect(self._painted)
        self.view.selection_changed.connect(self._brushed)
        self.view.hovered.connect(lambda cell: desk.selection.point_at(cell, self))
        self.view.cursor_changed.connect(lambda cell: desk.selection.point_at(cell, self))
        self.view.cleared.connect(lambda: desk.selection.clear(self))
        self.view.set_readout(self._readout)
        desk.selection.changed.connect(self._selected)
        desk.lineup_changed.connect(self.redraw)
        masking.changed.connect(self.redraw)
        theme.manager().changed.connect(self._recolour)
        self._recolour()
        self.redraw()

    def redraw(self) -> None:
        """Show what is kept, or say what will be here."""
        desk, masking = self._desk, self._masking
        lineup = desk.lineup
        if not masking.ready or lineup is None:
            self._grid = None
            if desk.opening:
                self.set_state("loading", self.tr("Opening the models …"))
            else:
                self.set_state("empty", self.tr(
                    "What masks keep of a fine-tuned model's change is painted here, cell by cell, "
                    "once a reference and a fine-tuned model are open."
                ))  # fmt: skip
            return
        grid = lineup.grid
        if self._grid is not grid:
            self._grid = grid
            self.view.set_grid(list(grid.rows), list(grid.columns), grid.cells)
            self._selected(desk.selection.current, None)
        shares, error = masking.shares, masking.error
        if shares is None:
            if error is not None:
                again = (self.tr("Try again"), lambda: masking.wish("shares"))
                self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
            elif np.isnan(self.view.values).all():
                self.set_state("loading", self.tr("Counting what masks keep …"))
            else:  # what was painted stays in sight
                self.set_title(self.title(), self.tr("counting …"))
            return
        self.set_state("ready")
        count = len(masking.stack)
        self.set_title(
            self.title(),
            self.tr("{name} · {share} of all entries").format(
                name=desk.name(desk.active), share=texts.percent(shares.kept)
            )
            if count
            else self.tr("{name} · no mask yet").format(name=desk.name(desk.active)),
        )
        self._show(shares.groups)

    def _show(self, values: Floats) -> None:
        self.view.set_values(
            values, signed=False, label=self.title(), fmt=lambda v: texts.percent(v),
            limits=(0.0, 1.0),
        )  # fmt: skip
        known = ~np.isnan(values)
        if not known.any():
            return
        least = int(np.nanargmin(values))
        grid = self._desk.lineup.grid if self._desk.lineup is not None else None
        self.view.set_summary(
            self.tr("{n} of {m} cells are kept whole, {k} not at all; least in {where}: {share}")
            .format(n=int((values[known] >= 1).sum()), m=int(known.sum()),
                    k=int((values[known] <= 0).sum()),
                    where=grid.labels[least] if grid is not None else "",
                    share=texts.percent(float(values[least])))
        )  # fmt: skip

    def _recolour(self) -> None:
        tokens = theme.current()
        gone = theme.mix(tokens.panel, tokens.muted, 0.28)
        self.view.set_colormap(f"{gone}>{tokens.finetuned}")
        self.set_legend([
            ("finetuned", self.tr("kept")), (QColor(gone), self.tr("removed")),
        ])  # fmt: skip

    def _readout(self, cell: int) -> str:
        span = self.view.grid.span(cell)
        if span is None:
            return ""
        row, column = self.view.cell_name(span)
        value = float(self.view.values[cell])
        place = f"{column} · {row}" if row else column
        if np.isnan(value):
            return self.tr("{place}   fine-tuning changed nothing").format(place=place)
        return self.tr("{place}   keeps {share}").format(place=place, share=texts.percent(value))

    # Gestures.

    def paint_region(self, keep: bool) -> None:
        """Keep or remove the cells that are selected."""
        self._paint(self._desk.selection.current.groups, keep)

    def _painted(self, cells: np.ndarray, keep: bool) -> None:
        self._paint(tuple(int(cell) for cell in cells), keep)

    def _paint(self, groups: tuple[int, ...], keep: bool) -> None:
        desk = self._desk
        if not groups or desk.lineup is None or desk.active < 0:
            return
        grid = desk.lineup.grid
        cells: list[Cell] = [(int(grid.layers[g]), grid.modules[g]) for g in groups]
        desk.edit(paint(desk.recipe, desk.active, cells, keep))

    def _brushed(self, ids: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        chosen = NOTHING
        if len(ids):
            chosen = Selection(tuple(int(i) for i in ids), rows, columns)
        self._desk.selection.select(chosen, self)

    def _selected(self, selection: Selection, source: object) -> None:
        if source is self or self._grid is None:
            return
        if selection.rows is not None and selection.columns is not None:
            self.view.set_selection(None, selection.rows, selection.columns)
        else:
            self.view.set_selection(np.array(selection.groups, dtype=np.int32))
