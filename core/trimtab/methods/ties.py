"""TIES: trim each task vector, elect a sign, and average what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.registry import merge_method
from trimtab.methods.sparsify import Largest
from trimtab.methods.task_vectors import (
    Density,
    Normalize,
    RescaleL1,
    Scale,
    merged,
    passes_for,
)


def _sparsifier(density: tuple[float, ...], **parameters: Any) -> Largest:
    return Largest(density)


def _passes(outline: Outline, *, rescale: str, **parameters: Any) -> Sequence[Pass]:
    return passes_for(_sparsifier(**parameters), outline, rescale)


@merge_method(
    title="TIES",
    formula="θ = θ_ref + λ Σᵢ wᵢ mᵢ S(τᵢ) / Σᵢ wᵢ mᵢ, mᵢ = [sign τᵢ = sign Σⱼ wⱼ S(τⱼ)], S "
    "keeps the largest",
    reference="Yadav et al. 2023, arXiv 2306.01708",
    scope="element",
    passes=_passes,
    backend="any",
)
def ties(
    x: Piece,
    *,
    density: Density = (0.2,),
    normalize: Normalize = True,
    rescale: RescaleL1 = "none",
    scale: Scale = 1.0,
) -> Array:
    """Keep each task vector's largest entries, and of these what agrees with the elected sign.

    Trimming is per tensor; of equal magnitudes the first in the tensor stay, so that exactly
    max(1, ⌊density · n⌋) do. Yadav et al. 2023, algorithm 1.
    """
    return merged(
        x,
        _sparsifier(density),
        consensus=True,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
