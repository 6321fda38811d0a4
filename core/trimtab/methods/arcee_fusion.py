"""Arcee Fusion: take the changes that matter, by size and by what they do to a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.ranks import rank_passes
from trimtab.methods.registry import merge_method

_QUANTILES = (0.25, 0.5, 0.75)


def _softmax(x: Piece, rows: Array) -> Array:
    grown = x.ops.exp(rows - x.ops.row_max(rows))
    return grown / grown.sum(-1, keepdims=True) + 1e-8


def _importance(x: Piece) -> Array:
    """|τ| times the Kullback-Leibler divergence of its row; the model keeps its values.

    In float64: of two rows that are nearly alike the divergence is what cancellation leaves.
    """
    own, other = (x.ops.double(v).reshape(-1, x.width) for v in (x.reference, x.models[0]))
    p, q = _softmax(x, other), _softmax(x, own)
    divergence = (p * x.ops.log(p / q)).sum(-1, keepdims=True)
    return x.ops.single((abs(other - own) * divergence).reshape(x.reference.shape))


def _passes(outline: Outline) -> Sequence[Pass]:
    # the element at place i of the ascending order is the (n − i)-th largest
    places = [outline.numel - int(q * (outline.numel - 1)) for q in _QUANTILES]
    return rank_passes(lambda x: [_importance(x)], [0], lambda nonzero: [(0, k) for k in places])


@merge_method(
    title="Arcee Fusion",
    formula="θ = θ_ref + [I ≥ median(I) + 1.5 IQR(I)] ⊙ τ, I = |τ| · KL(softmax θ₁ ‖ softmax "
    "θ_ref) per row",
    reference="Arcee AI 2025, as in mergekit; no paper",
    scope="row",
    takes=(1, 1),
    weighted=False,
    passes=_passes,
    backend="any",
)
def arcee_fusion(x: Piece) -> Array:
    """Take a model's most important changes whole and leave the rest.

    The quartiles are exact, over the whole tensor; mergekit draws a sample of a million.
    """
    quarter, median, three = (cut.threshold for cut in x.facts[1])
    return fused(x, median + 1.5 * (three - quarter))


def fused(x: Piece, threshold: float) -> Array:
    """Return the reference with the changes whose importance reaches the threshold."""
    important = _importance(x) >= threshold
    delta: Any = x.deltas()[0]
    merged = x.ops.where(important, delta, delta * 0)
    x.ops.add(merged, x.reference)
    return merged
