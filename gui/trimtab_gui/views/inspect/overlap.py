"""How far leading directions coincide in each layer, of changes or of activations, and chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimtab.inspection.metrics import ratio
from trimtab.inspection.spectra import Spectra
from trimtab.inspection.spectral_metrics import (
    SPECTRAL_BY_ID,
    expected_energy,
    expected_overlap,
    overlap,
    safety_energy,
)
from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.looking import Looking
from trimtab_gui.plots import Curve, PlotCard
from trimtab_gui.plots.bands import BandsView
from trimtab_gui.plots.profile_paint import curve_color
from trimtab_gui.views.inspect import activation_curves
from trimtab_gui.views.inspect.activations_strip import ActivationsStrip
from trimtab_gui.views.inspect.range_link import RangeLink
from trimtab_gui.views.inspect.texts import cost_text, level_text
from trimtab_gui.widgets import Choice

Floats = npt.NDArray[np.float64]
MSO, ANGLE, ENERGY = "overlap", "angle", "safety_energy"


def angle(shares: Floats) -> Floats:
    """Return the root-mean-square principal angle in degrees of an MSO: arccos √MSO.

    The MSO is the mean of cos² of the principal angles between two subspaces.
    """
    found: Floats = np.degrees(np.arccos(np.sqrt(np.clip(shares, 0.0, 1.0))))
    return found


class OverlapCard(PlotCard):
    """Curves of the active model; shaded, 20 row permutations of a, and dashed their mean.

    Of activations, curves of the reference, or of the refusal directions of all models.
    """

    def __init__(self, desk: Desk, looking: Looking) -> None:
        super().__init__("Overlap")
        self.set_title(self.tr("Overlap"))
        self._desk, self._spectra = desk, looking.spectra
        self._activations = looking.activations
        self.view = BandsView(self.tr("layer"))
        self.view.setAccessibleName(self.tr("Overlap of directions"))
        self.set_body(self.view)
        self.measure = Choice()
        self.measure.setAccessibleName(self.tr("Measure"))
        for key, text in (
            (MSO, self.tr("Overlap (MSO)")),
            (ANGLE, self.tr("Principal angle")),
            (ENERGY, self.tr("Share of τ in a's directions")),
            *((kind, activation_curves.title_of(kind)) for kind in activation_curves.KINDS),
        ):
            self.measure.addItem(text, key)
        self.measure.setMaximumWidth(200)
        self.measure.currentIndexChanged.connect(self._chosen)
        self.header_layout.addWidget(self.measure)
        self.strip = ActivationsStrip(desk, self._activations)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.strip)
        self.link = RangeLink(desk, self.view)
        self._grid: object = None
        desk.figures_changed.connect(self.redraw)
        desk.active_changed.connect(self.redraw)
        desk.recipe_changed.connect(self.redraw)
        self._spectra.changed.connect(self.redraw)
        self._activations.changed.connect(self._activations_changed)
        theme.manager().changed.connect(self.redraw)
        self.redraw()

    @property
    def of_activations(self) -> bool:
        """Whether what is chosen is of activations, and not of changes."""
        return self.measure.currentData() in activation_curves.KINDS

    def _chosen(self) -> None:
        self._measure_if_small()
        self.redraw()

    def _measure_if_small(self) -> None:
        finding = self._activations
        if self.of_activations and finding.error is None and finding.is_small:
            finding.start()

    def _activations_changed(self) -> None:
        self.strip.refresh()
        if self.of_activations:
            if not self._activations.running:
                self._measure_if_small()
            self.redraw()

    def redraw(self) -> None:
        """Draw what is known, or say what will be here and what it takes."""
        figures, known, i = self._desk.figures, self._spectra.known, self._desk.active
        self.measure.setVisible(figures is not None)
        self.strip.setVisible(figures is not None and self.of_activations)
        self.view.from_zero = self.measure.currentData() != activation_curves.TURN
        if figures is not None and self._grid is not figures.grid:
            self._grid = figures.grid
            self.view.set_columns(list(figures.grid.columns))
        if figures is not None and self.of_activations:
            self._draw_activations()
        elif figures is None or i < 0 or not figures.has_alignment:
            self.set_state("empty", self.tr(
                "Needs a base, an aligned and a fine-tuned model: it compares what alignment and "
                "fine-tuning changed."
            ))  # fmt: skip
        elif known is None or np.isnan(overlap(known.columns, i)).all():
            self._show_why()
        else:
            self.set_state("ready")
            self._draw(known.columns, i)

    def _draw_activations(self) -> None:
        finding, figures, lineup = self._activations, self._desk.figures, self._desk.lineup
        assert figures is not None
        if finding.known is None or lineup is None:
            self._show_what_is_needed()
            return
        kind = str(self.measure.currentData())
        drawn = activation_curves.draw(kind, finding.known, figures.grid.columns, lineup)
        self.set_state("ready")
        self.set_title(self.title())
        self.set_formula(*drawn.formula)
        self.view.y_label = ""
        self.view.set_curves(drawn.curves)
        named = [c for c in drawn.curves if not (c.dashed and kind == activation_curves.LENGTH)]
        legend = [(curve_color(curve), curve.label) for curve in named]
        if kind == activation_curves.LENGTH:
            legend.append((theme.color("muted"), self.tr("dashed: by chance")))
        self.set_legend(list(legend))
        self.view.set_summary(drawn.summary)

    def _show_what_is_needed(self) -> None:
        finding = self._activations
        if finding.running:
            text = self.tr("Taking the prompts through the models, block by block …")
            self.set_state("loading", text)
        elif finding.error is not None:
            error, again = finding.error, (self.tr("Try again"), finding.start)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        elif not finding.can_start:
            self.set_state("empty", self.tr(
                "Which directions safe and useful answers share, and where refusing lies.\nThis "
                "needs harmful prompts with refusals and benign ones with answers: choose them "
                "below."
            ))  # fmt: skip
        else:
            size = texts.size(finding.bytes_read())
            text = self.tr("Every model reads the prompts block by block: {size} of weights.")
            self.set_state("empty", text.format(size=size), (self.tr("Measure"), finding.start))

    def _show_why(self) -> None:
        finding = self._spectra
        if finding.running:
            self.set_state("loading", self.tr("Looking at every matrix, coarsely at first …"))
        elif finding.error is not None:
            error = finding.error
            again = (self.tr("Try again"), finding.start)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        else:
            text = self.tr("How far fine-tuning worked in the directions of alignment, per layer.")
            compute = (self.tr("Compute the spectra"), finding.start)
            self.set_state("empty", f"{text}\n{cost_text(finding)}", compute)

    def _draw(self, found: Spectra, i: int) -> None:
        measure, name = str(self.measure.currentData()), self._desk.name(i)
        if measure == ENERGY:
            values, mean = safety_energy(found, i), expected_energy(found, i)
            drawn = ratio(found.inside_permuted[:, i], found.whole[:, i, None])
        else:
            values, mean = overlap(found, i), expected_overlap(found, i)
            drawn = ratio(found.overlap_permuted[:, i], found.overlap_most[:, i, None])
        self._tell(measure)
        if measure == ANGLE:
            values, mean, drawn = angle(values), angle(mean), angle(drawn)
        unknown = np.isnan(drawn).all(1)
        low = np.where(unknown, np.nan, np.min(np.nan_to_num(drawn, nan=np.inf), axis=1))
        high = np.where(unknown, np.nan, np.max(np.nan_to_num(drawn, nan=-np.inf), axis=1))
        self.view.y_label = "°" if measure == ANGLE else ""
        self.view.set_curves([
            Curve("chance", self.tr("chance"), "muted", mean, low=low, high=high, dashed=True),
            Curve("tau", name, "finetuned", values, index=i),
        ])  # fmt: skip
        self.set_legend(
            [
                (theme.role_color("finetuned", i), name),
                ("muted", self.tr("chance: mean, permutations")),
            ]
        )
        stage = self._spectra.stage
        self.set_title(self.title(), "" if stage == "exact" else level_text(stage))
        above = int((values > high).sum() if measure != ANGLE else (values < low).sum())
        self.view.set_summary(
            self.tr("{measure} of {name}: beyond chance in {n} of {all} columns; at most {top}")
            .format(measure=self.measure.currentText(), name=name, n=above,
                    all=int((~np.isnan(values)).sum()),
                    top=texts.significant(float(np.nanmax(values))))
        )  # fmt: skip

    def _tell(self, measure: str) -> None:
        chance = self.tr("Dashed: the mean of random subspaces; shaded: a's outputs dealt out "
                         "anew, 20 times.")  # fmt: skip
        if measure == ANGLE:
            m = SPECTRAL_BY_ID[MSO]
            self.set_formula(
                self.tr("Principal angle"),
                self.tr("The root-mean-square angle between the leading output directions of the "
                        "two changes; 90° is none in common.") + f" {chance}",
                "arccos √MSO, MSO = mean cos² θᵢ", self.tr("0° to 90°"), m.reference,
            )  # fmt: skip
        else:
            m = SPECTRAL_BY_ID[measure]
            sentence = f"{m.sentence} {chance}"
            self.set_formula(m.title, sentence, m.formula, m.value_range, m.reference)
