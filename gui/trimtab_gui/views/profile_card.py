"""The per-layer profile: norms as curves, and the ratio curve that is dragged."""

from __future__ import annotations

import numpy as np
from PySide6.QtGui import QColor

from trimtab.project.edits import reset_layer_ratios, set_layer_ratios
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.figures import Figures
from trimtab_gui.plots import Curve, PlotCard, ProfileView
from trimtab_gui.undo import gesture
from trimtab_gui.views.inspect.range_link import RangeLink

RATIO_MAXIMUM = 1.5
# more names would leave the legend no room to say any
MOST_NAMED = 2


class ProfileCard(PlotCard):
    """Curves over the same columns as the heatmap; the ratio belongs to the active model."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Per-layer profile")
        self.set_title(self.tr("Per-layer profile"))
        self._desk = desk
        self.view = ProfileView(self.tr("layer"), self.tr("norm"))
        self.view.setAccessibleName(self.tr("Per-layer profile"))
        self.set_body(self.view)
        self.set_formula(
            self.tr("Norms per layer"),
            self.tr("How long the change of fine-tuning, of alignment, and of the merge is in "
                    "each layer. The dashed curve is the ratio of the active model: drag it."),
            "|v| = √Σ v² over the layer's tensors; |merged − aligned| = √(cᵀ G c)",
            self.tr("norms: 0 and up; ratio: 0 to 1.5"),
            self.tr("Trimtab's own definition"),
        )  # fmt: skip
        self._key = ""
        self._grid: object = None
        view = self.view
        view.ratio_drag_started.connect(self._drag_started)
        view.ratio_moved.connect(self._dragged)
        view.ratio_drag_finished.connect(self._drag_finished)
        view.ratio_reset.connect(self._reset)
        self._link = RangeLink(desk, view)
        desk.figures_changed.connect(self.rebuild)
        desk.recipe_changed.connect(self.redraw)
        desk.figures_moved.connect(self.redraw)
        desk.methods_changed.connect(self.redraw)
        desk.active_changed.connect(self.redraw)
        theme.manager().changed.connect(self._legend)
        self.rebuild()

    def rebuild(self) -> None:
        """Take over new figures, or say what will be here."""
        figures = self._desk.figures
        if figures is None:
            self._grid = None
            busy = self._desk.inspecting or self._desk.opening
            if busy:
                self.set_state("loading", self.tr("One moment …"))
            else:
                self.set_state("empty", self.tr("Norms and the ratio of each layer come here."))
            return
        if self._grid is not figures.grid:
            self._grid = figures.grid
            self.view.set_columns(list(figures.grid.columns))
        self.set_state("ready")
        self.redraw()

    def redraw(self) -> None:
        """Draw curves and ratio for the recipe as it stands; touches no file."""
        desk, figures = self._desk, self._desk.figures
        if figures is None:
            return
        curves = [
            Curve(f"tau{i}", f"|τ| {desk.name(i)}", "finetuned", figures.tau_curve(i), index=i)
            for i in self._models_drawn(figures)
        ]
        if figures.has_alignment:
            curves.append(Curve("a", "|a| alignment", "aligned", figures.alignment_curve()))
        if desk.movement is not None:
            shift = figures.by_column(desk.movement.shift)
            name = f"|merged − {desk.reference_word}|"
            curves.insert(0, Curve("shift", name, "merged", shift, fill=True))
        self.view.set_curves(curves)
        self._draw_ratio()
        self._legend()

    def _models_drawn(self, figures: Figures) -> list[int]:
        """The active model and those that take part: one at ratio 0 would only set the scale."""
        movement = self._desk.movement
        models = self._desk.recipe.finetuned
        if movement is not None:
            part = movement.taking_part.tolist()
        elif self._weighted:
            part = [bool(m.ratio or any(m.layers.values())) for m in models]
        else:
            part = [True] * len(models)
        return [i for i in range(figures.n_models) if i == self._desk.active or part[i]]

    @property
    def _weighted(self) -> bool:
        method = self._desk.method
        return method is None or method.weighted

    def _draw_ratio(self) -> None:
        desk, figures = self._desk, self._desk.figures
        i = desk.active
        if figures is None or i < 0 or not self._weighted:
            self.view.set_ratio(None)
            return
        model = desk.recipe.finetuned[i]
        columns = figures.grid.columns
        values = np.full(len(columns), np.nan)
        pinned = np.zeros(len(columns), dtype=np.bool_)
        for j, text in enumerate(columns):
            if text.isdigit():
                values[j] = model.layers.get(int(text), model.ratio)
                pinned[j] = int(text) in model.layers
        highest = max(RATIO_MAXIMUM, float(np.nanmax(values, initial=0.0)))
        lowest = min(0.0, float(np.nanmin(values, initial=0.0)))
        self.view.set_ratio(values, pinned, lowest, highest)

    def _legend(self) -> None:
        desk, figures = self._desk, self._desk.figures
        if figures is None:
            return
        drawn = self._models_drawn(figures)
        named = drawn if len(drawn) <= MOST_NAMED else [i for i in drawn if i == desk.active]
        entries: list[tuple[str | QColor, str]] = [
            (theme.role_color("finetuned", i), f"|τ| {desk.name(i)}") for i in named
        ]
        if others := [i for i in drawn if i not in named]:
            text = self.tr("|τ| {count} others").format(count=len(others))
            entries.append((theme.role_color("finetuned", others[0]), text))
        if figures.has_alignment:
            entries.append(("aligned", "|a| alignment"))
        if figures.n_models and desk.movement is not None:
            entries.append(("merged", f"|merged − {desk.reference_word}|"))
        elif desk.movement_unknown:
            entries.append(("line", self.tr("merged: not known yet")))
        if figures.n_models and self._weighted:
            entries.append(("accent", self.tr("ratio λ(layer) — drag")))
        self.set_legend(entries)

    # The ratio curve.

    def _drag_started(self) -> None:
        self._key = gesture("curve")

    def _dragged(self, changes: dict[int, float]) -> None:
        figures, i = self._desk.figures, self._desk.active
        if figures is None or i < 0:
            return
        columns = figures.grid.columns
        layers = {int(columns[j]): v for j, v in changes.items() if columns[j].isdigit()}
        if layers:
            key = self._key or gesture("curve")
            self._desk.edit(set_layer_ratios(self._desk.recipe, i, layers, key))

    def _drag_finished(self) -> None:
        self._key = ""

    def _reset(self, column: int) -> None:
        figures, i = self._desk.figures, self._desk.active
        if figures is None or i < 0 or not figures.grid.columns[column].isdigit():
            return
        layer = int(figures.grid.columns[column])
        if layer in self._desk.recipe.finetuned[i].layers:
            self._desk.edit(reset_layer_ratios(self._desk.recipe, i, [layer]))
