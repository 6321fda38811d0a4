"""Finds the k largest of a tensor in one reading or two, exactly, without ever sorting it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
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

    def drop(self, x: Piece, values: Array, label: object) -> None:
        """Zero the k largest and leave the rest; an entry already zeroed may be one of them."""
        seen = x.carry.get(label, self.before[x.unit])
        x.carry[label] = x.ops.drop_above(values, self.key, seen, self.room)

    @property
    def threshold(self) -> float:
        """The magnitude of the k-th largest."""
        return float(np.uint32(self.key).view(np.float32))


@dataclass(frozen=True)
class _Bin:
    """The k-th largest is the one at place `left`, from 1, of a row's bin of upper bits `high`."""

    row: int
    high: int
    left: int


#: f(piece) -> the rows of values whose order is asked for; they may be what the piece holds
Rows = Callable[[Piece], Sequence[Array]]
#: f(number of nonzero values of each row counted) -> [(row, k), …]: the cuts that are wanted, with
#: k from 1 to the tensor's size
Requests = Callable[[Sequence[int]], Sequence[tuple[int, int]]]


def rank_passes(
    rows: Rows | None, counted: Sequence[int], requests: Requests, count_nonzero: bool = False
) -> list[Pass]:
    """Return two passes, the first of a method's, of which the second settles a `Cut` a request.

    The first counts the magnitudes of the rows in `counted` by their upper 16 bits, and apart those
    whose 15 lower bits are zero: where the k-th is one of these, its very bits are known. So it is
    with the differences of numbers in bfloat16 that are near to each other, which is what task
    vectors are. Elsewhere the second counts by the lower bits inside the k-th's bin; where it is
    not needed it reads nothing. The rows are the task vectors where `rows` is None. `requests` gets
    the numbers of nonzero values where `count_nonzero`, else zeros.
    """

    def measure_high(x: Piece) -> Measured:
        values = [] if rows is None else rows(x)
        found: Measured = []
        for row in counted:
            counts = _tally(x, row, 1 + 31 - _LOW_BITS)
            if rows is None:
                x.ops.count_change(x.reference, x.models[row], counts)
            else:
                x.ops.count_high(values[row], counts)
            found.append(counts)
        nonzero = [x.ops.count_nonzero(values[row]) if count_nonzero else 0 for row in counted]
        return [*found, np.array(nonzero, dtype=np.int64)]

    def settle_high(units: list[Measured], facts: Sequence[Any]) -> list[Cut | _Bin]:
        totals = [sum(unit[n] for unit in units) for n in range(len(counted) + 1)]
        nonzero = [int(n) for n in np.asarray(totals[-1])]
        place = {row: n for n, row in enumerate(counted)}
        found: list[Cut | _Bin] = []
        for row, k in requests(nonzero):
            n = place[row]
            split, left = _find(totals[n], k)
            if split % 2:
                found.append(_Bin(row, split >> 1, left))
            else:
                before = _before(int(unit[n][split]) for unit in units)
                found.append(Cut(split >> 1 << _LOW_BITS, left, before))
        return found

    def measure_low(x: Piece) -> Measured:
        values = x.deltas() if rows is None else rows(x)
        found: Measured = []
        for n, wanted in enumerate(x.facts[0]):
            if isinstance(wanted, _Bin):
                counts = _tally(x, n, _LOW_BITS)
                x.ops.count_low(values[wanted.row], wanted.high, counts)
                found.append(counts)
        return found

    def settle_low(units: list[Measured], facts: Sequence[Any]) -> list[Cut]:
        cuts = []
        n = 0
        for wanted in facts[0]:
            if isinstance(wanted, Cut):
                cuts.append(wanted)
                continue
            low, room = _find(sum(unit[n] for unit in units), wanted.left)
            before = _before(int(unit[n][low]) for unit in units)
            cuts.append(Cut((wanted.high << _LOW_BITS) | low, room, before))
            n += 1
        return cuts

    def all_cut(facts: Sequence[Any]) -> bool:
        return all(isinstance(wanted, Cut) for wanted in facts[0])

    return [
        Pass(measure_high, settle_high, takes_stored=rows is None),
        Pass(measure_low, settle_low, known=all_cut),
    ]


def _tally(x: Piece, label: int, bits: int) -> Counts:
    """Return the unit's own histogram: half a megabyte need not be added up for each piece."""
    counts: Counts | None = x.carry.get(label)
    if counts is None:
        fits = x.numel < 1 << 31
        counts = x.carry[label] = np.zeros(1 << bits, dtype=np.int32 if fits else np.int64)
    return counts


def _before(counts: Iterable[int]) -> tuple[int, ...]:
    """Return for each unit how many there are in earlier ones."""
    return tuple(accumulate(counts, initial=0))[:-1]


def _find(counts: npt.NDArray[np.int64] | int, k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest and its place among the bin's, counted from 1."""
    descending = np.cumsum(np.asarray(counts)[::-1], dtype=np.int64)
    place = int(np.searchsorted(descending, k))
    above = int(descending[place - 1]) if place else 0
    return len(descending) - 1 - place, k - above
