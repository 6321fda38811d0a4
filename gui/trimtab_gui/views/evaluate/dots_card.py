"""The card of shares by category, with the radar beside it on demand."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QSize, Signal
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QHBoxLayout, QWidget

from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.statistics import Estimate
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import TargetFacts, categories_of
from trimtab_gui.plots.dots import Dot, DotPlot, Series, series_colour
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.radar import RadarPlot
from trimtab_gui.views.evaluate.category_card import CategoryCard
from trimtab_gui.widgets import Choice, quiet_button

#: what a reader looks at first, where it was measured
_FIRST = ("harmfulness_rate", "attack_success", "over_refusal", "utility")


class _Both(QWidget):
    """Dots and radar side by side; the table is that of the dots."""

    def __init__(self) -> None:
        super().__init__()
        self.dots, self.radar = DotPlot(), RadarPlot()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.dots, 5)
        row.addWidget(self.radar, 4)
        self.radar.hide()

    def csv_table(self) -> Table:
        return self.dots.csv_table()

    def paint_to(self, painter: QPainter, vector: bool) -> None:
        for plot in (self.dots, self.radar):
            if not plot.isHidden():
                painter.save()
                painter.translate(QPointF(plot.pos()))
                plot.paint_to(painter, vector)
                painter.restore()


class DotsCard(CategoryCard):
    """``category_chosen`` when one is clicked, ``run_requested`` from the empty card."""

    category_chosen = Signal(str)
    run_requested = Signal()

    def __init__(self, evaluating: Evaluating) -> None:
        self.both = _Both()
        super().__init__(self.both)
        self.set_title(self.tr("By category"))
        self._evaluating = evaluating
        self.dots, self.radar = self.both.dots, self.both.radar
        self.dots.category_chosen.connect(self.category_chosen)
        self.metric_box = Choice()
        self.metric_box.setAccessibleName(self.tr("Metric"))
        self.metric_box.setMinimumWidth(128)
        self.metric_box.activated.connect(self._draw)
        self.order = quiet_button("sort-descending", self.tr("Largest first, by the model after"))
        self.order.setCheckable(True)
        self.order.setIconSize(QSize(15, 15))
        self.order.toggled.connect(self._draw)
        self.both_button = quiet_button("radar", self.tr("Radar beside it, with intervals"))
        self.both_button.setCheckable(True)
        self.both_button.setIconSize(QSize(15, 15))
        self.both_button.toggled.connect(self.radar.setVisible)
        for widget in (self.metric_box, self.order, self.both_button):
            self.header_layout.addWidget(widget)
        evaluating.results_changed.connect(self.refresh)
        evaluating.changed.connect(self._show_state)
        self.refresh()

    def refresh(self) -> None:
        """Offer what was measured, and draw it."""
        facts = self._evaluating.facts
        before = self.metric_box.currentData()
        self.metric_box.clear()
        shown = facts.shown_metrics if facts is not None else ()
        rates = [m for m in shown if BY_ID[m].value_range == "0 to 1"]
        for metric in sorted(rates, key=lambda m: _FIRST.index(m) if m in _FIRST else len(_FIRST)):
            self.metric_box.addItem(BY_ID[metric].title, metric)
        self.metric_box.setCurrentIndex(max(self.metric_box.findData(before), 0))
        self._draw()

    def _show_state(self) -> None:
        evaluating = self._evaluating
        filled = evaluating.facts is not None and self.metric_box.count() > 0
        for widget in (self.metric_box, self.order, self.both_button):
            widget.setVisible(filled)
        if evaluating.running and not filled:
            self.set_state("loading", self.tr("Asking and judging …"))
        elif evaluating.error is not None and not filled:
            error = evaluating.error
            action = (self.tr("Try again"), self.run_requested.emit)
            self.set_state("error", f"{error.what} {error.why}\n{error.fix}", action)
        elif filled:
            self.set_state("ready")
        elif evaluating.obstacle() is None:
            text = self.tr("How often each model does what it should not, category by category.")
            self.set_state("empty", text, (self.tr("Evaluate"), self.run_requested.emit))
        else:
            self.set_state("empty", evaluating.obstacle() or "")

    def _draw(self) -> None:
        self._show_state()
        self.set_title(self.tr("By category"), self._evaluating.shown_title)
        facts, metric = self._evaluating.facts, self.metric_box.currentData()
        if facts is None or metric is None:
            self.dots.set_data((), ())
            self.radar.set_data((), ())
            return
        categories = list(categories_of(facts.targets, metric))
        series = [_series(target, metric, categories) for target in facts.targets]
        if self.order.isChecked():
            pair = self._evaluating.pair
            leading = [s for s in series if pair is not None and s.name == pair[1]] or series
            order = sorted(range(len(categories)), key=lambda j: -_largest(leading, j))
            categories = [categories[j] for j in order]
            series = [_series(target, metric, categories) for target in facts.targets]
        texts = BY_ID[metric]
        self.set_formula(
            texts.title, texts.sentence, texts.formula, texts.value_range, texts.reference
        )
        kind = self.tr("{metric}, percent, 95 % Wilson").format(metric=texts.title.lower())
        self.dots.set_data([c or self.tr("no category") for c in categories], series, kind)
        self.radar.set_data(self.dots.categories, series)
        self.name_series(
            [(series_colour(s.role, s.index), s.name) for s in series],
            [s.name for s in series if s.hollow is not None],
        )
        self.dots.set_summary(_summary(texts.title, self.dots))
        self.radar.set_summary(self.dots.accessibleDescription())


def _largest(series: list[Series], place: int) -> float:
    return max((d.value for s in series if (d := s.dots[place]) is not None), default=0.0)


def _series(target: TargetFacts, metric: str, categories: list[str]) -> Series:
    harm = BY_ID[metric].better == "lower" and metric.startswith(("harm", "attack", "partial"))
    greyed = not target.coherence.ok and (harm or metric == "refusal")
    dots = tuple(
        dot_of(target.by_category.get(category, {}).get(metric), greyed) for category in categories
    )
    return Series(target.name, target.info.role, target.index, dots)


def dot_of(estimate: Estimate | None, greyed: bool) -> Dot | None:
    """Return a share as a dot; None where there is no data."""
    if estimate is None or estimate.value is None:
        return None
    if estimate.low is None or estimate.high is None:
        return None
    return Dot(estimate.value, estimate.low, estimate.high, estimate.k or 0, estimate.n, greyed)


def _summary(title: str, plot: DotPlot) -> str:
    parts = []
    for one in plot.series:
        known = [dot for dot in one.dots if dot is not None]
        if known:
            low, high = min(d.value for d in known), max(d.value for d in known)
            parts.append(
                f"{one.name}: {100 * low:.0f} to {100 * high:.0f} % in {len(known)} categories"
            )
    return f"{title}. " + "; ".join(parts)
