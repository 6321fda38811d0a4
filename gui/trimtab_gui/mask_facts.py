"""What the jobs on masks tell, put onto the cells and columns of the grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shares:
    """What a stack keeps: of all entries after each of its entries that is on, and in the end.

    `groups` float64 [groups] is the share of each cell of the grid; nan where the model changed
    nothing.
    """

    so_far: tuple[float | None, ...]
    kept: float
    groups: Floats


@dataclass(frozen=True, eq=False)
class Inside:
    """What the directions of alignment hold, as shares in each column of the grid; nan for none.

    Of τ and of what masks keep of it, float64 [columns]; `chance` float64 [draws, columns] of τ in
    random directions.
    """

    tau: Floats
    kept: Floats
    chance: Floats


def shares_of(lineup: Lineup, result: Mapping[str, Any]) -> Shares:
    """Return what `mask_shares` told."""
    grid = lineup.grid
    kept, entries = np.zeros(grid.n_groups), np.zeros(grid.n_groups)
    groups = dict(zip(lineup.names, grid.group_of.tolist(), strict=True))
    for name, tensor in result["tensors"].items():
        kept[groups[name]] += tensor["kept"]
        entries[groups[name]] += tensor["entries"]
    with np.errstate(invalid="ignore"):
        shares = kept / np.where(entries > 0, entries, np.nan)
    total = float(entries.sum())
    return Shares(tuple(result["so_far"]), float(kept.sum()) / total if total else 1.0, shares)


def inside_of(lineup: Lineup, result: Mapping[str, Any]) -> Inside:
    """Return what `mask_overlap` told."""
    grid = lineup.grid
    rows = {name: row for row, name in enumerate(lineup.names)}
    draws = max((len(t["chance"]) for t in result["tensors"].values()), default=1)
    sums = np.zeros((4 + draws, len(grid.columns)))
    for name, t in result["tensors"].items():
        column = grid.column_of[grid.group_of[rows[name]]]
        parts = (t["inside"], t["whole"], t["kept_inside"], t["kept_whole"], *t["chance"])
        sums[:, column] += parts
    whole, kept = (np.where(sums[k] > 0, sums[k], np.nan) for k in (1, 3))
    return Inside(sums[0] / whole, sums[2] / kept, sums[4:] / whole)
