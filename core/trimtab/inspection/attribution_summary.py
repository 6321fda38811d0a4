"""Where in a model the scores of weights are: sums, means and the highest entries by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.control import Control
from trimtab.inspection.attribution import ScoreSource

_PIECE = 1 << 20
_BINS = 1 << 16


@dataclass(frozen=True)
class ScoreSummary:
    """Scores of tensors, one row each.

    `entries` int64 [n], `total` float64 [n] the sum of the scores, `highest` float32 [n]; `top`
    int64 [n] how many of the `share` of entries with the highest scores of the whole model lie in
    the tensor. Those are told apart by the upper 16 bits of the scores, so their number is a
    little larger than the share asked for.
    """

    names: tuple[str, ...]
    entries: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float32]
    top: npt.NDArray[np.int64]
    share: float

    def to_rows(self) -> list[dict[str, str | int | float]]:
        """Return a row for each tensor, ready for JSON."""
        return [
            {
                "name": name,
                "entries": int(self.entries[i]),
                "total": float(self.total[i]),
                "mean": float(self.total[i] / self.entries[i]),
                "highest": float(self.highest[i]),
                "top": int(self.top[i]),
            }
            for i, name in enumerate(self.names)
        ]

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], share: float) -> ScoreSummary:
        """Read what `to_rows` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(str(row["name"]) for row in rows),
            np.array([row["entries"] for row in rows], dtype=np.int64),
            np.array([row["total"] for row in rows], dtype=np.float64),
            np.array([row["highest"] for row in rows], dtype=np.float32),
            np.array([row["top"] for row in rows], dtype=np.int64),
            float(share),
        )

    def added(self, group_of: npt.NDArray[np.intp], names: Sequence[str]) -> ScoreSummary:
        """Add tensors up by their groups: intp [n], and the groups' names.

        A group of which no tensor is among the scored ones has no entries.
        """
        count = len(names)
        highest = np.zeros(count, dtype=np.float32)
        np.maximum.at(highest, group_of, self.highest)
        entries, top = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        np.add.at(entries, group_of, self.entries)
        np.add.at(top, group_of, self.top)
        total = np.zeros(count)
        np.add.at(total, group_of, self.total)
        return ScoreSummary(tuple(names), entries, total, highest, top, self.share)


def summarise(source: ScoreSource, control: Control, share: float = 0.01) -> ScoreSummary:
    """Read all scores once and say where they are. Raises `JobCancelled` between pieces."""
    names = source.names
    entries = np.array([int(np.prod(source.shape(n), dtype=np.int64)) for n in names], np.int64)
    total = np.zeros(len(names))
    highest = np.zeros(len(names), dtype=np.float32)
    counts = np.zeros((len(names), _BINS), dtype=np.int64)
    control.stage("Adding up", len(names), int(entries.sum()) * 4)
    for i, name in enumerate(names):
        for low in range(0, int(entries[i]), _PIECE):
            control.check()
            values = source.read(name, low, min(low + _PIECE, int(entries[i])))
            total[i] += values.sum(dtype=np.float64)
            highest[i] = max(highest[i], values.max(initial=0))
            # floats that are not negative sort as their bits do
            counts[i] += np.bincount(values.view(np.uint32) >> 16, minlength=_BINS)
            control.advance(0, values.nbytes)
        control.advance(1)
    above = counts.sum(0)[::-1].cumsum()[::-1]
    wanted = share * int(entries.sum())
    first = int(np.flatnonzero(above >= wanted)[-1]) if len(names) else 0
    top = counts[:, first:].sum(1)
    return ScoreSummary(names, entries, total, highest, top, share)
