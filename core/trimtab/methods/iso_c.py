"""Iso-C: give the merged change the same strength in all its directions."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.matrices import by_matrix
from trimtab.methods.registry import merge_method
from trimtab.methods.task_vectors import Scale


def _merge(ops: Ops, deltas: Sequence[Array]) -> Array:
    u, s, vt = ops.svd(sum(deltas[1:], deltas[0]))
    return (u @ vt) * s.mean()


@merge_method(
    title="Iso-C",
    formula="τ = λ σ̄ U Vᵀ, U Σ Vᵀ = Σᵢ τᵢ, σ̄ the mean singular value",
    reference="Marczak et al. 2025, arXiv 2502.04959",
    scope="tensor",
    backend="any",
)
def iso_c(x: Piece, *, scale: Scale = 1.0) -> Array:
    """Add up the task vectors and replace all singular values by their mean.

    Of tensors that are no matrices the mean of the changes is taken. Marczak et al. 2025,
    section 4.
    """
    return by_matrix(x, _merge, scale)
