"""DARE with the elected sign of TIES."""

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


def _sparsifier(density: tuple[float, ...], rescale: str, **parameters: Any) -> Random:
    return Random(density, rescale == "density")


def _passes(outline: Outline, *, rescale: str, **parameters: Any) -> Sequence[Pass]:
    return passes_for(_sparsifier(rescale=rescale, **parameters), outline, rescale)


@merge_method(
    title="DARE, TIES",
    formula="θ = θ_ref + λ Σᵢ wᵢ mᵢ bᵢ ⊙ τᵢ / p, bᵢ ~ Bernoulli(p), mᵢ = [sign agrees with "
    "the sum]",
    reference="Yu et al. 2024, arXiv 2311.03099; Yadav et al. 2023, arXiv 2306.01708",
    scope="element",
    passes=_passes,
    backend="any",
    random=True,
)
def dare_ties(
    x: Piece,
    *,
    density: Density = (0.5,),
    normalize: Normalize = False,
    rescale: Rescale = "density",
    scale: Scale = 1.0,
) -> Array:
    """Drop entries at random, then keep what agrees with the elected sign.

    The mask depends on seed, tensor and model alone. Yu et al. 2024, section 3.3.
    """
    return merged(
        x,
        _sparsifier(density, rescale),
        consensus=True,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
