"""SCE: select where the models differ most, calculate their shares, erase the minority's sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Measured, Outline, Pass, Piece
from trimtab.methods.ranks import rank_passes
from trimtab.methods.registry import Param, merge_method


def _rows(x: Piece) -> list[Array]:
    return [x.ops.variance(x.deltas())]


def _select(x: Piece, select_topk: float) -> None:
    """Zero the task vectors, already in place of the models, where the variance is not on top."""
    if select_topk >= 1:
        return
    cuts = x.facts[1]
    chosen = x.ops.variance(x.models)
    if cuts:
        cuts[0].keep(x, chosen, "variance")
    else:
        x.ops.scale(chosen, 0.0)
    for delta in x.models:
        x.ops.keep_where(delta, chosen)


def _passes(outline: Outline, *, select_topk: float) -> Sequence[Pass]:
    def wanted(nonzero: Sequence[int]) -> list[tuple[int, int]]:
        k = int(nonzero[0] * select_topk)
        return [(0, k)] if k > 0 else []

    passes = rank_passes(_rows, [0], wanted, count_nonzero=True) if select_topk < 1 else []

    def energies(x: Piece) -> Measured:
        if select_topk >= 1:
            return [np.diag(x.ops.gram(x.reference, x.models, changes_only=True))[1:]]
        x.deltas()
        _select(x, select_topk)
        return [np.array([x.ops.dot(delta, delta) for delta in x.models])]

    def settle(units: list[Measured], facts: Sequence[Any]) -> list[float]:
        total = np.sum([unit[0] for unit in units], axis=0) / max(outline.numel, 1)
        whole = float(total.sum())
        if whole == 0:
            return [1.0 / len(total)] * len(total)
        return [float(share) for share in total / whole]

    return [*passes, Pass(energies, settle, takes_stored=select_topk >= 1)]


@merge_method(
    title="SCE",
    formula="θ = θ_ref + Σᵢ ηᵢ mᵢ τ̂ᵢ / Σᵢ ηᵢ mᵢ, ηᵢ = |τ̂ᵢ|² / Σⱼ|τ̂ⱼ|², τ̂ keeps the top "
    "of the variance",
    reference="Wan et al. 2024, arXiv 2408.07990",
    scope="element",
    weighted=False,
    passes=_passes,
    backend="any",
)
def sce(
    x: Piece,
    *,
    select_topk: Annotated[
        float,
        Param("Selected share", "Share of the entries, those where the models differ most."),
    ] = 1.0,
) -> Array:
    """Weigh the models by the size of their changes, where they differ most and signs agree.

    Shares and selection are per tensor. Wan et al. 2024, section 3.3. mergekit gives all models
    the same share where the mean squares add up to less than 1e-6: in most fine-tuned models.
    """
    deltas = x.deltas()
    _select(x, select_topk)
    shares = x.facts[-1]
    return x.ops.elect(x.reference, deltas, shares, shares, True, 1.0, plain_vote=True)
