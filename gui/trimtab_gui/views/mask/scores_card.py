"""The scores that a mask is chosen by, with the threshold that makes another mask."""

from __future__ import annotations

import numpy as np

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.mask_building import MaskBuilding
from trimtab_gui.masking import Masking
from trimtab_gui.plots import PlotCard
from trimtab_gui.plots.histogram import HistogramPlot
from trimtab_gui.plots.scale import number
from trimtab_gui.views.mask.score_kinds import SOMF, ScoreKind, spread_of
from trimtab_gui.views.mask.scoring import Scoring


class ScoresCard(PlotCard):
    """How the chosen builder's scores lie; letting the threshold go builds a mask.

    A threshold moved again changes the mask that it made before.
    """

    def __init__(
        self, desk: Desk, masking: Masking, building: MaskBuilding, scoring: Scoring
    ) -> None:
        super().__init__("Scores")
        self._desk, self._masking = desk, masking
        self._building, self._scoring = building, scoring
        self.view = HistogramPlot()
        self.set_body(self.view)
        self._kind: ScoreKind | None = None
        self._drawn: object = None
        self._thresholds: dict[str, float | None] = {}
        self.view.released.connect(scoring.cut)
        self.view.moved.connect(lambda _: self._say())
        desk.lineup_changed.connect(self._thresholds.clear)
        scoring.changed.connect(self.redraw)
        masking.changed.connect(self.redraw)
        self.redraw()

    def redraw(self) -> None:
        """Draw what is known, or say what will be here and what it takes."""
        scoring, kind = self._scoring, self._scoring.kind
        if kind is not self._kind:
            self._take(kind)
        found, error = scoring.found, scoring.error
        learning = self._building.learning.log.histogram
        if not self._masking.ready:
            self.set_state("empty", self.tr("How the scores are spread that a mask is chosen by."))
        elif kind is SOMF and learning and not scoring.key:
            self._show_learning(learning)
        elif found is not None:
            self._show()
        elif scoring.lacking:
            self.set_state("empty", f"{self.tr(kind.empty)}\n{scoring.lacking}")
        elif not scoring.key:
            self.set_state("empty", self.tr(kind.empty))
        elif error is not None:
            again = (self.tr("Try again"), scoring.wish)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        elif scoring.asking:
            self.view.draggable = False
            if self.state() == "ready":  # those of the setting before stay in sight
                self.set_title(self.title(), self.tr("counting …"))
            else:
                self.set_state("loading", self.tr("Counting scores …"))
        else:
            size = texts.size(self._masking.bytes_read())
            text = self.tr("Runs the model on the prompts, and reads {size}.") if kind.runs else (
                self.tr("Takes one read of {size}.")
            )  # fmt: skip
            text = f"{self.tr(kind.empty)}\n{text.format(size=size)}"
            self.set_state("empty", text, (self.tr("Count them"), scoring.wish))

    def _take(self, kind: ScoreKind) -> None:
        """Become the card of other scores."""
        if self._kind is not None:
            self._thresholds[self._kind.id] = self.view.threshold
        self._kind, self._drawn = kind, None
        self.view.set_threshold(self._thresholds.get(kind.id))
        self.set_title(self.tr(kind.title))
        self.view.setAccessibleName(self.title())
        self.view.role, self.view.caption = kind.role, self.tr(kind.caption)
        self.view.removes = kind.removes
        self.set_state("loading", "")
        self.set_formula(
            self.title(), self.tr(kind.sentence), kind.formula,
            "0 to 1" if kind is SOMF else "0 and up", kind.reference,
        )  # fmt: skip

    def _show_learning(self, shares: tuple[float, ...]) -> None:
        histogram = np.array(shares)
        self.view.draggable = False
        self._drawn = None
        self.view.set_data(np.linspace(0, 1, histogram.size + 1), histogram * 100)
        self.set_title(self.title(), self.tr("percent of entries, as it learns"))
        self.set_state("ready")

    def _show(self) -> None:
        found = self._scoring.found
        assert found is not None
        self.view.draggable = self._scoring.draggable
        if found is not self._drawn:
            self._drawn = found
            spread = spread_of(found)
            self.view.set_data(
                spread.edges, spread.counts, below=spread.below, logarithmic=spread.logarithmic
            )
            if self.view.threshold is None and self._kind is SOMF:
                self.view.set_threshold(0.5)
        if not self.view.counts.size:
            self.set_state("empty", self.tr("No entry differs from the reference."))
            return
        self.set_state("ready")
        self._say()

    def _say(self) -> None:
        threshold, kind = self.view.threshold, self._scoring.kind
        text = self.tr("drag the threshold")
        if not self.view.draggable:
            text = self.tr("pruned by row, without a mask")
        elif self._scoring.waits:
            text = self.tr("waits for what is being built")
        elif threshold is not None:
            text = self.tr("at {value}: {share} kept").format(
                value=number(threshold), share=texts.percent(self.view.kept(threshold))
            )
        aside = self.tr(kind.aside)
        self.set_title(self.title(), f"{aside} · {text}" if aside else text)
