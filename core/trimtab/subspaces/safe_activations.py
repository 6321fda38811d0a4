"""The leading directions of a weight's outputs on harmful prompts."""

from __future__ import annotations

from typing import Annotated

from trimtab.subspaces.evidence import Evidence, leading_outputs
from trimtab.subspaces.registry import Param, subspace
from trimtab.subspaces.subspace import Projector

Directions = Annotated[int, Param("Directions k", "How many directions.", 1, 65536)]
Centre = Annotated[
    str, Param("Centre", "Whether the mean output is taken away first.", 0, 0, ("yes", "no"))
]


@subspace(
    title="Safe activations",
    formula="P = U_k U_kᵀ,  Cov(y | harmful) = U Λ Uᵀ",
    reference="Trimtab's own, after arXiv 2505.14185",
    mode="ours",
    needs=("safety",),
)
def safe_activations(evidence: Evidence, *, k: Directions = 16, centre: Centre = "no") -> Projector:
    """The k leading directions of the outputs on harmful prompts, which the aligned model refuses.

    Without centring the first direction is nearly the mean output itself.
    """
    return leading_outputs(evidence, "safety", k, centre == "yes")
