"""Karcher mean: the point of the sphere that is nearest to all models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import absolute, combined, gram_pass
from trimtab.methods.registry import Floats, Param, merge_method


def _length(gram: Floats, vector: Floats) -> float:
    return float(np.sqrt(max(float(vector @ gram @ vector), 0.0)))


def karcher_mean(gram: Floats, max_iter: int, tol: float) -> Floats:
    """Return the c [m] of Σ cᵢ θᵢ, from the inner products of the models [m, m].

    The iteration runs on the coefficients alone: all its vectors lie in the models' span.
    """
    count = len(gram)
    norms = np.sqrt(np.clip(np.diag(gram), 0.0, None))
    present = norms > 0
    if not present.any():
        return np.zeros(count)
    if count == 1:
        return np.ones(1)
    units = np.diag(np.where(present, 1.0 / np.where(present, norms, 1.0), 0.0))
    shares = present / present.sum()
    mean = shares @ units
    length = _length(gram, mean)
    mean = units[int(np.flatnonzero(present)[0])] if length < tol else mean / length
    for _ in range(max_iter):
        tangent = np.zeros(count)
        for share, unit in zip(shares, units, strict=True):
            if share == 0:
                continue
            cosine = float(np.clip(mean @ gram @ unit, -1.0, 1.0))
            angle = float(np.arccos(cosine))
            if angle >= tol:
                tangent += share * (angle / np.sin(angle)) * (unit - cosine * mean)
        step = _length(gram, tangent)
        if step < tol:
            break
        mean = np.cos(step) * mean + np.sin(step) * (tangent / step)
        length = _length(gram, mean)
        if length > tol:
            mean = mean / length
    result: Floats = mean * float(norms.sum() / count)
    return result


def _form(
    gram: Floats | None, weights: Sequence[float], *, max_iter: int, tol: float
) -> tuple[float, Floats]:
    assert gram is not None
    factors = karcher_mean(absolute(gram), max_iter, tol)
    return float(factors.sum()), factors


@merge_method(
    title="Karcher mean",
    formula="θ = (Σᵢ|θᵢ|/N) u, u = argmin over the sphere of Σᵢ ∠(u, θᵢ)²",
    reference="Karcher 1977, doi 10.1002/cpa.3160300502",
    scope="element",
    part="layout",
    weighted=False,
    passes=gram_pass,
    form=_form,
    backend="any",
)
def karcher(
    x: Piece,
    *,
    max_iter: Annotated[int, Param("Iterations", "At most so many steps.", 1, 1000)] = 10,
    tol: Annotated[float, Param("Tolerance", "Steps shorter than this end it.", 0.0, 0.1)] = 1e-5,
) -> Array:
    """Take the models' mean on the sphere, all with the same share; the reference is not in it.

    Each tensor is one vector; the length is the mean of the lengths. Karcher 1977.
    """
    return combined(x, *_form(x.facts[0], x.weights, max_iter=max_iter, tol=tol))
