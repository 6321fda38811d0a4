"""Methods that work on the singular vectors of whole matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.kernels.piece import Array, Ops, Piece

#: f(ops, task vectors as [m, n] matrices) -> merged task vector [m, n]
MergeMatrices = Callable[[Ops, Sequence[Array]], Array]


def polar(ops: Ops, matrix: Array) -> Array:
    """Return the nearest matrix with orthonormal columns: U Vᵀ of the singular decomposition."""
    u, _, vt = ops.svd(matrix)
    return u @ vt


def by_matrix(x: Piece, merge: MergeMatrices, scale: float, least: int = 1) -> Array:
    """Merge each matrix of the tensor (its last two axes), and take the mean of what is none.

    The task vectors are multiplied by their models' weights first, and merged in float64. Matrices
    with fewer than `least` rows or columns count as none.
    """
    ops = x.ops
    deltas = x.deltas()
    for delta, weight in zip(deltas, x.weights, strict=True):
        ops.scale(delta, weight)
    if len(x.shape) < 2 or min(x.shape[-2:]) < least:
        mixed = sum(deltas[1:], deltas[0]) / len(deltas)
    else:
        stacks = [ops.double(delta).reshape(-1, *x.shape[-2:]) for delta in deltas]
        parts = [merge(ops, [stack[i] for stack in stacks]) for i in range(len(stacks[0]))]
        mixed = ops.single(ops.concatenate([part[None] for part in parts], 0).reshape(x.shape))
    if scale != 1:
        mixed = mixed * scale
    return mixed + x.reference
