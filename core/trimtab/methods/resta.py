"""RESTA: add back what a harmful fine-tuning takes away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import combined
from trimtab.methods.registry import Floats, Param, merge_method


def _factors(ratios: Floats, gamma: float) -> Floats:
    signs = np.ones(ratios.shape[1])
    signs[-1] = -gamma
    return ratios * signs


def _coefficients(ratios: Floats, *, gamma: float = 0.5, drop: float = 0.0) -> Floats | None:
    return None if drop else _factors(ratios, gamma)


def _form(
    gram: Floats | None, weights: Sequence[float], *, gamma: float, drop: float
) -> tuple[float, Floats] | None:
    ratios = np.asarray(weights, dtype=np.float64)[None]
    return None if drop else (1.0, _factors(ratios, gamma)[0])


@merge_method(
    title="RESTA (paper)",
    formula="θ = θ_a + Σᵢ rᵢ D(τᵢ) + γ r_u (θ_a − θ_u), D drops a share p and divides by 1 − p",
    reference="Bhardwaj et al. 2024, arXiv 2402.11746",
    scope="element",
    takes=(2, None),
    coefficients=_coefficients,
    form=_form,
    backend="any",
    random=True,
    last="the model made unsafe",
)
def resta(
    x: Piece,
    *,
    gamma: Annotated[float, Param("γ", "How much of the safety vector is added.", 0.0, 2.0)] = 0.5,
    drop: Annotated[
        float, Param("Drop", "Share of each task vector that DARE drops first.", 0.0, 0.99)
    ] = 0.0,
) -> Array:
    """Add the safety vector, aligned minus a model made unsafe on purpose, to the fine-tuned one.

    The last model is the unsafe one: the aligned model after fine-tuning on harmful examples. The
    others are the fine-tuned ones. γ = 0.5 is the default of the authors' command, 0.2 what their
    scripts set. Their branch for adapters adds the whole safe adapter instead. Bhardwaj et al.
    2024.
    """
    ratios = np.asarray(x.weights, dtype=np.float64)[None]
    factors = _factors(ratios, gamma)[0]
    if not drop:
        return combined(x, 1.0, factors)
    ops = x.ops
    deltas = x.deltas()
    for delta, key in zip(deltas[:-1], x.keys[:-1], strict=True):
        ops.drop_random(delta, 1 - drop, key, x.start)
        ops.scale(delta, 1 / (1 - drop))
    total = ops.zeros_like(x.reference)
    for delta, factor in zip(deltas, factors, strict=True):
        ops.add_scaled(total, delta, float(factor))
    ops.add(total, x.reference)
    return total
