"""ActSVD without what the weight's useful answers share with its safe ones."""

from __future__ import annotations

from typing import Annotated

from trimtab.subspaces.actsvd import WEI
from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.registry import Param, subspace
from trimtab.subspaces.subspace import Product, leading, span


@subspace(
    title="ActSVD, orthogonal to utility (not a projector)",
    formula="(I − Π_u) Π_s,  Π_s, Π_u = ActSVD of safety and utility activations",
    reference=WEI,
    mode="paper",
    needs=("weight", "safety", "utility"),
    is_projector=False,
)
def actsvd_orthogonal(
    evidence: Evidence,
    *,
    safety_rank: Annotated[int, Param("Safety rank", "Directions of Π_s.", 1, 65536)] = 1024,
    utility_rank: Annotated[int, Param("Utility rank", "Directions of Π_u.", 1, 65536)] = 1024,
) -> Product:
    """What safety prompts use of the outputs and useful ones do not.

    The product of two projectors is one only where they commute. With a utility rank as large as
    the outputs nothing is left.
    """
    onto = leading(evidence.output_gram("safety"), safety_rank)
    away = leading(evidence.output_gram("utility"), utility_rank)
    return Product(away, onto, span(onto - away @ (away.T @ onto)))
