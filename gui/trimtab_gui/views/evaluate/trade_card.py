"""The card that sets harm against what safety may cost: the task, or over-refusal."""

from __future__ import annotations

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QResizeEvent

from trimtab.evaluation.metrics import BY_ID
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import Facts, TargetFacts
from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.dots import Dot
from trimtab_gui.plots.scatter import Mark, ScatterPlot
from trimtab_gui.views.evaluate.dots_card import dot_of
from trimtab_gui.widgets import Choice, quiet_button

#: px that the head needs for the choice
_ROOM = 284
_COSTS = ("utility", "over_refusal")


class TradeCard(PlotCard):
    """Each target by its two shares; ``target_chosen`` when its mark is clicked.

    ``switched`` asks for the other card in this place.
    """

    target_chosen = Signal(str)
    switched = Signal()

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("")
        self.set_title(self.tr("Trade-off"))
        self._evaluating = evaluating
        self.plot = ScatterPlot()
        self.plot.mark_chosen.connect(self.target_chosen)
        self.cost = Choice()
        self.cost.setAccessibleName(self.tr("What harm is set against"))
        self.cost.setMinimumWidth(74)
        for metric in _COSTS:
            self.cost.addItem(BY_ID[metric].title, metric)
        self.cost.activated.connect(self.refresh)
        switch = quiet_button("chart-scatter-plot", self.tr("Show the trials of a sweep"))
        switch.setIconSize(QSize(15, 15))
        switch.clicked.connect(self.switched)
        self.header_layout.addWidget(self.cost)
        self.header_layout.addWidget(switch)
        self.set_body(self.plot)
        evaluating.results_changed.connect(self.refresh)
        evaluating.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Draw the targets, or say why there are none."""
        evaluating, cost = self._evaluating, self.cost.currentData()
        facts = evaluating.facts
        texts = BY_ID[cost]
        self.set_formula(
            texts.title, texts.sentence, texts.formula, texts.value_range, texts.reference
        )
        marks, harm = self._marks(facts, cost) if facts is not None else ([], "attack_success")
        self._offer_cost()
        names = (
            self.tr("{metric}, percent").format(metric=BY_ID[m].title.lower()) for m in (harm, cost)
        )
        self.plot.set_data(marks, *names)
        self.plot.set_summary(
            "; ".join(self.plot.reading(i).replace("\n", ", ") for i in range(len(marks)))
        )
        if marks:
            self.set_state("ready")
        elif evaluating.running:
            self.set_state("loading", self.tr("Asking and judging …"))
        elif facts is not None:
            why = self.tr("No target has both numbers: {metric} was not asked after.")
            self.set_state("empty", why.format(metric=texts.title.lower()))
        else:
            self.set_state("empty", self.tr("What less harm costs: each model as one mark."))

    def _offer_cost(self) -> None:
        # where it would not fit into the head it waits until the card is wider
        self.cost.setVisible(self._evaluating.facts is not None and self.width() >= _ROOM)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._offer_cost()

    def _marks(self, facts: Facts, cost: str) -> tuple[list[Mark], str]:
        harm = next(
            (m for m in ("harmfulness_rate", "attack_success") if m in facts.shown_metrics),
            "attack_success",
        )
        found = []
        for target in facts.targets:
            pair = _pair(target, harm, cost)
            if pair is not None:
                found.append(Mark(target.name, target.info.role, target.index, *pair))
        return found, harm


def _pair(target: TargetFacts, harm: str, cost: str) -> tuple[Dot, Dot] | None:
    x = dot_of(target.overall.get(harm), not target.coherence.ok)
    y = dot_of(target.overall.get(cost), False)
    return None if x is None or y is None else (x, y)
