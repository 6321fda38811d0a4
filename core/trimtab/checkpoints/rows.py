"""Says row by row where a tensor with a vocabulary axis comes from, and reads it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from trimtab.checkpoints.lineup import Source

Floats = npt.NDArray[np.float32]
#: fetch(part, first, last) -> rows [first, last) of part number `part`, float32 [n, width]
Fetch = Callable[[int, int, int], Floats]

#: in place of a part's number: the row is zero
ZERO = -1
# rows summed at a time for the mean; fixed, so that the sum does not depend on who asks for what
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class RowMap:
    """A tensor of `n_rows` rows, gathered from the rows of `parts`; equal only to itself.

    Rows [starts, starts + lengths) come from rows [rows, rows + lengths) of part `run_parts`:
    int64 [k] each, in ascending order. Rows in `averaged` are the mean of some (part, row). The
    last `padding` rows are the mean of all others. Any other row is zero.
    """

    parts: tuple[Source, ...]
    n_rows: int
    starts: npt.NDArray[np.int64] = field(repr=False)
    lengths: npt.NDArray[np.int64] = field(repr=False)
    run_parts: npt.NDArray[np.int64] = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)
    averaged: Mapping[int, tuple[tuple[int, int], ...]] = field(repr=False)
    padding: int = 0

    def read(
        self, first: int, last: int, width: int, fetch: Fetch, mean: Floats | None = None
    ) -> Floats:
        """Return rows [first, last), float32 [last - first, width].

        Each row is the same whatever else is read with it. `mean` is `mean_row`'s result, which
        is computed when it is needed and not given.
        """
        out = np.zeros((last - first, width), dtype=np.float32)
        stops = self.starts + self.lengths
        low = int(np.searchsorted(stops, first, side="right"))
        high = int(np.searchsorted(self.starts, last, side="left"))
        for run in range(low, high):
            begin = max(first, int(self.starts[run]))
            end = min(last, int(stops[run]))
            row = int(self.rows[run]) + begin - int(self.starts[run])
            part = int(self.run_parts[run])
            out[begin - first : end - first] = fetch(part, row, row + end - begin)
        for target in self._averaged_within(first, last):
            out[target - first] = self._average(target, width, fetch)
        real = self.n_rows - self.padding
        if last > max(real, first):
            out[max(real - first, 0) :] = self.mean_row(width, fetch) if mean is None else mean
        return out

    def mean_row(self, width: int, fetch: Fetch) -> Floats:
        """Return what the padding rows hold, float32 [width]: summed in float64, rounded once."""
        real = self.n_rows - self.padding
        total = np.zeros(width, dtype=np.float64)
        for first in range(0, real, _BLOCK):
            block = self.read(first, min(first + _BLOCK, real), width, fetch)
            total += block.sum(axis=0, dtype=np.float64)
        return (total / max(real, 1)).astype(np.float32)

    def _averaged_within(self, first: int, last: int) -> list[int]:
        if len(self.averaged) < last - first:
            return [row for row in self.averaged if first <= row < last]
        return [row for row in range(first, last) if row in self.averaged]

    def _average(self, target: int, width: int, fetch: Fetch) -> Floats:
        total = np.zeros(width, dtype=np.float32)
        for part, row in self.averaged[target]:
            total += fetch(part, row, row + 1)[0]
        return total / np.float32(len(self.averaged[target]))


def build_row_map(
    parts: Sequence[Source],
    part: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    averaged: Mapping[int, tuple[tuple[int, int], ...]] | None = None,
    padding: int = 0,
) -> RowMap:
    """Join what is said of each row into runs.

    `part` and `row` are int64 [n]: output row i is row `row[i]` of part `part[i]`, or zero where
    `part[i]` is `ZERO`. `averaged` names the rows that are means instead; `padding` rows are
    added behind.
    """
    n = len(part)
    if n == 0:
        runs = np.zeros(0, dtype=np.int64)
    else:
        breaks = (part[1:] != part[:-1]) | (row[1:] != row[:-1] + 1)
        runs = np.concatenate([[0], np.flatnonzero(breaks) + 1]).astype(np.int64)
    lengths = np.diff(np.append(runs, n))
    kept = part[runs] != ZERO
    starts, lengths = runs[kept], lengths[kept]
    return RowMap(
        tuple(parts), n + padding, starts, lengths, part[starts], row[starts],
        dict(averaged or {}), padding,
    )  # fmt: skip
