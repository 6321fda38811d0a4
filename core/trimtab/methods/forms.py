"""Methods that are a linear combination once a few inner products are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.kernels.piece import Array, Measured, Outline, Pass, Piece

Floats = npt.NDArray[np.float64]


def combined(x: Piece, first: float, factors: Sequence[float] | Floats) -> Array:
    """Return first · reference + Σᵢ factorsᵢ τᵢ, with the task vectors summed first."""
    ops = x.ops
    total = ops.zeros_like(x.reference)
    for delta, factor in zip(x.deltas(), factors, strict=True):
        if factor != 0:  # where even 0 · Inf would count
            ops.add_scaled(total, delta, float(factor))
    if first != 1:
        ops.scale(x.reference, first)
    ops.add(total, x.reference)
    return total


def _measure(x: Piece) -> Measured:
    return [x.ops.gram(x.reference, x.models)]


def _measure_changes(x: Piece) -> Measured:
    return [x.ops.gram(x.reference, x.models, changes_only=True)]


def _settle(units: list[Measured], facts: Sequence[Any]) -> Floats:
    total: Floats = np.sum([unit[0] for unit in units], axis=0)
    return total


def gram_pass(outline: Outline, **parameters: Any) -> Sequence[Pass]:
    """One pass: the inner products of [reference, τ₁, …, τₘ], float64 [1 + m, 1 + m]."""
    return (Pass(_measure, _settle, "gram", takes_stored=True),)


def changes_pass(outline: Outline, **parameters: Any) -> Sequence[Pass]:
    """One pass: as `gram_pass`, for methods that do not look at row and column 0."""
    return (Pass(_measure_changes, _settle, "changes", takes_stored=True),)


def absolute(gram: Floats) -> Floats:
    """Return the inner products of the models themselves, [m, m], from those of `gram_pass`."""
    own = gram[0, 0] + gram[0, 1:, None] + gram[None, 0, 1:] + gram[1:, 1:]
    result: Floats = own
    return result


def slerp_factors(
    t: float, norm0: float, norm1: float, dot: float, lerp_above: float
) -> tuple[float, float]:
    """Return the factors of two vectors at `t` of the way along the arc between them.

    Shoemake 1985: sin((1−t)Ω)/sin Ω and sin(tΩ)/sin Ω on the vectors as they are; 1−t and t where
    |cos Ω| exceeds `lerp_above`.
    """
    cosine = dot / (norm0 * norm1) if norm0 > 0 and norm1 > 0 else 0.0
    cosine = min(1.0, max(-1.0, cosine))
    if abs(cosine) > lerp_above:
        return 1.0 - t, t
    omega = np.arccos(cosine)
    return float(np.sin((1 - t) * omega) / np.sin(omega)), float(np.sin(t * omega) / np.sin(omega))
