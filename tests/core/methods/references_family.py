"""The family ref + scale · Σ wi·mi·S(δi) in dense float64: masks, votes and divisors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from references_inputs import Array, Inputs, Mask, PerModel
from references_random import bernoulli

# Which entries of one task vector stay, and with what factor.


def by_magnitude(delta: Array) -> npt.NDArray[np.intp]:
    """Flat indices from the largest |δ| to the smallest, equal ones by index."""
    return np.argsort(-np.abs(delta.ravel()), kind="stable")


def keep_top(delta: Array, density: float) -> Mask:
    """TIES: the int(density·n) largest, at least one; none at density 0."""
    if density >= 1:
        return np.ones(delta.shape, bool)
    mask = np.zeros(delta.size, bool)
    if density > 0:
        mask[by_magnitude(delta)[: max(1, int(density * delta.size))]] = True
    return mask.reshape(delta.shape)


def keep_middle(delta: Array, density: float, gamma: float) -> Mask:
    """Model Breadcrumbs: neither the largest int(γ·n) nor the smallest; int(density·n) stay."""
    if density >= 1:
        return np.ones(delta.shape, bool)
    stay = int(density * delta.size)
    top = min(int(gamma * delta.size), delta.size - stay)
    mask = np.zeros(delta.size, bool)
    mask[by_magnitude(delta)[top : top + stay]] = True
    return mask.reshape(delta.shape)


def keep_probability(delta: Array, density: float, epsilon: float) -> Array:
    """DELLA: p rises with the rank of |δ| in its row, from density - ε to density + ε."""
    if delta.size == 0:
        return np.zeros(delta.shape)
    row = delta.shape[-1] if delta.ndim else 1
    order = np.argsort(np.abs(delta.reshape(-1, row)), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    p = density - epsilon + 2 * epsilon * rank / max(row - 1, 1)
    return np.asarray(p.reshape(delta.shape))


def rescaled(delta: Array, mask: Mask, probability: Array | float, rescale: str) -> Array:
    kept = np.where(mask, delta, 0.0)
    if rescale == "density":
        return kept / np.where(mask, probability, 1.0)
    if rescale == "l1" and np.any(kept):
        return np.asarray(kept * (np.abs(delta).sum() / np.abs(kept).sum()))
    return kept


def combine(
    inputs: Inputs, sparse: Sequence[Array], consensus: bool, normalize: bool, scale: float
) -> Array:
    """ref + scale · Σ wi·mi·S(δi), divided by Σ wi·mi if asked."""
    votes = [w * s for w, s in zip(inputs.weights, sparse, strict=True)]
    zero = np.zeros(inputs.reference.shape)
    majority = np.where(sum(votes, zero) >= 0, 1.0, -1.0)
    total, weight = zero.copy(), zero.copy()
    for w, vote in zip(inputs.weights, votes, strict=True):
        kept = np.sign(vote) == majority if consensus else np.ones(zero.shape, bool)
        total = total + np.where(kept, vote, 0.0)
        weight = weight + w * kept
    if normalize:
        small = weight == 0 if consensus else np.abs(weight) < 1e-8
        total = total / np.where(small, 1.0, weight)
    return np.asarray(inputs.base + scale * total)


def task_arithmetic(inputs: Inputs, scale: float = 1.0) -> Array:
    return combine(inputs, inputs.deltas, consensus=False, normalize=False, scale=scale)


def ties(
    inputs: Inputs,
    density: PerModel = 0.2,
    normalize: bool = True,
    scale: float = 1.0,
    rescale: str = "none",
) -> Array:
    sparse = [
        rescaled(delta, keep_top(delta, d), d, rescale)
        for delta, d in zip(inputs.deltas, inputs.each(density), strict=True)
    ]
    return combine(inputs, sparse, consensus=True, normalize=normalize, scale=scale)


def dare(consensus: bool) -> Callable[..., Array]:
    def method(
        inputs: Inputs,
        density: PerModel = 0.5,
        rescale: str = "density",
        normalize: bool = False,
        scale: float = 1.0,
    ) -> Array:
        sparse = []
        for delta, d, key in zip(inputs.deltas, inputs.each(density), inputs.keys, strict=True):
            mask = bernoulli(d, delta.size, key).reshape(delta.shape)
            sparse.append(rescaled(delta, mask, d, rescale))
        return combine(inputs, sparse, consensus, normalize, scale)

    return method


def della(consensus: bool, normalized: bool) -> Callable[..., Array]:
    def method(
        inputs: Inputs,
        density: PerModel = 0.5,
        epsilon: PerModel = 0.15,
        rescale: str = "density",
        normalize: bool = normalized,
        scale: float = 1.0,
    ) -> Array:
        sparse = []
        densities, epsilons = inputs.each(density), inputs.each(epsilon)
        for delta, d, e, key in zip(inputs.deltas, densities, epsilons, inputs.keys, strict=True):
            p = keep_probability(delta, d, e)
            mask = bernoulli(p.ravel(), delta.size, key).reshape(delta.shape)
            sparse.append(rescaled(delta, mask, p, rescale))
        return combine(inputs, sparse, consensus, normalize, scale)

    return method


def breadcrumbs(consensus: bool) -> Callable[..., Array]:
    def method(
        inputs: Inputs,
        density: PerModel = 0.9,
        gamma: PerModel = 0.01,
        normalize: bool = False,
        rescale: str = "none",
        scale: float = 1.0,
    ) -> Array:
        densities, gammas = inputs.each(density), inputs.each(gamma)
        sparse = [
            rescaled(delta, keep_middle(delta, d, g), d, rescale)
            for delta, d, g in zip(inputs.deltas, densities, gammas, strict=True)
        ]
        return combine(inputs, sparse, consensus, normalize, scale)

    return method
