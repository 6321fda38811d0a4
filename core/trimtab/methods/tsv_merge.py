"""TSV-Merge: keep each task's own singular directions and take their interference out."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.matrices import by_matrix, polar
from trimtab.methods.registry import merge_method
from trimtab.methods.task_vectors import Scale


def _merge(ops: Ops, deltas: Sequence[Array]) -> Array:
    rank = min(deltas[0].shape) // len(deltas)
    us, ss, vts = [], [], []
    for delta in deltas:
        u, s, vt = ops.svd(delta)
        us.append(u[:, :rank])
        ss.append(s[:rank])
        vts.append(vt[:rank])
    u, s, vt = ops.concatenate(us, 1), ops.concatenate(ss, 0), ops.concatenate(vts, 0)
    return (polar(ops, u) * s) @ polar(ops, vt)


@merge_method(
    title="TSV-Merge",
    formula="τ = λ U⊥ diag(Σ₁, …, Σ_N) V⊥ᵀ, of each τᵢ the ⌊r/N⌋ largest; M⊥ the polar factor of M",
    reference="Gargiulo et al. 2025, arXiv 2412.00081",
    scope="tensor",
    backend="any",
)
def tsv_merge(x: Piece, *, scale: Scale = 1.0) -> Array:
    """Keep the largest singular directions of each task vector, made orthogonal to each other's.

    Each of N models keeps ⌊min(m, n)/N⌋ directions; the concatenated singular vectors are replaced
    by their polar factors (Procrustes). Of tensors that are no matrices the mean of the changes is
    taken. Gargiulo et al. 2025, algorithm 1.
    """
    return by_matrix(x, _merge, scale, least=len(x.models))
