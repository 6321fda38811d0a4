"""Checkpoints by their headers: tensors, adapters, names, and the lineup they form."""

from trimtab.checkpoints.comparison import guess_roles
from trimtab.checkpoints.grid import Grid, build_grid
from trimtab.checkpoints.index import Checkpoint, TensorIndex, open_checkpoint
from trimtab.checkpoints.lineup import Finding, Lineup, Member, Role, Source
from trimtab.checkpoints.matching import build_lineup

__all__ = [
    "Checkpoint",
    "Finding",
    "Grid",
    "Lineup",
    "Member",
    "Role",
    "Source",
    "TensorIndex",
    "build_grid",
    "build_lineup",
    "guess_roles",
    "open_checkpoint",
]
