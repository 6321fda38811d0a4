"""What "safety subspace" can mean: one file per definition, one decorator, one registry."""

from trimtab.subspaces import (  # noqa: F401 - each registers its definition
    actsvd,
    actsvd_orthogonal,
    alignment_directions,
    refusal_direction,
    safe_activations,
    safe_lora,
    utility_activations,
)
from trimtab.subspaces.evidence import Activations, Evidence
from trimtab.subspaces.registry import Definition, get_subspace, subspaces
from trimtab.subspaces.subspace import Subspace

__all__ = [
    "Activations",
    "Definition",
    "Evidence",
    "Subspace",
    "get_subspace",
    "subspaces",
]
