"""Safety Arithmetic's part on weights: take the strongest of a harmful change out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.registry import Param, merge_method
from trimtab.methods.sparsify import Largest


def _harmful(share: float, count: int) -> Largest:
    return Largest((*[1.0] * (count - 1), share))


def _passes(outline: Outline, *, strength: float, share: float) -> Sequence[Pass]:
    return _harmful(share, outline.n_models).passes(outline)


@merge_method(
    title="Safety Arithmetic, weights (paper)",
    formula="θ = θ_ref + Σᵢ rᵢ τᵢ − λ r_h TopK(τ_h)",
    reference="Hazra et al. 2024, arXiv 2406.11801",
    scope="element",
    takes=(2, None),
    passes=_passes,
    backend="any",
    last="the harmful model",
)
def safety_arithmetic(
    x: Piece,
    *,
    strength: Annotated[
        float, Param("λ", "How much of the harmful change is taken out.", 0.0, 10.0)
    ] = 3.0,
    share: Annotated[
        float, Param("K", "Share of the harmful change, by magnitude, that counts.")
    ] = 0.1,
) -> Array:
    """Subtract the largest entries of a harmful model's task vector: harm direction removal.

    The last model is the harmful one, fine-tuned from the reference on harmful examples. Its
    largest entries are found in each tensor by itself; the authors look at all parameters
    together. Their second part, a shift of activations while the model runs, is no change of
    weights and is not here. Hazra et al. 2024.
    """
    ops = x.ops
    deltas = x.deltas()
    _harmful(share, len(deltas)).apply(x, len(deltas) - 1, deltas[-1])
    total = ops.zeros_like(x.reference)
    for delta, weight in zip(deltas[:-1], x.weights[:-1], strict=True):
        ops.add_scaled(total, delta, weight)
    ops.add_scaled(total, deltas[-1], -strength * x.weights[-1])
    ops.add(total, x.reference)
    return total
