"""DELLA: drop at random, small changes rather, and elect a sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.registry import merge_method
from trimtab.methods.sparsify import RandomByRank
from trimtab.methods.task_vectors import (
    Density,
    Epsilon,
    Normalize,
    Rescale,
    Scale,
    merged,
    passes_for,
)


def sparsifier(
    density: tuple[float, ...], epsilon: tuple[float, ...], rescale: str, **parameters: Any
) -> RandomByRank:
    """Return which entries these parameters keep."""
    return RandomByRank(density, epsilon, rescale == "density")


def passes(outline: Outline, *, rescale: str, **parameters: Any) -> Sequence[Pass]:
    """Return what must be measured before."""
    return passes_for(sparsifier(rescale=rescale, **parameters), outline, rescale)


@merge_method(
    title="DELLA",
    formula="θ = θ_ref + λ Σᵢ wᵢ mᵢ bᵢ ⊙ τᵢ / pᵢ / Σᵢ wᵢ mᵢ, pᵢ = p − ε + 2ε rank/(n−1) in "
    "each row",
    reference="Deep et al. 2024, arXiv 2406.11617",
    scope="row",
    passes=passes,
    backend="any",
    random=True,
)
def della(
    x: Piece,
    *,
    density: Density = (0.5,),
    epsilon: Epsilon = (0.15,),
    normalize: Normalize = True,
    rescale: Rescale = "density",
    scale: Scale = 1.0,
) -> Array:
    """Drop entries at random, the small ones of a row more often, and elect a sign.

    What is kept is divided by its own chance to be kept. Deep et al. 2024, section 3; mergekit
    rescales by the sum of magnitudes instead.
    """
    return merged(
        x,
        sparsifier(density, epsilon, rescale),
        consensus=True,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
