"""Task arithmetic: add scaled task vectors to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from trimtab.methods.registry import Floats, Param, merge_method

if TYPE_CHECKING:
    from torch import Tensor


def _coefficients(ratios: Floats, *, scale: float = 1.0) -> Floats:
    return ratios * scale


@merge_method(
    title="Task arithmetic",
    formula="θ = θ_ref + λ Σᵢ rᵢ (θᵢ − θ_ref)",
    reference="Ilharco et al. 2023, arXiv 2212.04089",
    coefficients=_coefficients,
)
def task_arithmetic(
    reference: Tensor,
    models: Sequence[Tensor],
    ratios: Sequence[float],
    *,
    scale: Annotated[
        float, Param("λ, all ratios", "Multiplies every ratio at once.", -2.0, 2.0)
    ] = 1.0,
) -> Tensor:
    """Add each model's task vector to the reference, scaled by its ratio.

    float32 throughout; a model with ratio 0 adds nothing. Ilharco et al. 2023, section 2.
    """
    for model, ratio in zip(models, ratios, strict=True):
        # product and sum apart: a fused multiply-add would round differently on other devices
        model.sub_(reference).mul_(scale * ratio)
    for change in models:
        reference.add_(change)
    return reference
