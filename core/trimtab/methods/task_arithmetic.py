"""Task arithmetic: add scaled task vectors to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import combined
from trimtab.methods.registry import Floats, Param, merge_method


def _coefficients(ratios: Floats, *, scale: float = 1.0, normalize: bool = False) -> Floats:
    if normalize:
        total = ratios.sum(axis=1, keepdims=True)
        ratios = ratios / np.where(np.abs(total) < 1e-8, 1.0, total)
    return ratios * scale


def _form(
    gram: Floats | None, weights: Sequence[float], *, scale: float, normalize: bool
) -> tuple[float, Floats]:
    ratios = np.asarray(weights, dtype=np.float64)[None]
    return 1.0, _coefficients(ratios, scale=scale, normalize=normalize)[0]


@merge_method(
    title="Task arithmetic",
    formula="θ = θ_ref + λ Σᵢ rᵢ (θᵢ − θ_ref)",
    reference="Ilharco et al. 2023, arXiv 2212.04089",
    scope="element",
    coefficients=_coefficients,
    form=_form,
    backend="any",
)
def task_arithmetic(
    x: Piece,
    *,
    scale: Annotated[
        float, Param("λ, all ratios", "Multiplies every ratio at once.", -2.0, 2.0)
    ] = 1.0,
    normalize: Annotated[
        bool, Param("Mean of changes", "Divide the sum of changes by the sum of the ratios.")
    ] = False,
) -> Array:
    """Add each model's task vector to the reference, scaled by its ratio.

    A model with ratio 0 adds nothing. Ilharco et al. 2023, section 2.
    """
    return combined(x, *_form(None, x.weights, scale=scale, normalize=normalize))
