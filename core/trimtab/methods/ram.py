"""RAM: add what one model alone has changed, average what several have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Measured, Outline, Pass, Piece
from trimtab.methods.registry import Param, merge_method

Epsilon = Annotated[float, Param("ε", "Changes up to this size count as none.", 0.0, 1.0)]


def _changed(x: Piece, epsilon: float) -> tuple[list[Array], Array]:
    """Return for each model where it has changed, and how many have, as float32."""
    marks = [abs(delta) > epsilon for delta in x.deltas()]
    count = x.ops.zeros_like(x.reference)
    for mark in marks:
        count += mark
    return marks, count


def _add(x: Piece, marks: Sequence[Array], count: Array, boost: Sequence[float]) -> Array:
    ops = x.ops
    total = ops.zeros_like(x.reference)
    shared = count.clip(1.0, None)
    for delta, mark, factor in zip(x.models, marks, boost, strict=True):
        share = ops.where(count == 1, total * 0 + factor, 1.0 / shared)
        ops.add(total, ops.where(mark, delta * share, delta * 0))
    ops.add(total, x.reference)
    return total


@merge_method(
    title="RAM",
    formula="θ = θ_ref + Σᵢ mᵢ τᵢ / Σⱼ mⱼ, mᵢ = [|τᵢ| > ε]",
    reference="Reinforced Agent Merging 2026, arXiv 2601.13572",
    scope="element",
    weighted=False,
    backend="any",
)
def ram(x: Piece, *, epsilon: Epsilon = 1e-5) -> Array:
    """Add the changes that one model alone has made, and average those of several.

    Entry by entry, over the models that have changed it. arXiv 2601.13572, section 4.
    """
    marks, count = _changed(x, epsilon)
    return _add(x, marks, count, [1.0] * len(marks))


def _passes(outline: Outline, *, epsilon: float, r: float, alpha: float) -> Sequence[Pass]:
    def measure(x: Piece) -> Measured:
        marks, count = _changed(x, epsilon)
        shared = [int((mark & (count > 1)).sum()) for mark in marks]
        alone = [int((mark & (count == 1)).sum()) for mark in marks]
        return [np.array([shared, alone], dtype=np.int64)]

    def settle(units: list[Measured], facts: Sequence[Any]) -> list[float]:
        shared, alone = np.sum([unit[0] for unit in units], axis=0)
        overlap = shared / np.clip(alone, epsilon, None)
        return [float(1 + r * rho) for rho in np.clip(overlap, 0.0, alpha)]

    return [Pass(measure, settle)]


@merge_method(
    title="RAM+, tensor-local",
    formula="θ = θ_ref + Σᵢ λᵢ mᵢ τᵢ where i alone has changed it, else the mean of the changes; "
    "λᵢ = 1 + r min(α, shared/alone)",
    reference="Reinforced Agent Merging 2026, arXiv 2601.13572",
    scope="element",
    weighted=False,
    passes=_passes,
    backend="any",
)
def ramplus_tl(
    x: Piece,
    *,
    r: Annotated[float, Param("r", "How much the changes of one model gain.", 0.0, 10.0)] = 0.1,
    alpha: Annotated[float, Param("α", "Bound of the overlap that counts.", 0.0, 10.0)] = 0.2,
    epsilon: Epsilon = 1e-5,
) -> Array:
    """Like RAM, and a model's own changes gain by how many of its changes are shared.

    The overlap is counted in each tensor. arXiv 2601.13572, section 4.
    """
    marks, count = _changed(x, epsilon)
    return _add(x, marks, count, x.facts[0])
