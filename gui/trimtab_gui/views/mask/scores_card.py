"""The scores that a mask is chosen by, with the threshold that makes another mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.mask_building import MaskBuilding
from trimtab_gui.masking import Masking
from trimtab_gui.plots import PlotCard
from trimtab_gui.plots.histogram import HistogramPlot
from trimtab_gui.plots.scale import number

MAGNITUDE, SOMF = "magnitude", "somf"


class ScoresCard(PlotCard):
    """|τ| of the active model, or σ(x) as SOMF learns it; letting the threshold go builds a mask.

    A threshold moved again changes the mask that it made before.
    """

    def __init__(self, desk: Desk, masking: Masking, building: MaskBuilding) -> None:
        super().__init__("Scores")
        self._desk, self._masking, self._building = desk, masking, building
        self.view = HistogramPlot()
        self.set_body(self.view)
        self.source = MAGNITUDE
        self._job: Job | None = None
        self._asked = ""
        self._known: dict[str, Mapping[str, Any]] = {}
        self._error: UserError | None = None
        self._made: dict[str, str] = {}
        self._drawn: Mapping[str, Any] | None = None
        self._thresholds: dict[str, float | None] = {}
        self.view.released.connect(self._released)
        self.view.moved.connect(lambda _: self._say())
        desk.active_changed.connect(self.redraw)
        desk.lineup_changed.connect(self._forget)
        building.changed.connect(self.redraw)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._failed)
        desk.jobs.cancelled.connect(self._cancelled)
        self.redraw()

    def choose(self, builder: str) -> None:
        """Show the scores of a builder; those that have none of their own show |τ|."""
        source = SOMF if builder == SOMF else MAGNITUDE
        if source != self.source:
            self._thresholds[self.source] = self.view.threshold
            self.source = source
            self.view.set_threshold(None)
        self.redraw()

    def _forget(self) -> None:
        self._known.clear()
        self._made.clear()
        self._thresholds.clear()
        self._error, self._job = None, None
        self.redraw()

    @property
    def _logits(self) -> str:
        report = self._building.reports.get("somf")
        return str(report["files"]["logits"]) if report else ""

    @property
    def _key(self) -> str:
        return self._logits if self.source == SOMF else f"{MAGNITUDE} {self._desk.active}"

    def redraw(self) -> None:
        """Draw what is known, ask for what is not, or say what will be here."""
        somf = self.source == SOMF
        self.set_title(self.tr("Keep probability σ(x)") if somf else self.tr("Size of τ"))
        self.view.setAccessibleName(self.title())
        self.view.role = "aligned" if somf else "finetuned"
        self.view.caption = self.tr("keep probability") if somf else "|τ|"
        self.set_formula(
            self.title(),
            self.tr("How sure SOMF is to keep an entry.") if somf else self.tr(
                "How far fine-tuning moved each entry; entries that did not move are not drawn."),
            "σ(x) = 1 / (1 + e⁻ˣ)" if somf else "|θ − θ_ref|", "0 to 1" if somf else "0 and up",
            "Yi et al. 2024, arXiv 2405.09055" if somf else "",
        )  # fmt: skip
        known = self._known.get(self._key) if self._key else None
        if not self._masking.ready:
            self.set_state("empty", self.tr("How the scores are spread that a mask is chosen by."))
        elif somf and self._building.learning.log.histogram and not self._logits:
            self._show_learning()
        elif known is not None:
            self._show(known)
        elif somf and not self._logits:
            self.set_state("empty", self.tr(
                "How sure SOMF is of each entry: as it learns, and then with a threshold to drag."
            ))  # fmt: skip
        elif self._error is not None:
            error = self._error
            again = (self.tr("Try again"), self._ask_again)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        elif somf or self._masking.is_small or self._asked == self._key:
            self.set_state("loading", self.tr("Counting scores …"))
            self._count()
        else:
            size = texts.size(self._masking.bytes_read())
            text = self.tr("How large the entries of τ are: {size} to read.").format(size=size)
            self.set_state("empty", text, (self.tr("Count them"), self._count))

    def _show_learning(self) -> None:
        histogram = np.array(self._building.learning.log.histogram)
        self.view.draggable = False
        self.view.set_data(np.linspace(0, 1, histogram.size + 1), histogram * 100)
        self.set_title(self.title(), self.tr("percent of entries, as it learns"))
        self.set_state("ready")

    def _show(self, known: Mapping[str, Any]) -> None:
        self.set_state("ready")
        if self.view.draggable and known is self._drawn:
            self._say()
            return
        self._drawn = known
        self.view.draggable = True
        counts = np.array(known["counts"], dtype=np.float64)
        edges = np.array(known["edges"], dtype=np.float64)
        if not counts.size:
            self.set_state("empty", self.tr("No entry differs from the reference."))
            return
        self.view.set_data(
            edges, counts, below=float(known["zeros"]), logarithmic=bool(known["logarithmic"])
        )
        if self.view.threshold is None:
            usual = 0.5 if self.source == SOMF else None
            self.view.set_threshold(self._thresholds.pop(self.source, None) or usual)
        self._say()

    def _say(self) -> None:
        threshold = self.view.threshold
        text = self.tr("drag the threshold")
        if threshold is not None and self.view.draggable:
            text = self.tr("at {value}: {share} kept").format(
                value=number(threshold), share=texts.percent(self.view.kept(threshold))
            )
        self.set_title(self.title(), text)

    # Jobs.

    def _ask_again(self) -> None:
        self._error = None
        self.redraw()

    def _count(self) -> None:
        desk = self._desk
        if self._job is not None or desk.lineup is None:
            return
        self._asked = self._key
        params: dict[str, Any]
        if self.source == SOMF:
            job, params = "somf_scores", {"logits": self._logits}
        else:
            job = "mask_scores"
            params = {
                "recipe": desk.recipe.model_dump(mode="json"),
                "model": desk.lineup.finetuned[desk.active].name,
                "of": {"score": "magnitude"},
            }  # fmt: skip
        self._job = desk.jobs.submit(job, params, self.tr("Counting scores"), quiet=True)
        self.set_state("loading", self.tr("Counting scores …"))

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if job is self._job:
            self._job = None
            self._known[self._asked] = result
            self.redraw()

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job, self._error = None, error
            self.redraw()

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            self._job = None

    def _released(self, threshold: float) -> None:
        desk, building = self._desk, self._building
        if building.obstacle or desk.lineup is None:
            return
        member = desk.lineup.finetuned[desk.active].name
        output = str(building.new_file(f"{member}-threshold"))
        before = self._made.get(self._key, "")
        self._made[self._key] = output
        params: dict[str, Any]
        if self.source == SOMF:
            report = building.reports["somf"]
            name = self.tr("SOMF, σ(x) > {value}").format(value=f"{threshold:.2f}")
            params = {"logits": self._logits, "output": output, "form": "threshold",
                      "cut": min(max(threshold, 1e-6), 1 - 1e-6)}  # fmt: skip
            job, before = "somf_export", before or str(report["files"]["mask"])
        else:
            name = self.tr("|τ| ≥ {value}").format(value=number(threshold))
            params = {
                "recipe": desk.recipe.model_dump(mode="json"), "model": member, "output": output,
                "of": {"score": "magnitude", "threshold": threshold},
            }  # fmt: skip
            job = "mask_build"
        title = self.tr("Building {mask}").format(mask=name)
        building.start(
            "threshold", job, params, title, lambda _: MaskEntry(path=output, name=name),
            replaces=before,
        )  # fmt: skip
