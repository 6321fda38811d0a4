"""Dense float64 TSV-M, Iso-C and Iso-CTS, from their papers and numpy's SVD.

Tensors with more than two axes are stacks of matrices in their last two (experts, say), each for
itself; those with fewer are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def polar(a: Array) -> Array:
    """The orthogonal factor of a: its nearest matrix with orthonormal columns (or rows)."""
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    return np.asarray(u @ vt)


def by_matrix(deltas: Sequence[Array], update: Callable[[Sequence[Array]], Array]) -> Array:
    if deltas[0].ndim < 2:
        return np.asarray(sum(deltas) / len(deltas))
    out = np.zeros(deltas[0].shape)
    for at in np.ndindex(*deltas[0].shape[:-2]):
        out[at] = update([d[at] for d in deltas])
    return out


def tsv_update(deltas: Sequence[Array]) -> Array:
    """TSV-M (Gargiulo et al. 2025): min(shape)//N directions per task, made orthogonal together."""
    k = min(deltas[0].shape) // len(deltas)
    left, values, right = [], [], []
    for delta in deltas:
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        left.append(u[:, :k])
        values.append(s[:k])
        right.append(vt[:k])
    u_perp, v_perp = polar(np.hstack(left)), polar(np.vstack(right))
    return np.asarray(u_perp @ np.diag(np.concatenate(values)) @ v_perp)


def iso_c_update(deltas: Sequence[Array]) -> Array:
    """Iso-C (Marczak et al. 2025): the sum, with every singular value at their mean."""
    u, s, vt = np.linalg.svd(sum(deltas), full_matrices=False)
    return np.asarray(s.mean() * (u @ vt))


def iso_cts_update(deltas: Sequence[Array], common_fraction: float) -> Array:
    """Iso-CTS: the sum's leading directions, then each task's own outside of them, all as strong.

    The common part is made larger or smaller until the rest divides among the tasks, to whichever
    is nearer, as the authors do.
    """
    rank, tasks = min(deltas[0].shape), len(deltas)
    own = round((rank - int(rank * common_fraction)) / tasks)
    common = rank - own * tasks
    u, s, vt = np.linalg.svd(sum(deltas), full_matrices=False)
    u, s, vt = u[:, :common], s[:common], vt[:common]
    left, values, right = [u], [s], [vt]
    for delta in deltas:
        rest_u, rest_s, rest_vt = np.linalg.svd(delta - u @ u.T @ delta, full_matrices=False)
        left.append(rest_u[:, :own])
        values.append(rest_s[:own])
        right.append(rest_vt[:own])
    mean = np.concatenate(values).mean()
    return np.asarray(mean * polar(np.hstack(left)) @ polar(np.vstack(right)))
