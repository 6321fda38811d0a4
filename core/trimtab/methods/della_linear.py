"""DELLA without the election of signs."""

from __future__ import annotations

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.della import passes, sparsifier
from trimtab.methods.registry import merge_method
from trimtab.methods.task_vectors import (
    Density,
    Epsilon,
    Normalize,
    Rescale,
    Scale,
    merged,
)


@merge_method(
    title="DELLA, linear",
    formula="θ = θ_ref + λ Σᵢ wᵢ bᵢ ⊙ τᵢ / pᵢ, pᵢ = p − ε + 2ε rank/(n−1) in each row",
    reference="Deep et al. 2024, arXiv 2406.11617",
    scope="row",
    passes=passes,
    backend="any",
    random=True,
)
def della_linear(
    x: Piece,
    *,
    density: Density = (0.5,),
    epsilon: Epsilon = (0.15,),
    normalize: Normalize = False,
    rescale: Rescale = "density",
    scale: Scale = 1.0,
) -> Array:
    """Drop entries at random, the small ones of a row more often, and add up the rest.

    What is kept is divided by its own chance to be kept. Deep et al. 2024, section 3.
    """
    return merged(
        x,
        sparsifier(density, epsilon, rescale),
        consensus=False,
        normalize=normalize,
        rescale=rescale,
        scale=scale,
    )
