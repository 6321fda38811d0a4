"""How scores are spread: counts in bins an eighth of an octave wide, of any number of entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.control import Control
from trimtab.inspection.attribution import ScoreSource
from trimtab.masks.builders import STRIDE, Selection

#: the leading bits of a float32 that make a bin: sign, exponent, and three of the mantissa
_SHIFT = 20
_BINS = 1 << (31 - _SHIFT)


@dataclass(frozen=True)
class Spread:
    """Counts of scores, none of them negative.

    `counts` int64 [n] are of those in [`edges`[k], `edges`[k + 1]), float64 [n + 1]; `zeros` are
    0, and counted nowhere else.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    zeros: int

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "edges": self.edges.tolist(), "counts": self.counts.tolist(), "zeros": self.zeros,
        }  # fmt: skip


class Counting:
    """Counts scores a piece at a time.

    The bins are those of the float32 itself: each power of two is cut into eight, so that a score
    is in one bin whatever the others are, and no first pass must find their range.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._zeros = 0

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Count float32 scores of any shape; those that are not numbers are left out."""
        values = np.abs(scores[np.isfinite(scores)])
        positive = values[values > 0]
        self._zeros += values.size - positive.size
        # denormals below all bins belong to the lowest: a bin must not begin at 0
        places = np.maximum(positive.view(np.uint32) >> _SHIFT, 1)
        self._counts += np.bincount(places, minlength=_BINS)

    def result(self) -> Spread:
        """Return what was counted."""
        filled = np.flatnonzero(self._counts)
        first, last = (int(filled[0]), int(filled[-1])) if filled.size else (1, 0)
        bits = np.arange(first, last + 2, dtype=np.uint32) << np.uint32(_SHIFT)
        edges = bits.view(np.float32).astype(np.float64)
        return Spread(edges, self._counts[first : last + 1], self._zeros)


def spread(
    scores: ScoreSource, control: Control, spared: Selection | None = None
) -> tuple[Spread, int]:
    """Read all scores once and count them, but for those of entries that are `spared`.

    Returns the counts, and how many entries were spared.
    """
    if spared is not None:
        spared.prepare(control)
    counting, left_out = Counting(), 0
    control.stage("Counting scores", len(scores.names))
    for name in scores.names:
        numel = math.prod(scores.shape(name))
        known = spared is not None and name in spared.names
        flags = np.concatenate([*spared.chosen(name)]) if known and spared is not None else None
        for low, high in pairwise([*range(0, numel, STRIDE), numel]):
            control.check()
            values = scores.read(name, low, high)
            if flags is not None:
                values = values[~flags[low:high]]
            counting.add(values)
        left_out += int(flags.sum()) if flags is not None else 0
        control.advance(1)
    return counting.result(), left_out
