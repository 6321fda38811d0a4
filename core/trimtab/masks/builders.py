"""Builds masks from scores: the largest of each row, tensor or all, thresholds, differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.attribution import ScoreSource
from trimtab.masks.bits import Bits, pack
from trimtab.masks.file import MaskWriter

Flags = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint32]
Extent = Literal["row", "tensor", "model"]
#: entries worked on at once; a multiple of 8
STRIDE = 1 << 20
_BINS = 1 << 16


class Selection(Protocol):
    """Chooses entries of tensors, by what it knows of all of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that it chooses from; in others nothing is chosen."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def prepare(self, control: Control) -> None:
        """Read what must be known before entries can be chosen."""

    def chosen(self, name: str) -> Iterator[Flags]:
        """Yield which entries of a tensor are chosen, bool, in flat order and any pieces."""


def write_selection(
    selection: Selection, writer: MaskWriter, control: Control, *, remove: bool
) -> None:
    """Write the mask that keeps what is chosen, or with `remove` all but that.

    Tensors that the selection does not know are kept. `writer.finish` is left to the caller. Raises
    `UserError` with `scores_not_numbers`, and as reading and writing do.
    """
    selection.prepare(control)
    control.stage("Writing the mask", len(selection.names))
    for name in selection.names:

        def checked(name: str = name) -> Iterator[Flags]:
            for flags in selection.chosen(name):
                control.check()
                yield ~flags if remove else flags

        writer.bits(name, selection.shape(name), packed(checked()))
        control.advance(1)


def packed(pieces: Iterable[Flags]) -> Iterator[Bits]:
    """Pack bool pieces of any lengths into uint8 pieces that end on whole bytes."""
    left = np.empty(0, dtype=np.bool_)
    for flags in pieces:
        joined = np.concatenate([left, flags]) if left.size else flags
        whole = joined.size // 8 * 8
        yield pack(joined[:whole])
        left = joined[whole:]
    yield pack(left)


def count_kept(size: int, share: float) -> int:
    """Return how many of `size` entries a share is: rounded down, as Antidote's code does.

    So of a share that is removed at least one entry goes, however small it is.
    """
    return min(size, math.floor(size * share + 1e-9))


