"""SafeMERGE: mix a safety-tuned model in where a task vector leaves the alignment subspace."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.alignment import cosine, norm, published_projection
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="SafeMERGE (ours: on whole changes)",
    formula="θ = θ_a + w r₁ τ₁ + (1 − w) r₂ τ₂ where cos(C τ₁, τ₁) < c, else θ_a + r₁ τ₁",
    reference="Djuhera et al. 2025, arXiv 2503.17239",
    scope="tensor",
    takes=(2, 2),
    backend="any",
    needs_base=True,
    last="the safety-tuned model",
)
def safemerge(
    x: Piece,
    *,
    threshold: Annotated[
        float, Param("Cosine", "Task vectors with a smaller cosine to their image are mixed.")
    ] = 0.35,
    weight: Annotated[
        float, Param("Fine-tuned's share", "Of the mix; the rest is the safety-tuned model's.")
    ] = 0.8,
) -> Array:
    """Mix the safety-tuned model's change in, where the fine-tuned one's leaves alignment.

    C = a aᵀ/‖a‖_F as in Safe LoRA, a = θ_a − θ_b; each matrix is decided for itself. The authors'
    code adds LoRA factors, which brings in products of one model's A with the other's B; here the
    changes of the weights are added. Djuhera et al. 2025.
    """
    ops = x.ops
    delta, safe = x.deltas()
    ops.scale(delta, x.weights[0])
    ops.scale(safe, x.weights[1])
    if len(x.shape) < 2:
        return delta + x.reference
    square = (-1, *x.shape[-2:])
    stacks = zip(
        ops.double(x.alignment()).reshape(square),
        ops.double(delta).reshape(square),
        ops.double(safe).reshape(square),
        strict=True,
    )
    parts = [_mixed(ops, *matrices, threshold, weight)[None] for matrices in stacks]
    return ops.single(ops.concatenate(parts, 0).reshape(x.shape)) + x.reference


def _mixed(
    ops: Ops, alignment: Array, delta: Array, safe: Array, threshold: float, weight: float
) -> Array:
    if norm(alignment) == 0 or norm(delta) == 0:
        return delta
    if cosine(published_projection(alignment, delta), delta) >= threshold:
        return delta
    return delta * weight + safe * (1 - weight)
