"""Layers × modules: one metric of one fine-tuned model, cell by cell."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox

from trimtab.inspection.metrics import METRICS
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.figures import SHIFT
from trimtab_gui.plots import HeatmapView, PlotCard
from trimtab_gui.selection import NOTHING, Selection
from trimtab_gui.widgets import Choice, label

SHIFT_TEXTS = (
    "How far the merged model will be from the reference, at the ratios as they are now.",
    "√(cᵀ G c), G = ⟨τᵢ, τⱼ⟩, merged = θ_ref + Σ cᵢ τᵢ",
    "0 and up",
    "Trimtab's own definition",
)


_ROOMY = 640


class HeatmapCard(PlotCard):
    """Chooses metric and vector; selection and hover go through the bus."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Layers × modules")
        self.set_title(self.tr("Layers × modules"))
        self._desk = desk
        self.view = HeatmapView(self.tr("layer"))
        self.set_body(self.view)
        self.metric_box = Choice()
        self.metric_box.setAccessibleName(self.tr("Metric"))
        self.metric_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.metric_box.setMinimumWidth(90)
        self.vector_box = Choice()
        self.vector_box.setAccessibleName(self.tr("Vector"))
        self.vector_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.vector_box.setMinimumWidth(90)
        self.vector_box.setMaximumWidth(240)  # a long name must not leave the metric without room
        self._captions = [label(self.tr("metric"), "caption", "muted"),
                          label(self.tr("vector"), "caption", "muted")]  # fmt: skip
        for caption, box in zip(self._captions, (self.metric_box, self.vector_box), strict=True):
            self.header_layout.addWidget(caption)
            self.header_layout.addWidget(box)
        self.setTabOrder(self.metric_box, self.vector_box)
        self.setTabOrder(self.vector_box, self.view)
        self.metric_box.currentIndexChanged.connect(self._metric_chosen)
        self.vector_box.currentIndexChanged.connect(self._vector_chosen)
        self.view.selection_changed.connect(self._brushed)
        self.view.hovered.connect(self._hovered)
        self.view.cursor_changed.connect(self._hovered)
        self.view.cleared.connect(lambda: desk.selection.clear(self))
        desk.selection.changed.connect(self._selected)
        desk.figures_changed.connect(self.rebuild)
        desk.recipe_changed.connect(self._recipe_changed)
        desk.figures_moved.connect(self._recipe_changed)
        desk.active_changed.connect(self._active_changed)
        self._grid: object = None
        self.rebuild()

    @property
    def metric_id(self) -> str:
        """The metric that is shown."""
        return str(self.metric_box.currentData() or "relative")

    def choose_metric(self, metric: str) -> None:
        """Show a metric by its id."""
        index = self.metric_box.findData(metric)
        if index >= 0:
            self.metric_box.setCurrentIndex(index)

    def rebuild(self) -> None:
        """Take over new figures, or say what will be here."""
        desk = self._desk
        if desk.figures is None:
            self._grid = None
            self._show_header(False)
            self._show_state()
            return
        self._fill_choosers()
        grid = desk.figures.grid
        if self._grid is not grid:
            self._grid = grid
            self.view.set_grid(list(grid.rows), list(grid.columns), grid.cells)
        self._show_header(True)
        self._redraw()

    def _show_header(self, shown: bool) -> None:
        for box in (self.metric_box, self.vector_box):
            box.setVisible(shown)
        self._show_captions()

    def _show_captions(self) -> None:
        for caption in self._captions:
            caption.setVisible(self.metric_box.isVisibleTo(self) and self.width() >= _ROOMY)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._show_captions()

    def _show_state(self) -> None:
        desk = self._desk
        lineup = desk.lineup
        if desk.inspecting:
            self.set_state("loading", self.tr("Reading the weights once …"))
        elif desk.inspection_error is not None:
            error = desk.inspection_error
            text = f"{error.what}\n{error.why}"
            self.set_state("error", text, (self.tr("Try again"), desk.inspect))
        elif desk.opening:
            self.set_state("loading", self.tr("Opening the models …"))
        elif desk.lineup_error is not None:
            error = desk.lineup_error
            self.set_state("empty", f"{error.what}\n{error.fix}")
        elif lineup is not None and lineup.errors:
            first = lineup.errors[0]
            self.set_state("error", f"{first.model}\n{first.what}\n{first.effect}")
        else:
            self.set_state(
                "empty", self.tr("Each layer and module is a cell here, once two models are open.")
            )

    def _fill_choosers(self) -> None:
        desk, figures = self._desk, self._desk.figures
        assert figures is not None
        chosen = self.metric_id
        self.metric_box.blockSignals(True)
        self.metric_box.clear()
        for metric in METRICS:
            if metric.needs_alignment and not figures.has_alignment:
                continue
            if metric.id != "alignment" and not figures.n_models:
                continue
            self.metric_box.addItem(metric.title, metric.id)
            tip = f"{metric.sentence}\n{metric.formula}\n{metric.reference}"
            self.metric_box.setItemData(self.metric_box.count() - 1, tip, _TOOLTIP)
        if figures.n_models:
            self.metric_box.addItem(self._shift_title(), SHIFT)
            tip = "\n".join(SHIFT_TEXTS[:2])
            self.metric_box.setItemData(self.metric_box.count() - 1, tip, _TOOLTIP)
        self.metric_box.setCurrentIndex(max(self.metric_box.findData(chosen), 0))
        self.metric_box.blockSignals(False)
        self.vector_box.blockSignals(True)
        self.vector_box.clear()
        reference = desk.lineup.reference.role if desk.lineup is not None else "aligned"
        for index in range(figures.n_models):
            self.vector_box.addItem(f"{desk.name(index)} − {reference}", index)
        self.vector_box.setCurrentIndex(max(desk.active, 0))
        self.vector_box.blockSignals(False)

    def _shift_title(self) -> str:
        return self.tr("Distance |merged − {reference}|").format(
            reference=self._desk.reference_word
        )

    def _redraw(self) -> None:
        desk, figures = self._desk, self._desk.figures
        if figures is None:
            return
        metric = self.metric_id
        if metric == SHIFT:
            if desk.movement is None:
                values = np.full(figures.grid.n_groups, np.nan)
            else:
                values = desk.movement.shift
            self.set_formula(self._shift_title(), *SHIFT_TEXTS)
            title, signed = self._shift_title(), False
        else:
            found = next(m for m in METRICS if m.id == metric)
            values = found.compute(figures.groups, max(desk.active, 0))
            self.set_formula(
                found.title, found.sentence, found.formula, found.value_range, found.reference
            )
            title, signed = found.title, found.signed
        if metric == SHIFT and desk.movement is None:
            self.set_state("empty", self._why_no_shift())
        else:
            self.set_state("ready")
        self.vector_box.setEnabled(metric not in (SHIFT, "alignment"))
        self.view.set_values(values, signed=signed, label=title, fmt=texts.significant)
        self.view.set_summary(self._summary(title, values))

    def _why_no_shift(self) -> str:
        desk = self._desk
        if desk.method_error is not None:
            return desk.method_error.what
        return desk.movement_unknown

    def _summary(self, title: str, values: np.ndarray) -> str:
        if np.isnan(values).all():
            return self.tr("{title}: no values").format(title=title)
        top = int(np.nanargmax(values))
        assert self._desk.figures is not None
        return self.tr("{title}; largest in {where}: {value}").format(
            title=title,
            where=self._desk.figures.grid.labels[top],
            value=texts.significant(float(values[top])),
        )

    def _metric_chosen(self) -> None:
        self._redraw()

    def _vector_chosen(self, index: int) -> None:
        if index >= 0:
            self._desk.set_active(index)

    def _active_changed(self, index: int) -> None:
        self.vector_box.blockSignals(True)
        self.vector_box.setCurrentIndex(index)
        self.vector_box.blockSignals(False)
        self._redraw()

    def _recipe_changed(self) -> None:
        if self.metric_id == SHIFT:
            self._redraw()

    def _hovered(self, group: int) -> None:
        self._desk.selection.point_at(group, self)

    def _brushed(self, ids: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        if len(ids) == 0:
            self._desk.selection.select(NOTHING, self)
        else:
            groups = tuple(int(i) for i in ids)
            self._desk.selection.select(Selection(groups, rows, columns), self)

    def _selected(self, selection: Selection, source: object) -> None:
        if source is self or self._desk.figures is None:
            return
        if selection.rows is not None and selection.columns is not None:
            self.view.set_selection(None, selection.rows, selection.columns)
        else:
            self.view.set_selection(np.array(selection.groups, dtype=np.int32))


_TOOLTIP = Qt.ItemDataRole.ToolTipRole
