"""Layers × modules: one metric of one fine-tuned model, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox

from trimtab.inspection.attribution import Score
from trimtab.inspection.attribution_metrics import Scored
from trimtab.inspection.metrics import BY_ID, Metric
from trimtab.inspection.spectra import Spectra
from trimtab.inspection.spectral_metrics import SPECTRAL_BY_ID
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.figures import SHIFT, Floats
from trimtab_gui.joining import Joiner
from trimtab_gui.looking import Looking
from trimtab_gui.plots import HeatmapView, PlotCard
from trimtab_gui.selection import NOTHING, Selection
from trimtab_gui.views.inspect.metric_list import (
    SHIFT_TEXTS,
    metric_entries,
    score_metric,
    score_of,
    shift_title,
)
from trimtab_gui.views.inspect.scores_strip import ScoresStrip
from trimtab_gui.views.inspect.texts import cost_text, level_text
from trimtab_gui.widgets import Choice, Chooser, label

_ROOMY = 640


class HeatmapCard(PlotCard):
    """Chooses metric and vector; selection and hover go through the bus.

    ``mask_requested`` carries the id of the builder of masks that goes by the scores shown, and
    the file of prompts where it is a person's own.
    """

    mask_requested = Signal(str, str)

    def __init__(self, desk: Desk, looking: Looking) -> None:
        super().__init__("Layers × modules")
        self.set_title(self.tr("Layers × modules"))
        self._desk, self._looking = desk, looking
        self._spectra, self._scores = looking.spectra, looking.scores
        self.view = HeatmapView(self.tr("layer"))
        self._joiner = Joiner(desk, self.view)
        self.set_body(self.view)
        self.metric_box = Chooser(self.tr("Metric"), self.tr("Search the metrics"))
        self.metric_box.setMinimumWidth(90)
        self.metric_box.setMaximumWidth(300)
        self.metric_box.set_current("relative")
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
        self.metric_box.chosen.connect(self.choose_metric)
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
        self.strip = ScoresStrip(desk, self._scores)
        self.strip.wanted.connect(self._score)
        self.strip.mask_requested.connect(self.mask_requested)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.strip)
        self._spectra.changed.connect(self._found_changed)
        self._scores.changed.connect(self._scores_changed)
        self.view.set_readout(self._readout)
        self._expected: Floats | None = None
        self._grid: object = None
        self.rebuild()

    @property
    def metric_id(self) -> str:
        """The metric that is shown."""
        return self.metric_box.current()

    def choose_metric(self, metric: str) -> None:
        """Show a metric by its id; spectra that take no more than a moment are computed for it."""
        if all(entry.key != metric for entry in self.metric_box.entries()):
            return
        self.metric_box.set_current(metric)
        if metric in SPECTRAL_BY_ID and self._spectra.stage != "exact" and self._spectra.is_small:
            self._spectra.start()
        self._score_if_small()
        self._redraw()

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
        self.strip.setVisible(shown and score_of(self.metric_id) is not None)
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
        entries = metric_entries(self._desk, self._looking)
        self.metric_box.set_entries(entries)
        known = any(entry.key == chosen for entry in entries)
        self.metric_box.set_current(chosen if known else entries[0].key if entries else "")
        self.vector_box.blockSignals(True)
        self.vector_box.clear()
        reference = desk.lineup.reference.role if desk.lineup is not None else "aligned"
        for index in range(figures.n_models):
            self.vector_box.addItem(f"{desk.name(index)} − {reference}", index)
        self.vector_box.setCurrentIndex(max(desk.active, 0))
        self.vector_box.blockSignals(False)

    def _redraw(self) -> None:
        desk, figures = self._desk, self._desk.figures
        if figures is None:
            return
        metric, model = self.metric_id, max(desk.active, 0)
        self._expected = None
        subtitle, score = "", score_of(metric)
        found: Metric[Any]
        self.strip.setVisible(score is not None)
        if metric == SHIFT:
            values = np.full(figures.grid.n_groups, np.nan)
            if desk.movement is not None:
                values = desk.movement.shift
            title, signed = shift_title(desk), False
            self.set_formula(title, *SHIFT_TEXTS)
        else:
            if score is not None:
                found = score_metric(metric, self._scores)
                values = self._score_values(found, score, model)
                self.strip.show_score(score)
            elif metric in SPECTRAL_BY_ID:
                found = SPECTRAL_BY_ID[metric]
                values = self._spectral_values(found, model)
                subtitle = self._progress(values)
            else:
                found = BY_ID[metric]
                values = found.compute(figures.groups, model)
            self.set_formula(
                found.title, found.sentence, found.formula, found.value_range, found.reference
            )
            title, signed = found.title, found.signed
        self.set_title(self.title(), subtitle)
        self._show_ready(metric, values)
        self.vector_box.setEnabled(metric != SHIFT and not metric.startswith("alignment"))
        self.view.set_values(values, signed=signed, label=title, fmt=texts.significant)
        self.view.set_summary(self._summary(title, values))

    # Scores, which are asked for on a set of prompts.

    def _score_values(self, metric: Metric[Scored], score: Score, model: int) -> Floats:
        known = self._scores.known(score, model)
        if known is None:
            assert self._desk.figures is not None
            return np.full(self._desk.figures.grid.n_groups, np.nan)
        if metric.expected is not None:
            self._expected = metric.expected(known, model)
        return metric.compute(known, model)

    def _score(self) -> None:
        score = score_of(self.metric_id)
        if score is not None:
            self._scores.start(score, self._desk.active)

    def _score_if_small(self) -> None:
        if self._scores.error is None and self._scores.is_small(self._desk.active):
            self._score()

    def _scores_changed(self) -> None:
        if score_of(self.metric_id) is not None and not self._scores.running:
            self._score_if_small()
        self._found_changed()

    def _scores_missing(self) -> None:
        """Say what the scores need, or how far they are."""
        finding, score = self._scores, score_of(self.metric_id)
        assert score is not None
        if finding.running:
            text = self.tr("Taking the prompts through the model, block by block …")
            self.set_state("loading", text)
        elif finding.error is not None:
            error, again = finding.error, (self.tr("Try again"), self._score)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        elif finding.asked(score, self._desk.active) is None:
            self.set_state("empty", self.tr(
                "This needs prompts with their answers: choose them below.\nThe model reads them, "
                "a block of its weights in memory at a time."
            ))  # fmt: skip
        else:
            size = texts.size(finding.bytes_read(self._desk.active))
            text = self.tr("The model reads the prompts block by block: {size} of weights.")
            self.set_state("empty", text.format(size=size), (self.tr("Score"), self._score))

    # Metrics of spectra, which arrive while they are computed.

    def _spectral_values(self, metric: Metric[Spectra], model: int) -> Floats:
        known = self._spectra.known
        if known is None:
            assert self._desk.figures is not None
            return np.full(self._desk.figures.grid.n_groups, np.nan)
        if metric.expected is not None:
            self._expected = metric.expected(known.groups, model)
        return metric.compute(known.groups, model)

    def _progress(self, values: Floats) -> str:
        if self._spectra.known is None or np.isnan(values).all():
            return ""
        stage = self._spectra.stage
        parts = [] if stage == "exact" else [level_text(stage)]
        if self._expected is not None and not np.isnan(self._expected).all():
            chance = texts.significant(float(np.nanmedian(self._expected)))
            parts.insert(0, self.tr("chance: median {value}").format(value=chance))
        return " · ".join(parts)

    def _show_ready(self, metric: str, values: Floats) -> None:
        """Show the plot, or say why there is nothing to show yet and what helps."""
        finding = self._spectra
        if metric == SHIFT and self._desk.movement is None:
            self.set_state("empty", self._why_no_shift())
        elif not np.isnan(values).all():
            self.set_state("ready")
        elif score_of(metric) is not None:
            self._scores_missing()
        elif metric not in SPECTRAL_BY_ID:
            self.set_state("ready")
        elif finding.running:
            self.set_state("loading", self.tr("Looking at every matrix, coarsely at first …"))
        elif finding.error is not None:
            error = finding.error
            again = (self.tr("Try again"), finding.start)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        elif finding.stage == "exact":
            self.set_state("empty", self.tr("No matrix here has this number."))
        else:
            text = self.tr("This needs the singular values of every matrix.")
            compute = (self.tr("Compute them"), finding.start)
            self.set_state("empty", f"{text}\n{cost_text(finding)}", compute)

    def _found_changed(self) -> None:
        if self._desk.figures is None:
            return
        self.metric_box.set_entries(metric_entries(self._desk, self._looking))
        if self.metric_id in SPECTRAL_BY_ID or score_of(self.metric_id) is not None:
            self._redraw()

    def _readout(self, cell: int) -> str:
        """Name the cell and its value, beside what chance would give."""
        view = self.view
        span = view.grid.span(cell)
        if span is None:
            return ""
        row, column = view.cell_name(span)
        value = float(view.values[cell])
        shown = self.tr("no value") if np.isnan(value) else texts.significant(value)
        place = f"{column} · {row}" if row else column
        if self._expected is None or np.isnan(value) or np.isnan(self._expected[cell]):
            return f"{place}   {shown}"
        chance = texts.significant(float(self._expected[cell]))
        return self.tr("{place}   {value} (chance {chance})").format(
            place=place, value=shown, chance=chance
        )

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

    def _vector_chosen(self, index: int) -> None:
        if index >= 0:
            self._desk.set_active(index)

    def _active_changed(self, index: int) -> None:
        self.vector_box.blockSignals(True)
        self.vector_box.setCurrentIndex(index)
        self.vector_box.blockSignals(False)
        self._score_if_small()
        self._redraw()

    def _recipe_changed(self) -> None:
        if self.metric_id == SHIFT:
            self._redraw()

    def _hovered(self, group: int) -> None:
        self._desk.selection.point_at(group, self)

    def _brushed(self, ids: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        bus, groups = self._desk.selection, tuple(int(i) for i in ids)
        if not groups:
            bus.select(NOTHING, self)
        elif self._joiner.take(groups):
            self._selected(bus.current, None)
        else:
            bus.select(Selection(groups, rows, columns), self)

    def _selected(self, selection: Selection, source: object) -> None:
        if source is self or self._desk.figures is None:
            return
        if selection.rows is not None and selection.columns is not None:
            self.view.set_selection(None, selection.rows, selection.columns)
        else:
            self.view.set_selection(np.array(selection.groups, dtype=np.int32))
