"""The refusal direction: a difference of means, measured and never written."""

from __future__ import annotations

import numpy as np

from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.registry import subspace
from trimtab.subspaces.subspace import Projector


@subspace(
    title="Refusal direction (measured only)",
    formula="r̂ r̂ᵀ,  r = mean(y | harmful) − mean(y | benign)",
    reference="Arditi et al. 2024, arXiv 2406.11717; code andyrdt/refusal_direction",
    mode="paper",
    needs=("safety", "utility"),
    shown_only=True,
)
def refusal_direction(evidence: Evidence) -> Projector:
    """The one direction in which the outputs on harmful and on benign prompts differ on average.

    How a fine-tune or a merge moves along it is shown; no model is written without it. Choosing
    among layers and token positions, as the paper does, is up to whoever gathers the means.
    """
    r = evidence.output_mean("safety") - evidence.output_mean("utility")
    length = float(np.linalg.norm(r))
    return Projector(r[:, None] / length if length > 0 else np.zeros((len(r), 0)))
