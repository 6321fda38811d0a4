"""A merge method for Trimtab: the median of the models' changes, entry by entry."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from trimtab.methods import Param, Piece, merge_method


@merge_method(
    title="Median",
    formula="θ = θ_ref + λ median(w₁τ₁, …, w_Nτ_N)",
    reference="The median of N numbers minimises the sum of distances to them; no paper",
    scope="element",
)
def median(
    x: Piece,
    *,
    scale: Annotated[
        float, Param("λ, all changes", "Multiplies the merged change.", minimum=-2.0, maximum=2.0)
    ] = 1.0,
) -> Tensor:
    """Take the median of the task vectors, so that no single model can pull an entry far.

    Of an even number of models it is the mean of the two in the middle.
    """
    changes = [weight * delta for weight, delta in zip(x.weights, x.deltas(), strict=True)]
    ordered = torch.stack(changes).sort(dim=0).values
    count = len(changes)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    merged: Tensor = x.reference + scale * middle
    return merged
