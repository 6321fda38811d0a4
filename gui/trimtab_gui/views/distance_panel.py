"""Two gauges that move while the hand moves: how far the merge goes, and what it keeps."""

from __future__ import annotations

import math

from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QStackedWidget, QWidget

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.widgets import Gauge, Panel, Unknown

_UNKNOWN_HEIGHT = 76


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
        gauges = QWidget()
        gauges.setLayout(row)
        row.setContentsMargins(0, 0, 0, 0)
        self.unknown = Unknown()
        self._pages = QStackedWidget()
        self._pages.addWidget(gauges)
        self._pages.addWidget(self.unknown)
        self._pages.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.body.addWidget(self._pages)
        for signal in (
            desk.figures_changed, desk.recipe_changed, desk.active_changed, desk.figures_moved,
        ):  # fmt: skip
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Bring the gauges up to date."""
        desk, figures, i = self._desk, self._desk.figures, self._desk.active
        unknown = bool(desk.movement_unknown)
        self._pages.setCurrentIndex(1 if unknown else 0)
        # a method of which nothing is known has many parameters: leave them the room
        self._pages.setFixedHeight(_UNKNOWN_HEIGHT if unknown else self.moved.sizeHint().height())
        self.unknown.set_text(desk.movement_unknown)
        if figures is None or desk.movement is None or i < 0:
            self.set_aside("")
            self.moved.set_value(None, "–", "")
            self.kept.set_value(None, "–", "")
            return
        now = figures.totals(desk.movement, i)
        full = figures.totals(figures.alone(i), i)
        self.set_aside(self.tr("from weights alone"))
        complete = desk.lineup is not None and desk.lineup.base is not None
        if math.isnan(now.moved):
            note = self.tr("NaN in the weights") if complete else self.tr("needs the base")
            self.moved.set_value(None, "–", note)
        else:
            note = self.tr("rollback {percent}").format(percent=texts.signed_percent(now.rollback))
            self.moved.set_value(now.moved * 100, _percent(now.moved), note)
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
                    "⟨merged − {reference}, τ⟩ / |τ|², over all tensors.\n"
                    "It says how far weights move, not how the model answers.").format(
                name=name, reference=desk.reference_word
            )
        )  # fmt: skip


def _show(gauge: Gauge, value: float, full: float, versus: str) -> None:
    if math.isnan(value):
        gauge.set_value(None, "–", "")
        return
    note = versus.format(difference=texts.signed_points((value - full) * 100))
    gauge.set_value(value * 100, _percent(value), note)


def _percent(share: float) -> str:
    """Return a share in per cent, in the five places that a gauge has room for."""
    percent = share * 100
    text = f"{percent:.1f}" if abs(percent) < 1000 else f"{percent:,.0f}"
    return text.replace("-", "−")
