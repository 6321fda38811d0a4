"""How much of τ, and of what masks keep of it, lies in the directions of alignment, by layer."""

from __future__ import annotations

import numpy as np
from PySide6.QtGui import QColor

from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.mask_facts import Floats, Inside
from trimtab_gui.masking import Masking
from trimtab_gui.plots import Curve, PlotCard
from trimtab_gui.plots.bands import BandsView
from trimtab_gui.views.inspect.range_link import RangeLink


class InsideCard(PlotCard):
    """Shaded: what random subspaces of the same size hold of τ."""

    def __init__(self, desk: Desk, masking: Masking) -> None:
        super().__init__("Overlap with alignment")
        self.set_title(self.tr("Overlap with alignment"))
        self._desk, self._masking = desk, masking
        self.view = BandsView(self.tr("layer"), self.tr("energy share"))
        self.view.setAccessibleName(self.title())
        self.set_body(self.view)
        self.set_formula(
            self.title(),
            self.tr("How much of the change lies in the outputs that alignment changed most, "
                    "before and after the masks. Shaded: 20 random subspaces of that size."),
            "‖U_kU_kᵀτ‖² / ‖τ‖² and ‖U_kU_kᵀ(m ⊙ τ)‖² / ‖m ⊙ τ‖², U_k of a = U S Vᵀ, k ≤ 16",
            self.tr("0 to 1; chance gives k/out"),
            "Safety Subspaces are Not Linearly Distinct, arXiv 2505.14185",
        )  # fmt: skip
        self.link = RangeLink(desk, self.view)
        self._grid: object = None
        masking.changed.connect(self.redraw)
        desk.lineup_changed.connect(self.redraw)
        theme.manager().changed.connect(self.redraw)
        self.redraw()

    def redraw(self) -> None:
        """Draw what is known, or say what will be here and what it takes."""
        masking, lineup = self._masking, self._desk.lineup
        if not masking.ready or lineup is None or not lineup.has_alignment:
            self._grid = None
            self.set_state("empty", self.tr(
                "Needs a base, an aligned and a fine-tuned model: it shows whether masks take away "
                "what works in alignment's directions."
            ))  # fmt: skip
            return
        if self._grid is not lineup.grid:
            self._grid = lineup.grid
            self.view.set_columns(list(lineup.grid.columns))
        found, error = masking.overlap, masking.error
        if found is not None:
            self._draw(found)
        elif masking.asking("overlap") or masking.asking("shares"):
            if self.state() != "ready":  # the curves of the stack before stay in sight
                self.set_state("loading", self.tr("Projecting onto alignment's directions …"))
        elif error is not None:
            again = (self.tr("Try again"), lambda: masking.wish("overlap"))
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        else:
            text = self.tr(
                "How much of the change lies in alignment's directions, before and after the "
                "masks.\nReads {size} and takes the leading directions of every matrix."
            ).format(size=texts.size(masking.bytes_read()))
            self.set_state("empty", text, (self.tr("Compute"), lambda: masking.wish("overlap")))

    def _draw(self, found: Inside) -> None:
        active = self._desk.active
        unknown = np.isnan(found.chance).any(axis=0)
        mean, low, high = (
            np.where(unknown, np.nan, of(np.nan_to_num(found.chance), axis=0))
            for of in (np.mean, np.min, np.max)
        )
        curves = [
            Curve("chance", self.tr("random"), "muted", mean, low=low, high=high, dashed=True),
            Curve("tau", "τ", "finetuned", found.tau, index=active),
        ]
        legend: list[tuple[str | QColor, str]] = [
            (theme.role_color("finetuned", active), "τ"),
            ("muted", self.tr("random")),
        ]
        masked = any(entry.on for entry in self._masking.stack)
        if masked:
            curves.append(Curve("kept", self.tr("kept τ"), "merged", found.kept))
            legend.insert(1, ("merged", self.tr("kept")))
        self.set_state("ready")
        self.view.set_curves(curves)
        self.set_legend(legend)
        share, kept, random = (_mean(of) for of in (found.tau, found.kept, mean))
        self.view.set_summary(
            self.tr("On average over the layers {tau} of τ, {kept} of what is kept, {chance} by "
                    "chance").format(tau=texts.percent(share), kept=texts.percent(kept),
                                     chance=texts.percent(random))
        )  # fmt: skip


def _mean(shares: Floats) -> float:
    """Return the mean of what is known, nan of nothing."""
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if known.size else float("nan")
