"""NearSwap: take the model's value where it is near the reference's."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="NearSwap",
    formula="θ = w θ₁ + (1−w) θ_ref, w = min(1, t / |θ₁ − θ_ref|)",
    reference="alchemonaut 2024, huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    scope="element",
    part="member",
    takes=(1, 1),
    weighted=False,
    backend="any",
)
def nearswap(
    x: Piece,
    *,
    t: Annotated[
        float, Param("t, nearness", "A change up to this size is taken whole.", 0.0, 1.0)
    ] = 0.0001,
) -> Array:
    """Take a model's change whole where it is small, and as much as t of it elsewhere.

    The change is clipped to ±t. Differences below 1e-6 count as 1e-6.
    """
    delta = x.deltas()[0]
    weight = ((delta * 0 + t) / abs(delta).clip(1e-6, None)).clip(0.0, 1.0)
    merged = weight * delta
    x.ops.add(merged, x.reference)
    return merged
