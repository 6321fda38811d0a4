"""Linear: the weighted mean of the reference and the fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np

from trimtab.errors import UserError
from trimtab.methods.registry import Floats, Param, merge_method

if TYPE_CHECKING:
    from torch import Tensor


def _coefficients(ratios: Floats, *, reference_ratio: float = 1.0) -> Floats:
    total = ratios.sum(axis=1, keepdims=True) + reference_ratio
    if np.any(np.abs(total) < 1e-6):
        raise UserError(
            "ratios_cancel",
            "The ratios of a linear merge add up to zero.",
            "The mean divides by their sum.",
            "Give at least one model a ratio above zero.",
        )
    result: Floats = ratios / total
    return result


@merge_method(
    title="Linear",
    formula="θ = (r₀ θ_ref + Σᵢ rᵢ θᵢ) / (r₀ + Σᵢ rᵢ)",
    reference="Wortsman et al. 2022, arXiv 2203.05482",
    coefficients=_coefficients,
)
def linear(
    reference: Tensor,
    models: Sequence[Tensor],
    ratios: Sequence[float],
    *,
    reference_ratio: Annotated[
        float, Param("r₀, the reference's share", "Weight of the reference in the mean.", 0.0, 2.0)
    ] = 1.0,
) -> Tensor:
    """Take the mean of reference and models, weighted by their ratios.

    float32 throughout; the weights are divided by their sum. Wortsman et al. 2022, section 2.
    """
    total = reference_ratio + sum(ratios)
    merged = reference.mul_(reference_ratio / total)
    for model, ratio in zip(models, ratios, strict=True):
        # product and sum apart: a fused multiply-add would round differently on other devices
        merged.add_(model.mul_(ratio / total))
    return merged
