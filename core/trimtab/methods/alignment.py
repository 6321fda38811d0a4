"""What methods that go by the alignment vector have in common: each matrix beside its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.registry import Param

#: f(ops, alignment vector [m, n], task vector [m, n]) -> what becomes of the task vector [m, n]
Change = Callable[[Ops, Array, Array], Array]

Energy = Annotated[
    float,
    Param("Energy of a", "The subspace holds this share of the alignment vector's energy."),
]
#: below this share of the largest, a singular value of float64 is taken for none
_NONE = 2.3e-16


def norm(values: Array) -> float:
    """Return the Euclidean norm of all entries; values in float64."""
    return math.sqrt(float((values * values).sum()))


def cosine(left: Array, right: Array) -> float:
    """Return the cosine of the angle between two arrays as vectors; 0 where one is zero."""
    length = norm(left) * norm(right)
    return float((left * right).sum()) / length if length > 0 else 0.0


def published_projection(alignment: Array, delta: Array) -> Array:
    """Return C Δ with C = V Vᵀ / ‖V‖_F, which is no projector; V must not be zero.

    Hsu et al. 2024, arXiv 2405.16833.
    """
    return alignment @ (alignment.T @ delta) / norm(alignment)


def rank_of(s: Array, shape: tuple[int, ...]) -> int:
    """Return how many of the singular values, largest first, of a matrix [m, n] are not none."""
    return int((s > float(s[0]) * max(shape) * _NONE).sum())


def energy_rank(s: Array, energy: float, shape: tuple[int, ...]) -> int:
    """Return the least k with Σ_{i≤k} σᵢ² ≥ energy · Σ σᵢ²; at least 1, no singular value none."""
    squares = s * s
    below = int((squares.cumsum(0) < energy * float(squares.sum())).sum())
    return min(below + 1, rank_of(s, shape))


def leading(ops: Ops, alignment: Array, energy: float) -> Array:
    """Return the leading left singular vectors [m, k] that hold so much of a matrix's energy."""
    u, s, _ = ops.svd(alignment)
    return u[:, : energy_rank(s, energy, alignment.shape)]


def each_changed(x: Piece, change: Change) -> list[Array]:
    """Return what `change` makes of each model's task vector, matrix by matrix, in float64.

    Tensors with more than two axes are stacks of matrices. A matrix that alignment left as it was,
    and what is no matrix, keeps its task vector: there is no direction to go by.
    """
    ops = x.ops
    deltas = [ops.double(delta) for delta in x.deltas()]
    if len(x.shape) < 2:
        return deltas
    stacks = ops.double(x.alignment()).reshape(-1, *x.shape[-2:])
    for i, delta in enumerate(deltas):
        parts = [
            change(ops, a, d) if norm(a) > 0 and norm(d) > 0 else d
            for a, d in zip(stacks, delta.reshape(-1, *x.shape[-2:]), strict=True)
        ]
        deltas[i] = ops.concatenate([part[None] for part in parts], 0).reshape(x.shape)
    return deltas


def added_to_reference(x: Piece, deltas: list[Array], scale: float = 1.0) -> Array:
    """Return θ_ref + λ Σᵢ rᵢ Δᵢ of float64 changes, rounded to float32 once before the sum."""
    total = deltas[0] * (scale * x.weights[0])
    for delta, weight in zip(deltas[1:], x.weights[1:], strict=True):
        total = total + delta * (scale * weight)
    return x.ops.single(total) + x.reference
