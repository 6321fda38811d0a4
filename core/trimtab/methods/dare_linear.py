"""DARE: drop entries of the task vectors at random and make up for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.registry import merge_method
from trimtab.methods.sparsify import Random
from trimtab.methods.task_vectors import (
    Density,
    Normalize,
    Rescale,
    Scale,
    merged,
    passes_for,
)


def sparsifier(density: tuple[float, ...], rescale: str, **parameters: Any) -> Random:
    """Return which entries these parameters keep."""
    return Random(density, rescale == "density")


def passes(outline: Outline, *, rescale: str, **parameters: Any) -> Sequence[Pass]:
    """Return what must be measured before."""
    return passes_for(sparsifier(rescale=rescale, **parameters), outline, rescale)


@merge_method(
    title="DARE, linear",
    formula="θ = θ_ref + λ Σᵢ wᵢ bᵢ ⊙ τᵢ / p, bᵢ ~ Bernoulli(p)",
    reference="Yu et al. 2024, arXiv 2311.03099",
    scope="element",
    passes=passes,
    backend="any",
    random=True,
)
def dare_linear(
    x: Piece,
    *,
    density: Density = (0.5,),
    normalize: Normalize = False,
    rescale: Rescale = "density",
    scale: Scale = 1.0,
) -> Array:
    """Keep each entry of the task vectors with probability p, scaled so that the mean stays.

    The mask depends on seed, tensor and model alone. Yu et al. 2024, equation 3; mergekit
    rescales by the sum of magnitudes instead of 1/p.
    """
    return merged(
        x,
        sparsifier(density, rescale),
        consensus=False,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
