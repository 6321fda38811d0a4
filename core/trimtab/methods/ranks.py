"""Finds the k largest of a tensor in two readings, exactly, without ever sorting it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.kernels.piece import Array, Counts, Measured, Pass, Piece

_LOW_BITS = 15


@dataclass(frozen=True)
class Cut:
    """Where the k largest of a row of values end.

    Values are ordered by magnitude, of equal ones the first in the tensor comes first. All with
    magnitude bits above `key` belong to the k, and the first `room` of those at it; `before` holds,
    for each unit of the tensor, how many at it come in earlier units.
    """

    key: int
    room: int
    before: tuple[int, ...]

    def keep(self, x: Piece, values: Array, label: object) -> None:
        """Zero all but the k largest; `label` tells this cut from others in the same pass."""
        seen = x.carry.get(label, self.before[x.unit])
        x.carry[label] = x.ops.drop_below(values, self.key, seen, self.room)

    @property
    def threshold(self) -> float:
        """The magnitude of the k-th largest."""
        return float(np.uint32(self.key).view(np.float32))


#: f(piece) -> the rows of values whose order is asked for; they may be what the piece holds
Rows = Callable[[Piece], Sequence[Array]]
#: f(number of nonzero values of each row counted) -> [(row, k), …]: the cuts that are wanted, with
#: k from 1 to the tensor's size
Requests = Callable[[Sequence[int]], Sequence[tuple[int, int]]]


def rank_passes(
    rows: Rows, counted: Sequence[int], requests: Requests, count_nonzero: bool = False
) -> list[Pass]:
    """Return two passes, the first of a method's, of which the second settles a `Cut` a request.

    The first counts the magnitudes of the rows in `counted` by their upper 16 bits, which tells the
    bin of the k-th; the second counts by the lower 15 bits inside that bin, which tells its very
    bits. `requests` gets the numbers of nonzero values where `count_nonzero`, else zeros.
    """

    def measure_high(x: Piece) -> Measured:
        values = rows(x)
        found: Measured = []
        for row in counted:
            counts = _tally(x, row, 16)
            x.ops.count_high(values[row], counts)
            found.append(counts)
        nonzero = [x.ops.count_nonzero(values[row]) if count_nonzero else 0 for row in counted]
        return [*found, np.array(nonzero, dtype=np.int64)]

    def settle_high(units: list[Measured], facts: Sequence[Any]) -> list[tuple[int, int, int]]:
        totals = [sum(unit[n] for unit in units) for n in range(len(counted) + 1)]
        nonzero = [int(n) for n in np.asarray(totals[-1])]
        place = {row: totals[n] for n, row in enumerate(counted)}
        return [(row, *_find(place[row], k)) for row, k in requests(nonzero)]

    def measure_low(x: Piece) -> Measured:
        values = rows(x)
        found: Measured = []
        for n, (row, high, _) in enumerate(x.facts[0]):
            counts = _tally(x, n, _LOW_BITS)
            x.ops.count_low(values[row], high, counts)
            found.append(counts)
        return found

    def settle_low(units: list[Measured], facts: Sequence[Any]) -> list[Cut]:
        cuts = []
        for n, (_, high, left) in enumerate(facts[0]):
            low, room = _find(sum(unit[n] for unit in units), left)
            before = np.cumsum([0, *(int(unit[n][low]) for unit in units)])[:-1]
            cuts.append(Cut((high << _LOW_BITS) | low, room, tuple(before.tolist())))
        return cuts

    return [Pass(measure_high, settle_high), Pass(measure_low, settle_low)]


def _tally(x: Piece, label: int, bits: int) -> Counts:
    """Return the unit's own histogram: half a megabyte need not be added up for each piece."""
    counts: Counts | None = x.carry.get(label)
    if counts is None:
        counts = x.carry[label] = np.zeros(1 << bits, dtype=np.int64)
    return counts


def _find(counts: npt.NDArray[np.int64] | int, k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest and its place among the bin's, counted from 1."""
    descending = np.cumsum(np.asarray(counts)[::-1])
    place = int(np.searchsorted(descending, k))
    above = int(descending[place - 1]) if place else 0
    return len(descending) - 1 - place, k - above
