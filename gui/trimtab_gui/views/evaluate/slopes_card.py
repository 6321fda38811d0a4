"""The card of slopes: from the baseline to the model before to the one after, by category."""

from __future__ import annotations

from PySide6.QtCore import QSize, Signal

from trimtab.evaluation.changes import Change
from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.suite import PromptKind
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import COMPARED, Facts
from trimtab_gui.plots.dots import series_colour
from trimtab_gui.plots.slopes import Slope, SlopePlot, Station
from trimtab_gui.views.evaluate.category_card import CategoryCard
from trimtab_gui.views.evaluate.dots_card import dot_of
from trimtab_gui.widgets import Choice, quiet_button

#: the share that is drawn for each kind of prompt
SHARES: dict[PromptKind, str] = {
    "harmful": "attack_success", "lookalike": "over_refusal", "utility": "utility",
}  # fmt: skip


class SlopesCard(CategoryCard):
    """``category_chosen`` when one is clicked, ``run_requested`` from the empty card."""

    category_chosen = Signal(str)
    run_requested = Signal()

    def __init__(self, evaluating: Evaluating) -> None:
        self.plot = SlopePlot()
        super().__init__(self.plot)
        self.set_title(self.tr("Before → after"))
        self._evaluating = evaluating
        self.plot.category_chosen.connect(self.category_chosen)
        self.kind = Choice()
        self.kind.setAccessibleName(self.tr("Metric"))
        self.kind.setMinimumWidth(128)
        self.kind.activated.connect(self._draw)
        self.order = quiet_button("sort-descending", self.tr("Largest change first"))
        self.order.setCheckable(True)
        self.order.setIconSize(QSize(15, 15))
        self.order.toggled.connect(self._draw)
        for widget in (self.kind, self.order):
            self.header_layout.addWidget(widget)
        evaluating.results_changed.connect(self.refresh)
        evaluating.pair_changed.connect(self.refresh)
        evaluating.changed.connect(self._show_state)
        self.refresh()

    def refresh(self) -> None:
        """Offer the kinds of prompts of which there are pairs, and draw them."""
        found = self._evaluating.comparison
        before = self.kind.currentData()
        self.kind.clear()
        for kind in COMPARED:
            if found is not None and kind in found.whole:
                self.kind.addItem(BY_ID[SHARES[kind]].title, kind)
        self.kind.setCurrentIndex(max(self.kind.findData(before), 0))
        self._draw()

    def _show_state(self) -> None:
        evaluating = self._evaluating
        filled = evaluating.facts is not None and self.kind.count() > 0
        for widget in (self.kind, self.order):
            widget.setVisible(filled)
        if filled:
            self.set_state("ready")
        elif evaluating.running:
            self.set_state("loading", self.tr("Asking and judging …"))
        elif evaluating.error is not None and evaluating.facts is None:
            error = evaluating.error
            action = (self.tr("Try again"), self.run_requested.emit)
            self.set_state("error", f"{error.what} {error.why}\n{error.fix}", action)
        elif evaluating.pair is not None and evaluating.comparison is None:
            self.set_state("loading", self.tr("Pairing the answers …"))
        elif evaluating.facts is not None:
            self.set_state("empty", self.tr("Two targets that were asked the same are needed."))
        elif evaluating.obstacle() is None:
            text = self.tr("How each model changed what the one before did, category by category.")
            self.set_state("empty", text, (self.tr("Evaluate"), self.run_requested.emit))
        else:
            self.set_state("empty", evaluating.obstacle() or "")

    def _draw(self) -> None:
        self._show_state()
        self.set_title(self.tr("Before → after"), self._evaluating.shown_title)
        evaluating, kind = self._evaluating, self.kind.currentData()
        facts, pair, found = evaluating.facts, evaluating.pair, evaluating.comparison
        if facts is None or pair is None or found is None or kind is None:
            self.plot.set_data((), ())
            self.name_series([])
            return
        stations = _stations(facts, pair)
        whole = found.whole[kind]
        slopes = [
            _slope(facts, stations, kind, change, change.group or self.tr("no category"))
            for change in found.groups[kind]
        ]
        if self.order.isChecked():
            slopes.sort(key=lambda s: -abs(s.difference[0]) if s.difference else 1.0)
        if len(slopes) > 1:
            title = self.tr("All categories")
            slopes.insert(0, _slope(facts, stations, kind, whole, title, whole=True))
        self.plot.set_data(stations, slopes)
        self._tell(kind, stations, slopes)

    def _tell(self, kind: PromptKind, stations: list[Station], slopes: list[Slope]) -> None:
        texts = BY_ID[SHARES[kind]]
        self.set_formula(
            self.tr("{metric}, before and after").format(metric=texts.title),
            self.tr("{what} Bars are 95 % Wilson intervals. The number is how far the share moved "
                    "from {before} to {after}, in percentage points, on the same prompts; p is "
                    "McNemar's exact test, pH the same corrected after Holm for the number of "
                    "categories. Bold: below 0.05.").format(
                what=texts.sentence, before=stations[-2].name, after=stations[-1].name),
            "p = P(|X − n/2| ≥ |b − n/2|), X ~ Binomial(n = b + c, ½)",
            texts.value_range,
            "McNemar 1947; Holm 1979",
        )  # fmt: skip
        self.name_series(
            [(series_colour(s.role, s.index), s.name) for s in stations],
            [s.name for s in stations if s.hollow is not None],
        )
        told = [slope.name for slope in slopes if slope.marked]
        words = ", ".join(told) or self.tr("none")
        self.plot.set_summary(
            self.tr("{metric} from {before} to {after}. More than chance: {names}").format(
                metric=texts.title, before=stations[-2].name, after=stations[-1].name, names=words
            )
        )


def _stations(facts: Facts, pair: tuple[str, str]) -> list[Station]:
    """Return the two that are compared, and the baseline before them where it is a third."""
    names = dict.fromkeys((facts.results.baseline, *pair))
    if facts.results.baseline in pair:
        names = dict.fromkeys(pair)
    return [Station(t.name, t.info.role, t.index) for t in map(facts.target, names)]


def _slope(
    facts: Facts,
    stations: list[Station],
    kind: PromptKind,
    change: Change,
    name: str,
    *,
    whole: bool = False,
) -> Slope:
    metric, dots = SHARES[kind], []
    for station in stations:
        target = facts.target(station.name)
        cells = target.overall if whole else target.by_category.get(change.group, {})
        dots.append(dot_of(cells.get(metric), kind == "harmful" and not target.coherence.ok))
    estimate, difference = change.difference, None
    if estimate.value is not None and estimate.low is not None and estimate.high is not None:
        # a change counts bad answers; of a share of right ones the reader wants the opposite
        sign = -100.0 if kind == "utility" else 100.0
        low, high = sorted((sign * estimate.low, sign * estimate.high))
        difference = (sign * estimate.value + 0.0, low + 0.0, high + 0.0)
    return Slope(
        name, tuple(dots), difference, change.table.n, change.p_value,
        None if whole else change.p_holm, bool(change.greyed),
    )  # fmt: skip
