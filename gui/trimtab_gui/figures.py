"""The numbers that the window draws, from the inspection's inner products alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Grid, Lineup
from trimtab.inspection.metrics import BY_ID, merged_rollback, merged_shift
from trimtab.inspection.result import Inspection
from trimtab.merging.recipe import Recipe

Floats = npt.NDArray[np.float64]
SHIFT = "shift"


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
        self.grid: Grid = lineup.grid
        self.tensors = inspection
        self.groups = inspection.grouped(self.grid)
        self.n_models = len(inspection.finetuned)
        self.has_alignment = inspection.has_alignment
        self._columns = len(self.grid.columns)
        self._has_a = ~np.isnan(self.groups.gram[:, 0, 0])

    def coefficients(self, recipe: Recipe) -> Floats:
        """Return the c [groups, models] of merged = reference + Σ cᵢ τᵢ.

        Raises `UserError` when the method cannot take the ratios.
        """
        return recipe.coefficients(self.grid.layers, self.grid.modules)

    def values(self, metric: str, model: int, coefficients: Floats | None) -> Floats:
        """Return a metric per group; `SHIFT` needs the coefficients."""
        if metric == SHIFT:
            assert coefficients is not None
            return merged_shift(self.groups, coefficients)
        return BY_ID[metric].compute(self.groups, model)

    def shift(self, coefficients: Floats) -> Floats:
        """|merged − reference| per group."""
        return merged_shift(self.groups, coefficients)

    def rollback(self, coefficients: Floats) -> Floats:
        """Share of the alignment vector that the merged model takes back, per group."""
        return merged_rollback(self.groups, coefficients)

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

    def totals(self, coefficients: Floats, model: int) -> Totals:
        """Return the shares over all groups."""
        gram = self.groups.gram
        moved = rollback = kept = float("nan")
        rows = self._has_a
        length = float(gram[rows, 0, 0].sum()) if self.has_alignment else 0.0
        if length > 0:
            shift = self.shift(coefficients)[rows]
            moved = float(np.sqrt((shift**2).sum() / length))
            rollback = float(-np.einsum("ni,ni->", coefficients[rows], gram[rows, 0, 1:]) / length)
        if self.n_models:
            rows = ~self.groups.not_numbers
            own = gram[rows, 1:, model + 1]
            length = float(own[:, model].sum())
            if length > 0:
                kept = float(np.einsum("ni,ni->", coefficients[rows], own) / length)
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
            norm2=source.norm2[rows],
            numel=source.numel[rows],
            conflicts=source.conflicts[rows],
            zeros=source.zeros[rows],
            non_finite=source.non_finite[rows],
        ).total()
