"""Passthrough: one model's tensors as they are, for stacking layers of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.registry import Floats, Param, merge_method


def _form(
    gram: Floats | None, weights: Sequence[float], *, scale: Sequence[float]
) -> tuple[float, Floats]:
    return float(scale[0]), np.array([scale[0]], dtype=np.float64)


@merge_method(
    title="Passthrough",
    formula="θ = s θ₁",
    reference="Known from layer-stacked models such as Goliath-120B; no paper",
    scope="element",
    part="layout",
    takes=(1, 1),
    weighted=False,
    form=_form,
    backend="any",
)
def passthrough(
    x: Piece,
    *,
    scale: Annotated[
        tuple[float, ...],
        Param("s, scale", "Multiplies the tensor.", -10.0, 10.0, per_model=True),
    ] = (1.0,),
) -> Array:
    """Take one model's tensor, times a number.

    With `slices` it stacks layers of one or several models. At scale 1 the bytes are copied.
    """
    model = x.models[0]
    x.ops.scale(model, scale[0])
    return model
