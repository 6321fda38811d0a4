"""How far a merge will move each tensor, from inner products alone, where that can be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup, Source
from trimtab.inspection.result import Inspection
from trimtab.merging.plan import PlannedTensor
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Recipe
from trimtab.methods import MergeMethod, methods

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: what a method does that keeps its result from being known beforehand
_WHY_UNKNOWN = {
    "alignment_subspace": "projects each matrix",
    "arcee_fusion": "takes only the most important changes",
    "breadcrumbs": "drops the largest and smallest entries",
    "breadcrumbs_ties": "elects signs entry by entry",
    "dare_linear": "drops entries at random",
    "dare_ties": "drops entries at random",
    "della": "drops entries at random",
    "della_linear": "drops entries at random",
    "iso_c": "replaces singular values",
    "iso_cts": "replaces singular values",
    "lox": "goes along singular vectors of the alignment",
    "model_stock": "takes an angle for each row",
    "nearswap": "clips each change",
    "nuslerp": "takes an angle for each row",
    "ram": "averages where changes overlap",
    "ramplus_tl": "averages where changes overlap",
    "safe_lora": "decides matrix by matrix",
    "safe_lora_projector": "decides matrix by matrix",
    "safemerge": "decides matrix by matrix",
    "safety_arithmetic": "takes the largest harmful changes out",
    "sce": "selects and weighs entries",
    "ties": "elects signs entry by entry",
    "tsv_merge": "cuts singular values off",
}


@dataclass(frozen=True)
class Movement:
    """d = merged − reference in each group of the grid.

    `length2` float64 [groups] is |d|², `along_a` [groups] ⟨d, a⟩ (nan without alignment vector),
    `along_tau` [groups, models] ⟨d, τᵢ⟩; `taking_part` bool [models].
    """

    length2: Floats
    along_a: Floats
    along_tau: Floats
    taking_part: Flags

    @property
    def shift(self) -> Floats:
        """|merged − reference| per group, float64 [groups]."""
        result: Floats = np.sqrt(np.maximum(self.length2, 0.0))
        return result


def of_coefficients(sums: Inspection, c: Floats) -> Movement:
    """Return the movement Σ cᵢ τᵢ of each row of `sums`; c is float64 [n, m]."""
    gram = sums.gram
    return Movement(
        np.einsum("ni,nij,nj->n", c, gram[:, 1:, 1:], c),
        np.einsum("ni,ni->n", c, gram[:, 0, 1:]),
        np.einsum("ni,nij->nj", c, gram[:, 1:, 1:]),
        np.asarray(c.any(axis=0)),
    )


def built_in(name: str) -> MergeMethod | None:
    """Return a method of this process; other packages' are imported in the worker only."""
    return next((method for method in methods() if method.name == name), None)


def knowable(recipe: Recipe) -> bool:
    """Whether inner products may tell what the merge moves, going by method and recipe alone."""
    method = built_in(recipe.method)
    return bool(method and method.form and not stacked(recipe) and recipe.tokenizer is None)


def stacked(recipe: Recipe) -> bool:
    """Whether the output's layers are put together from slices."""
    return bool(recipe.slices or any(tower.slices for tower in recipe.towers.values()))


def why_unknown(recipe: Recipe, title: str) -> str:
    """Return in one sentence why the merge's movement is not known before it is made."""
    if any(model.masked for model in recipe.finetuned):
        return "Masks decide entry by entry: what moves is known when it is merged."
    if stacked(recipe):
        return "Layers are stacked anew: what moves is known when it is merged."
    if recipe.tokenizer is not None:
        return "Tokens are put together anew: what moves is known when it is merged."
    does = _WHY_UNKNOWN.get(recipe.method, "decides entry by entry")
    return f"{title} {does}: what it moves is known when it is merged."


def of_plan(recipe: Recipe, lineup: Lineup, inspection: Inspection) -> Movement | None:
    """Return the movement of a merge that is linear once inner products are known, else None.

    Each tensor's weights and parameters are those of the plan. Raises `UserError` as `plan_merge`
    and the method do.
    """
    plan = plan_merge(recipe, lineup)
    row_of = {name: row for row, name in enumerate(lineup.names)}
    position = {member.name: i for i, member in enumerate(lineup.finetuned)}
    n, m = len(lineup.names), len(lineup.finetuned)
    first, c = np.zeros(n), np.zeros((n, m))
    for tensor in plan.tensors:
        row = row_of.get(tensor.name)
        found = None if row is None else _factors(
            plan.method, tensor, inspection, row, position, lineup
        )  # fmt: skip
        if row is None or found is None:
            return None
        first[row], c[row] = found
    return _grouped(inspection, lineup, first, c)


def _factors(
    method: MergeMethod,
    tensor: PlannedTensor,
    inspection: Inspection,
    row: int,
    position: Mapping[str, int],
    lineup: Lineup,
) -> tuple[float, Floats] | None:
    """Return e and c of d = e · reference + Σ cᵢ τᵢ for one tensor."""
    c = np.zeros(len(position))
    if not tensor.models:  # carried over from one model as it is
        if tensor.origin.checkpoint is lineup.reference.checkpoint and not tensor.origin.change:
            return 0.0, c
        owner = _owner(tensor.origin, lineup)
        if owner is None:
            return None
        c[owner] = 1.0
        return 0.0, c
    if method.form is None or tensor.masks:
        return None
    models = [position[name] for name in tensor.model_names]
    found = method.form(inspection.gram_of(row, models), tensor.ratios, **tensor.parameters)
    if found is None:
        return None
    np.add.at(c, models, found[1])
    return found[0] - 1.0, c


def _owner(source: Source, lineup: Lineup) -> int | None:
    for i, member in enumerate(lineup.finetuned):
        own = member.adapter or member.checkpoint
        if own is (source.adapter or source.checkpoint):
            return i
    return None


def _grouped(inspection: Inspection, lineup: Lineup, e: Floats, c: Floats) -> Movement:
    gram, dots = inspection.gram, inspection.ref_dots
    plain = of_coefficients(inspection, c)
    # 0 · nan counts for nothing where the reference itself is not moved
    scaled = e != 0
    length2, along_a, along_tau = plain.length2, plain.along_a, plain.along_tau
    if scaled.any():
        cross = np.einsum("ni,ni->n", c, dots[:, 1:])
        own = e * e * inspection.norm2 + 2.0 * e * cross
        length2 = np.where(scaled, own + length2, length2)
        along_a = np.where(scaled, e * dots[:, 0] + along_a, along_a)
        along_tau = np.where(scaled[:, None], e[:, None] * dots[:, 1:] + along_tau, along_tau)
    grid = lineup.grid
    numbers = ~inspection.not_numbers
    with_a = ~(np.isnan(gram[:, 0, 0]) & (inspection.non_finite.sum(axis=1) == 0))

    def add(values: Floats, counted: Flags) -> Floats:
        out = np.zeros((grid.n_groups, *values.shape[1:]))
        np.add.at(out, grid.group_of[counted], values[counted])
        empty = np.ones(grid.n_groups, dtype=np.bool_)
        empty[grid.group_of[counted]] = False
        out[empty] = np.nan
        return out

    return Movement(
        add(length2, numbers), add(along_a, with_a), add(along_tau, numbers), plain.taking_part
    )
