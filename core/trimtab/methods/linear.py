"""Linear: the weighted mean of the reference and the fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.errors import UserError
from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import combined
from trimtab.methods.registry import Floats, Param, merge_method


def _checked(total: Floats) -> Floats:
    if np.any(np.abs(total) < 1e-6):
        raise UserError(
            "ratios_cancel",
            "The ratios of a linear merge add up to zero.",
            "The mean divides by their sum.",
            "Give at least one model a ratio above zero.",
        )
    return total


def _coefficients(
    ratios: Floats, *, reference_ratio: float = 1.0, normalize: bool = True
) -> Floats | None:
    if not normalize:
        return None  # a sum need not keep the reference whole: its change is no mix of changes
    result: Floats = ratios / _checked(ratios.sum(axis=1, keepdims=True) + reference_ratio)
    return result


def _form(
    gram: Floats | None, weights: Sequence[float], *, reference_ratio: float, normalize: bool
) -> tuple[float, Floats]:
    factors = np.asarray(weights, dtype=np.float64)
    total = float(factors.sum()) + reference_ratio
    if not normalize:
        return total, factors
    return 1.0, factors / _checked(np.array(total))


@merge_method(
    title="Linear",
    formula="θ = (r₀ θ_ref + Σᵢ rᵢ θᵢ) / (r₀ + Σᵢ rᵢ)",
    reference="Wortsman et al. 2022, arXiv 2203.05482",
    scope="element",
    part="member",
    coefficients=_coefficients,
    form=_form,
    backend="any",
)
def linear(
    x: Piece,
    *,
    reference_ratio: Annotated[
        float,
        Param("r₀, the reference's share", "Weight of the reference in the mean.", -10.0, 10.0),
    ] = 1.0,
    normalize: Annotated[
        bool, Param("Mean", "Divide by the sum of the ratios; off, the models are only added up.")
    ] = True,
) -> Array:
    """Take the mean of reference and models, weighted by their ratios.

    Computed as the reference plus the mean of the changes, which is the same and keeps small
    changes exact. Wortsman et al. 2022, section 2.
    """
    form = _form(None, x.weights, reference_ratio=reference_ratio, normalize=normalize)
    return combined(x, *form)