@dataclass
class Largest:
    """The entries with the largest scores: a share of each row, each tensor, or the whole model.

    Either `keep` or `remove` is the share in [0, 1] that is chosen; the number that stays in the
    mask is rounded down (`count_kept`). Of equal scores the first in the tensor, and of tensors the
    first, is chosen. With `smallest` the scores count the other way round. A row is what shares all
    but the last index; a vector is one row. The k-th largest is found exactly, by two readings that
    count the upper and lower 16 bits of the scores.
    """

    scores: ScoreSource
    keep: float | None = None
    remove: float | None = None
    extent: Extent = "tensor"
    smallest: bool = False

    def __post_init__(self) -> None:
        shares = [s for s in (self.keep, self.remove) if s is not None]
        if len(shares) != 1 or not 0 <= shares[0] <= 1:
            raise UserError(
                "parameter_out_of_range",
                "How much is chosen is not said, or not a share.",
                "Say either how much is kept or how much is removed, from 0 to 1.",
                "Choose a share in that range.",
            )
        self._cuts: dict[str, tuple[int, int]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores."""
        return self.scores.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.scores.shape(name)

    def prepare(self, control: Control) -> None:
        """Find the scores at which what is chosen ends."""
        if self.extent == "row":
            return
        groups = [self.names] if self.extent == "model" else [(name,) for name in self.names]
        control.stage("Ranking scores", 2 * len(self.names))
        for group in groups:
            k = self._count(sum(math.prod(self.shape(name)) for name in group))
            key, room = self._cut(group, k, control)
            for name in group:
                self._cuts[name] = key, room
                if self.extent == "model":
                    room = max(0, room - self._equal(name, key))

    def chosen(self, name: str) -> Iterator[Flags]:
        """Yield which entries of a tensor are chosen, bool, in flat order."""
        if self.extent == "row":
            yield from self._rows(name)
            return
        key, room = self._cuts[name]
        for keys in self._keys(name):
            border = np.uint32(key)
            equal = keys == border
            here = int(np.count_nonzero(equal))
            if here <= room:
                yield keys >= border
            else:
                yield (keys > border) | (equal & (np.cumsum(equal) <= room))
            room = max(0, room - here)

    def _count(self, size: int) -> int:
        if self.keep is not None:
            return count_kept(size, self.keep)
        assert self.remove is not None
        return size - count_kept(size, 1 - self.remove)

    def _keys(self, name: str, stride: int = STRIDE) -> Iterator[Keys]:
        numel = math.prod(self.shape(name))
        for low, high in pairwise([*range(0, numel, stride), numel]):
            yield _keys(self.scores.read(name, low, high), name, self.smallest)

    def _rows(self, name: str) -> Iterator[Flags]:
        shape = self.shape(name)
        width = max(shape[-1], 1) if shape else 1
        k = self._count(width)
        for flat in self._keys(name, max(STRIDE // width, 1) * width):
            keys = flat.reshape(-1, width)
            if k == 0:
                yield np.zeros(flat.size, dtype=np.bool_)
                continue
            border = np.partition(keys, width - k, axis=1)[:, width - k, None]
            chosen = keys >= border
            if np.count_nonzero(chosen) > k * len(keys):
                above = keys > border
                room = k - above.sum(axis=1, keepdims=True)
                chosen &= above | (np.cumsum(chosen & ~above, axis=1) <= room)
            yield chosen.reshape(-1)

    def _cut(self, group: Sequence[str], k: int, control: Control) -> tuple[int, int]:
        """Return the k-th largest key of these tensors, and how many at it are among the k."""
        if k == 0:
            return 2**32 - 1, 0
        high = np.zeros(_BINS, dtype=np.int64)
        for name in group:
            for keys in self._keys(name):
                control.check()
                high += np.bincount(keys >> 16, minlength=_BINS)
            control.advance(1)
        top, left = _find(high, k)
        low = np.zeros(_BINS, dtype=np.int64)
        for name in group:
            for keys in self._keys(name):
                control.check()
                low += np.bincount(keys[keys >> 16 == top] & 0xFFFF, minlength=_BINS)
            control.advance(1)
        bottom, room = _find(low, left)
        return (top << 16) | bottom, room

    def _equal(self, name: str, key: int) -> int:
        return sum(int((keys == np.uint32(key)).sum()) for keys in self._keys(name))


@dataclass
class AtLeast:
    """The entries whose score is at least `threshold`."""

    scores: ScoreSource
    threshold: float

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores."""
        return self.scores.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.scores.shape(name)

    def prepare(self, control: Control) -> None:
        """Read nothing: the threshold is known."""

    def chosen(self, name: str) -> Iterator[Flags]:
        """Yield which entries of a tensor are chosen, bool, in flat order."""
        numel = math.prod(self.shape(name))
        for low, high in pairwise([*range(0, numel, STRIDE), numel]):
            values = self.scores.read(name, low, high)
            _keys(values, name, False)
            yield values >= np.float32(self.threshold)


@dataclass
class Difference:
    """What one selection chooses and another does not: top of safety minus top of utility.

    The set difference of Wei et al. 2024, arXiv 2402.05162, section 3.2, whose two selections are
    the largest q and p of the scores of each tensor. Tensors that `minus` does not know lose
    nothing.
    """

    of: Selection
    minus: Selection

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that the first one chooses from."""
        return self.of.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.of.shape(name)

    def prepare(self, control: Control) -> None:
        """Prepare both."""
        self.of.prepare(control)
        self.minus.prepare(control)

    def chosen(self, name: str) -> Iterator[Flags]:
        """Yield which entries of a tensor are chosen, bool, in flat order."""
        if name not in self.minus.names:
            yield from self.of.chosen(name)
            return
        if self.minus.shape(name) != self.shape(name):
            raise UserError(
                "shapes_differ",
                f"The two scores of {name} are not of one shape.",
                f"They have {list(self.shape(name))} and {list(self.minus.shape(name))}.",
                "Use scores that were made with the same models.",
            )
        yield from _without(self.of.chosen(name), self.minus.chosen(name))


def _without(of: Iterator[Flags], minus: Iterator[Flags]) -> Iterator[Flags]:
    """Yield what is in the first and not in the second, whose pieces may be cut elsewhere."""
    left = np.empty(0, dtype=np.bool_)
    for flags in of:
        while left.size < flags.size:
            left = np.concatenate([left, next(minus)])
        yield flags & ~left[: flags.size]
        left = left[flags.size :]


def _keys(values: npt.NDArray[np.float32], name: str, smallest: bool) -> Keys:
    """Return uint32 that sort as the scores do; −0 counts as 0."""
    if np.isnan(values).any():
        raise UserError(
            "scores_not_numbers",
            f"A score in {name} is not a number.",
            "The weights it was computed from hold NaN or Inf.",
            "Train or download that model again, or leave the tensor out.",
        )
    bits = (values + np.float32(0)).view(np.uint32)
    keys: Keys = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    return ~keys if smallest else keys


def _find(counts: npt.NDArray[np.int64], k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest and its place among the bin's, counted from 1."""
    descending = np.cumsum(counts[::-1])
    place = int(np.searchsorted(descending, k))
    above = int(descending[place - 1]) if place else 0
    return _BINS - 1 - place, k - above
