"""Dense float64 versions of the methods that go by alignment or a harmful model.

Every function takes (base, aligned, models, ratios) as float64 arrays of one shape and returns the
merged array. Projections are built as explicit matrices here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def angle_cosine(x: Array, y: Array) -> float:
    """cos of the angle between two matrices as vectors."""
    a, b = x.ravel(), y.ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def each_matrix(tensors: Sequence[Array], update: Callable[..., Array]) -> Array:
    """Apply to every matrix of a stack."""
    out = np.empty_like(tensors[0])
    for at in np.ndindex(*tensors[0].shape[:-2]):
        out[at] = update(*(t[at] for t in tensors))
    return out


def published(v: Array) -> Array:
    """The matrix that Safe LoRA calls its projector, [m, m]."""
    return np.asarray(v @ v.T / np.sqrt(np.trace(v.T @ v)))


def projector(v: Array, k: int) -> Array:
    """The orthogonal projector on the k directions that v stretches most: eigenvectors of v vᵀ."""
    _, vectors = np.linalg.eigh(v @ v.T)
    top = vectors[:, ::-1][:, :k]
    return np.asarray(top @ top.T)


def least_rank(v: Array, energy: float) -> int:
    """The number of directions that hold this share of Σσ²."""
    values = np.sort(np.clip(np.linalg.eigvalsh(v @ v.T), 0, None))[::-1]
    held = np.cumsum(values) / values.sum()
    return int(np.argmax(held >= energy - 1e-12)) + 1


def replaced_below(matrix: Callable[[Array], Array], threshold: float) -> Callable[..., Array]:
    """C τ where cos(C τ, τ) is at most the threshold, else τ."""

    def update(v: Array, tau: Array) -> Array:
        image = matrix(v) @ tau
        return image if angle_cosine(image, tau) <= threshold else tau

    return update


def summed(
    base: Array, aligned: Array, models: Sequence[Array], ratios: Sequence[float],
    update: Callable[..., Array],
) -> Array:  # fmt: skip
    """Aligned plus the weighted sum of what becomes of each task vector."""
    out = aligned.copy()
    for model, ratio in zip(models, ratios, strict=True):
        tau = model - aligned
        changed = each_matrix([aligned - base, tau], update) if tau.ndim > 1 else tau
        out = out + ratio * changed
    return out


def top_share(tau: Array, share: float) -> Array:
    """The ⌊share · n⌋ entries of largest magnitude, one at least, the first of equals first."""
    k = max(1, int(share * tau.size))
    order = np.argsort(-np.abs(tau.ravel()), kind="stable")
    out = np.zeros(tau.size)
    out[order[:k]] = tau.ravel()[order[:k]]
    return out.reshape(tau.shape)


def arc_between(u: Array, v: Array, t: float) -> Array:
    """From u at t = 0 to v at t = 1 along the arc; by rotation in the plane of the two."""
    cos = angle_cosine(u, v)
    if abs(cos) > 0.9995:
        return np.asarray((1 - t) * u + t * v)
    omega = np.arccos(cos)
    return np.asarray((np.sin((1 - t) * omega) * u + np.sin(t * omega) * v) / np.sin(omega))
