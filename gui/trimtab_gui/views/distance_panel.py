"""Two gauges that move while the hand moves: how far the merge goes, and what it keeps."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtWidgets import QHBoxLayout

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.widgets import Gauge, Panel


class DistancePanel(Panel):
    """Both shares are computed from inner products, not measured by running the model."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Distance")
        self.set_title(self.tr("Distance"))
        self._desk = desk
        self.moved = Gauge(self.tr("moved, share of |a|"), "merged")
        self.kept = Gauge(self.tr("task vector kept"), "finetuned")
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.moved)
        row.addWidget(self.kept)
        self.body.addLayout(row)
        for signal in (desk.figures_changed, desk.recipe_changed, desk.active_changed):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Bring the gauges up to date."""
        desk, figures, i = self._desk, self._desk.figures, self._desk.active
        if figures is None or desk.coefficients is None or i < 0:
            self.set_aside("")
            self.moved.set_value(None, "–", "")
            self.kept.set_value(None, "–", "")
            return
        now = figures.totals(desk.coefficients, i)
        alone = np.zeros_like(desk.coefficients)
        alone[:, i] = 1.0
        full = figures.totals(alone, i)
        self.set_aside(self.tr("from weights alone"))
        if math.isnan(now.moved):
            self.moved.set_value(None, "–", self.tr("needs the base"))
        else:
            note = self.tr("rollback {percent}").format(percent=texts.signed_percent(now.rollback))
            self.moved.set_value(now.moved * 100, f"{now.moved * 100:.1f}", note)
        _show(self.kept, now.kept, full.kept, self.tr("{difference} vs fine-tuned"))
        name = desk.name(i)
        self.moved.setToolTip(
            self.tr("How far the merged model is from the reference, measured by the step that "
                    "alignment took: |merged − aligned| / |a|, over all tensors.\n"
                    "Rollback is the part that goes straight back along a: "
                    "−⟨merged − aligned, a⟩ / |a|².\n"
                    "It says how far weights move, not how the model answers.")
            if not math.isnan(now.moved)
            else self.tr("Needs the base model: a = aligned − base.")
        )  # fmt: skip
        self.kept.setToolTip(
            self.tr("How much of the task vector of {name} is in the merged model.\n"
                    "⟨merged − aligned, τ⟩ / |τ|², over all tensors.\n"
                    "It says how far weights move, not how the model answers.").format(name=name)
        )  # fmt: skip


def _show(gauge: Gauge, value: float, full: float, versus: str) -> None:
    if math.isnan(value):
        gauge.set_value(None, "–", "")
        return
    text = f"{value * 100:.1f}".replace("-", "−")
    note = versus.format(difference=texts.signed_points((value - full) * 100))
    gauge.set_value(value * 100, text, note)
