"""The numbers that the window draws, from the inspection's inner products alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Grid, Lineup
from trimtab.inspection.metrics import BY_ID
from trimtab.inspection.result import Inspection
from trimtab.merging.recipe import Recipe
from trimtab_gui.movement import Movement, built_in, knowable, of_coefficients, of_plan, stacked

Floats = npt.NDArray[np.float64]
SHIFT = "shift"
#: tensors whose plan is made while the hand moves; of more it is made beside the event loop
_MOST_AT_ONCE = 500


@dataclass(frozen=True)
class Totals:
    """Shares of the whole model; nan where they cannot be computed.

    Over the tensors that have an alignment vector, `moved` is |merged − ref| / |a| and `rollback`
    −⟨merged − ref, a⟩ / |a|²; `kept` is ⟨merged − ref, τ⟩ / |τ|² of one fine-tuned model.
    """

    moved: float
    rollback: float
    kept: float


class Figures:
    """All that can be drawn of one inspected lineup, for any ratios, without another read.

    Values per group are float64 [groups], per column float64 [columns].
    """

    def __init__(self, lineup: Lineup, inspection: Inspection) -> None:
        self._lineup = lineup
        self.grid: Grid = lineup.grid
        self.tensors = inspection
        self.groups = inspection.grouped(self.grid)
        self.n_models = len(inspection.finetuned)
        self.has_alignment = inspection.has_alignment
        self._columns = len(self.grid.columns)
        self._has_a = ~np.isnan(self.groups.gram[:, 0, 0])

    def instant(self, recipe: Recipe) -> bool:
        """Whether `movement` answers within a frame or two."""
        small = len(self._lineup.names) <= _MOST_AT_ONCE
        method = built_in(recipe.method)
        linear = method is not None and method.coefficients is not None
        return small or not knowable(recipe) or (linear and not recipe.depends_on_names)

    def movement(self, recipe: Recipe) -> Movement | None:
        """Return how far the merge will move each group, None where only the merge can tell.

        Raises `UserError` when the method cannot take the ratios or the models.
        """
        method = built_in(recipe.method)
        if method is None or stacked(recipe):
            return None
        if not recipe.depends_on_names:
            c = recipe.coefficients(self.grid.layers, self.grid.modules)
            if c is not None:
                return of_coefficients(self.groups, c)
        if not knowable(recipe):
            return None
        return of_plan(recipe, self._lineup, self.tensors)

    def alone(self, model: int) -> Movement:
        """Return the movement that takes one fine-tuned model as it is."""
        c = np.zeros((self.grid.n_groups, self.n_models))
        c[:, model] = 1.0
        return of_coefficients(self.groups, c)

    def values(self, metric: str, model: int, movement: Movement | None) -> Floats:
        """Return a metric per group; `SHIFT` needs the movement."""
        if metric == SHIFT:
            assert movement is not None
            return movement.shift
        return BY_ID[metric].compute(self.groups, model)

    def by_column(self, values: Floats) -> Floats:
        """Return √Σ values² over each column's groups: a norm per layer; nan counts as nothing."""
        sums = np.zeros(self._columns)
        np.add.at(sums, self.grid.column_of, np.nan_to_num(values) ** 2)
        return np.sqrt(sums)

    def tau_curve(self, model: int) -> Floats:
        """|τ| of one fine-tuned model per column."""
        return self.by_column(np.sqrt(self.groups.gram[:, model + 1, model + 1]))

    def alignment_curve(self) -> Floats:
        """|a| per column."""
        return self.by_column(np.sqrt(self.groups.gram[:, 0, 0]))

    def totals(self, movement: Movement, model: int) -> Totals:
        """Return the shares over all groups."""
        gram = self.groups.gram
        moved = rollback = kept = float("nan")
        rows = self._has_a
        length = float(gram[rows, 0, 0].sum()) if self.has_alignment else 0.0
        if length > 0:
            moved = float(np.sqrt(np.maximum(movement.length2[rows], 0.0).sum() / length))
            rollback = float(-movement.along_a[rows].sum() / length)
        if self.n_models:
            rows = ~self.groups.not_numbers
            length = float(gram[rows, model + 1, model + 1].sum())
            if length > 0:
                kept = float(movement.along_tau[rows, model].sum() / length)
        return Totals(moved, rollback, kept)

    def subset(self, groups: tuple[int, ...]) -> Inspection:
        """Add up some groups to one row; groups without an alignment vector add nothing to a."""
        rows = list(groups)
        source = self.groups
        return Inspection(
            names=("selection",),
            finetuned=source.finetuned,
            has_alignment=source.has_alignment,
            gram=source.gram[rows],
            ref_dots=source.ref_dots[rows],
            norm2=source.norm2[rows],
            numel=source.numel[rows],
            conflicts=source.conflicts[rows],
            zeros=source.zeros[rows],
            non_finite=source.non_finite[rows],
        ).total()
