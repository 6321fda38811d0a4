"""LoX: go further in the strongest directions of alignment, before or after fine-tuning."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.alignment import rank_of
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="LoX (paper)",
    formula="θ = θ_a + c U_k S_k V_kᵀ + Σᵢ rᵢ τᵢ;  U S Vᵀ = a",
    reference="Perin et al. 2025, arXiv 2506.15606",
    scope="tensor",
    takes=(0, None),
    backend="any",
    needs_base=True,
)
def lox(
    x: Piece,
    *,
    rank: Annotated[
        int, Param("k", "Directions that are extrapolated; 0 takes them all.", 0, 65536)
    ] = 6,
    strength: Annotated[
        float, Param("c", "How much further to go, in sizes of alignment itself.", 0.0, 10.0)
    ] = 1.25,
) -> Array:
    """Extrapolate the alignment vector along its k strongest directions.

    a = θ_a − θ_b. Published for the time before fine-tuning, without any fine-tuned model: what
    comes out is the model to fine-tune. Models that are there are added as in task arithmetic,
    which is ours. Of tensors that are no matrices nothing is extrapolated. k = 6 and c = 1.25 are
    the authors' runs. Perin et al. 2025.
    """
    ops = x.ops
    changes = x.deltas()
    total = x.reference
    for delta, weight in zip(changes, x.weights, strict=True):
        total = total + delta * weight
    if len(x.shape) < 2 or strength == 0 or x.base is None:
        return total
    parts = []
    for alignment in ops.double(x.alignment()).reshape(-1, *x.shape[-2:]):
        u, s, vt = ops.svd(alignment)
        k = min(rank or len(s), rank_of(s, alignment.shape))
        parts.append(((u[:, :k] * s[:k]) @ vt[:k])[None])
    further = ops.single(ops.concatenate(parts, 0).reshape(x.shape) * strength)
    return further + total
