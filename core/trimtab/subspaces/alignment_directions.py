"""The leading left singular directions of the alignment vector, as a true projector."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.matrices import Held
from trimtab.subspaces.registry import Param, subspace
from trimtab.subspaces.spectrum import exact_spectrum
from trimtab.subspaces.subspace import Projector

SIZES = ("directions", "fraction", "energy")


@subspace(
    title="Alignment directions",
    formula="P = U_k U_kᵀ,  a = θ_aligned − θ_base = U S Vᵀ",
    reference="Safety Subspaces are Not Linearly Distinct, arXiv 2505.14185",
    mode="paper",
    needs=("alignment",),
)
def alignment_directions(
    evidence: Evidence,
    *,
    by: Annotated[
        str,
        Param(
            "Size by",
            "Whether k is given, a share of the dimensions, or of the energy.",
            0,
            0,
            SIZES,
        ),
    ] = "directions",
    k: Annotated[int, Param("Directions k", "How many directions.", 1, 65536)] = 16,
    fraction: Annotated[
        float, Param("Fraction", "k as a share of min(out, in), as in the paper.", 0.0, 1.0)
    ] = 0.01,
    energy: Annotated[
        float, Param("Energy", "The fewest directions with this share of |a|² (ours).", 0.0, 1.0)
    ] = 0.5,
) -> Projector:
    """The outputs that alignment changed most: the k leading left singular vectors of a.

    Directions of singular values that are zero are never part of it, however large k is.
    """  # fmt: skip
    a = evidence.alignment()
    found = exact_spectrum(Held(a), min(a.shape))
    if by == "fraction":
        k = max(1, int(fraction * min(a.shape)))
    elif by == "energy":
        kept = np.cumsum(found.values**2)
        # what rounding takes from the whole must not cost a direction
        k = 1 + int(np.searchsorted(kept, energy * found.norm2 * (1 - 1e-12)))
    return Projector(found.basis[:, :k])
