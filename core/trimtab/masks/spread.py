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
from trimtab.masks.builders import STRIDE

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


def spread(scores: ScoreSource, control: Control) -> Spread:
    """Read all scores once and count them.

    The bins are those of the float32 itself: each power of two is cut into eight, so that a score
    is in one bin whatever the others are, and no first pass must find their range. A score that is
    not a number is left out.
    """
    counts = np.zeros(_BINS, dtype=np.int64)
    zeros = 0
    control.stage("Counting scores", len(scores.names))
    for name in scores.names:
        numel = math.prod(scores.shape(name))
        for low, high in pairwise([*range(0, numel, STRIDE), numel]):
            control.check()
            values = np.abs(scores.read(name, low, high))
            values = values[np.isfinite(values)]
            zero = values == 0
            zeros += int(zero.sum())
            places = values[~zero].view(np.uint32) >> _SHIFT
            counts += np.bincount(places, minlength=_BINS)
        control.advance(1)
    filled = np.flatnonzero(counts)
    first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, -1)
    bits = np.arange(first, last + 2, dtype=np.uint32) << np.uint32(_SHIFT)
    return Spread(bits.view(np.float32).astype(np.float64), counts[first : last + 1], zeros)
