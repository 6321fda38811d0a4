"""DARE with the elected sign of TIES."""

from __future__ import annotations

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.dare_linear import passes, sparsifier
from trimtab.methods.registry import merge_method
from trimtab.methods.task_vectors import (
    Density,
    Normalize,
    Rescale,
    Scale,
    merged,
)


@merge_method(
    title="DARE, TIES",
    formula="θ = θ_ref + λ Σᵢ wᵢ mᵢ bᵢ ⊙ τᵢ / p, bᵢ ~ Bernoulli(p), mᵢ = [sign agrees with "
    "the sum]",
    reference="Yu et al. 2024, arXiv 2311.03099; Yadav et al. 2023, arXiv 2306.01708",
    scope="element",
    passes=passes,
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
        sparsifier(density, rescale),
        consensus=True,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
