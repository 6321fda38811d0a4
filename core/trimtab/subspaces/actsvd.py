"""ActSVD: the outputs in which a weight answers safety prompts."""

from __future__ import annotations

from typing import Annotated

from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.registry import Param, subspace
from trimtab.subspaces.subspace import Projector, leading

WEI = "Wei et al. 2024, arXiv 2402.05162; code boyiwei/alignment-attribution-code"


@subspace(
    title="ActSVD of safety activations",
    formula="Π = U_r U_rᵀ,  W X_safety = U S Vᵀ",
    reference=WEI,
    mode="paper",
    needs=("weight", "safety"),
)
def actsvd(
    evidence: Evidence,
    *,
    rank: Annotated[int, Param("Rank r", "How many directions.", 1, 65536)] = 10,
) -> Projector:
    """The r leading left singular vectors of a weight's outputs on safety prompts.

    They are the eigenvectors of Σ y yᵀ, the activations themselves need not be kept.
    """
    return Projector(leading(evidence.output_gram("safety"), rank))
