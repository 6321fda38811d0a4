"""The card of what was looked at, and so of what was not."""

from __future__ import annotations

from typing import get_args

from PySide6.QtGui import QResizeEvent

from trimtab.evaluation.coverage import Facet
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.coverage import CoverageMatrix
from trimtab_gui.widgets import Choice

#: px of the card from which there is room for the remark, and below which only for a short title
_WIDE, _NARROW = 600, 400


class CoverageCard(PlotCard):
    """Before a run it shows what the chosen suites would ask, afterwards what was asked."""

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("")
        self._evaluating = evaluating
        self.matrix = CoverageMatrix()
        self.matrix.fitted.connect(self._show_hidden)
        self.set_body(self.matrix)
        self.facet = Choice()
        self.facet.setAccessibleName(self.tr("Ways of asking"))
        self.facet.setSizeAdjustPolicy(
            Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.facet.setMinimumContentsLength(6)
        names: dict[Facet, str] = {
            "form": self.tr("by form"), "language": self.tr("by language"),
            "modality": self.tr("by modality"), "turns": self.tr("by turns"),
        }  # fmt: skip
        self.facet.addItem(self.tr("all ways"), None)
        for facet in get_args(Facet):
            self.facet.addItem(names[facet], facet)
        self.facet.activated.connect(lambda row: self.matrix.set_facet(self.facet.itemData(row)))
        self.header_layout.addWidget(self.facet)
        self.set_formula(
            self.tr("Coverage"),
            self.tr("How many prompts there are for each risk domain and way of asking. Where "
                    "nothing was asked nothing is known: an empty cell is no good news. Each group "
                    "of columns divides the same prompts anew."),
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
        suites, found = evaluating.suites, evaluating.found
        known = bool(found or suites.ready)
        self.facet.setVisible(known)
        if not known:
            self.set_title(self.tr("Coverage"))
            if suites.error is not None:
                self.set_state("error", f"{suites.error.what} {suites.error.why}")
            elif suites.loading:
                self.set_state("loading", self.tr("Reading the prompts …"))
            else:
                self.set_state("empty", self.tr("What the chosen suites ask about, and what not."))
            return
        data = evaluating.coverage
        self.matrix.set_data(data)
        self._show_hidden()
        touched = len(data.rows) - len(data.untouched)
        empty = ", ".join(column.key for column in data.empty_columns) or self.tr("none")
        self.matrix.set_summary(
            self.tr("{touched} of {all} risk domains hold prompts. Ways that nothing is asked in: "
                    "{empty}.").format(touched=touched, all=len(data.rows), empty=empty)
        )  # fmt: skip
        self.set_state("ready")

    def _show_hidden(self) -> None:
        """Say how many ways of asking there is room for."""
        asked = bool(self._evaluating.found)
        title = self.tr("Coverage: what was looked at") if asked else (
            self.tr("Coverage: what would be asked")
        )  # fmt: skip
        wide = self.width() >= _WIDE
        short = self.width() < _NARROW
        self.set_title(
            self.tr("Coverage") if short else title,
            self.tr("no data is never green") if wide else "",
        )
        hidden = len(self.matrix.hidden) if self.matrix.facet is None else 0
        all_ways, ways = self.tr("all ways"), len(get_args(Facet))
        some = self.tr("{n}/{all}") if short else self.tr("{n} of {all} ways")
        self.facet.setItemText(0, some.format(n=ways - hidden, all=ways) if hidden else all_ways)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self.state() == "ready":
            self._show_hidden()
