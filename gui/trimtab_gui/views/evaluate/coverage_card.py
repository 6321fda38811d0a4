"""The card of what was looked at, and so of what was not."""

from __future__ import annotations

from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import coverage_of
from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.coverage import CoverageMatrix


class CoverageCard(PlotCard):
    """Before a run it shows what the chosen suite would ask, afterwards what was asked."""

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("")
        self._evaluating = evaluating
        self.matrix = CoverageMatrix()
        self.set_body(self.matrix)
        self.set_formula(
            self.tr("Coverage"),
            self.tr("How many prompts there are for each risk domain and way of asking. Where "
                    "nothing was asked nothing is known: an empty cell is no good news."),
            self.tr("#{prompts about harm of one domain, asked in one way}"),
            self.tr("whole numbers, or no data"),
            "Weidinger et al. 2023, arXiv 2310.11986",
        )  # fmt: skip
        evaluating.changed.connect(self.refresh)
        evaluating.results_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Count anew."""
        evaluating = self._evaluating
        aside = self.tr("no data is never green")
        if evaluating.facts is not None:
            self.set_title(self.tr("Coverage: what was looked at"), aside)
            found = evaluating.facts.coverage
        elif evaluating.suite is not None:
            self.set_title(self.tr("Coverage: what would be asked"), aside)
            found = coverage_of(evaluating.suite)
        else:
            self.set_title(self.tr("Coverage"))
            error = evaluating.suite_error
            if error is not None:
                self.set_state("error", f"{error.what} {error.why}")
            else:
                self.set_state("loading", self.tr("Reading the prompts …"))
            return
        same = (found.rows, found.columns, found.counts) == (
            self.matrix.rows, self.matrix.columns, self.matrix.counts,
        )  # fmt: skip
        if not same:
            self.matrix.set_data(found.rows, found.columns, found.counts)
        cells = [n for row in found.counts for n in row]
        asked = sum(n is not None for n in cells)
        self.matrix.set_summary(
            self.tr("{asked} of {all} cells hold prompts, {n} prompts; the others hold no data.")
            .format(asked=asked, all=len(cells), n=sum(n or 0 for n in cells))
        )  # fmt: skip
        self.set_state("ready")
