"""Safe LoRA's alignment matrix C, as published."""

from __future__ import annotations

from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.registry import subspace
from trimtab.subspaces.subspace import ScaledOuter, span


@subspace(
    title="Safe LoRA's C (not a projector)",
    formula="C = V Vᵀ / ‖V‖_F,  V = θ_aligned − θ_base",
    reference="Hsu et al. 2024, Safe LoRA, arXiv 2405.16833; code IBM/SafeLoRA",
    mode="paper",
    needs=("alignment",),
    is_projector=False,
)
def safe_lora(evidence: Evidence) -> ScaledOuter:
    """All outputs that alignment changed, weighted by how much: C scales with V and C² is not C.

    Doubling V doubles what C writes; the cosine that Safe LoRA chooses layers by does not change.
    """
    a = evidence.alignment()
    return ScaledOuter(a, span(a))
