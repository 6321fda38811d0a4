"""Model Breadcrumbs: drop the outliers and the small changes, keep the band between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.registry import merge_method
from trimtab.methods.sparsify import Band
from trimtab.methods.task_vectors import (
    Density,
    Gamma,
    Normalize,
    RescaleL1,
    Scale,
    merged,
    passes_for,
)


def sparsifier(density: tuple[float, ...], gamma: tuple[float, ...], **parameters: Any) -> Band:
    """Return which entries these parameters keep."""
    return Band(density, gamma)


def passes(outline: Outline, *, rescale: str, **parameters: Any) -> Sequence[Pass]:
    """Return what must be measured before."""
    return passes_for(sparsifier(**parameters), outline, rescale)


@merge_method(
    title="Breadcrumbs",
    formula="θ = θ_ref + λ Σᵢ wᵢ S(τᵢ), S drops the largest γ and the smallest 1−γ−density",
    reference="Davari & Belilovsky 2024, arXiv 2312.06795",
    scope="element",
    passes=passes,
    backend="any",
)
def breadcrumbs(
    x: Piece,
    *,
    density: Density = (0.9,),
    gamma: Gamma = (0.01,),
    normalize: Normalize = False,
    rescale: RescaleL1 = "none",
    scale: Scale = 1.0,
) -> Array:
    """Drop each task vector's largest and smallest entries and add up what is left.

    Per tensor, exactly ⌊density · n⌋ entries stay. Davari & Belilovsky 2024, section 3.
    """
    return merged(
        x,
        sparsifier(density, gamma),
        consensus=False,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
