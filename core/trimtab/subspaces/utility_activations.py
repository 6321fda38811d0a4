"""The leading directions of a weight's outputs on benign prompts."""

from __future__ import annotations

from trimtab.subspaces.evidence import Evidence, leading_outputs
from trimtab.subspaces.registry import subspace
from trimtab.subspaces.safe_activations import Centre, Directions
from trimtab.subspaces.subspace import Projector


@subspace(
    title="Useful activations",
    formula="P = U_k U_kᵀ,  Cov(y | benign) = U Λ Uᵀ",
    reference="Trimtab's own, after arXiv 2505.14185",
    mode="ours",
    needs=("utility",),
)
def utility_activations(
    evidence: Evidence, *, k: Directions = 16, centre: Centre = "no"
) -> Projector:
    """The k leading directions of the outputs on benign prompts.

    Without centring the first direction is nearly the mean output itself.
    """
    return leading_outputs(evidence, "utility", k, centre == "yes")
