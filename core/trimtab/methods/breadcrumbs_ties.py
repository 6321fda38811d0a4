"""Model Breadcrumbs with the elected sign of TIES."""

from __future__ import annotations

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.breadcrumbs import passes, sparsifier
from trimtab.methods.registry import merge_method
from trimtab.methods.task_vectors import (
    Density,
    Gamma,
    Normalize,
    RescaleL1,
    Scale,
    merged,
)


@merge_method(
    title="Breadcrumbs, TIES",
    formula="θ = θ_ref + λ Σᵢ wᵢ mᵢ S(τᵢ), S drops the largest γ and the smallest 1−γ−density",
    reference="Davari & Belilovsky 2024, arXiv 2312.06795; Yadav et al. 2023, arXiv 2306.01708",
    scope="element",
    passes=passes,
    backend="any",
)
def breadcrumbs_ties(
    x: Piece,
    *,
    density: Density = (0.9,),
    gamma: Gamma = (0.01,),
    normalize: Normalize = False,
    rescale: RescaleL1 = "none",
    scale: Scale = 1.0,
) -> Array:
    """Keep a band of each task vector, and of it what agrees with the elected sign.

    Per tensor, exactly ⌊density · n⌋ entries stay. Davari & Belilovsky 2024, section 3.
    """
    return merged(
        x,
        sparsifier(density, gamma),
        consensus=True,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
