"""A stack of masks, evaluated a piece of a tensor at a time; no tensor's mask need be in memory."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError
from trimtab.kernels.piece import Ops, random_key
from trimtab.masks.bits import Bits, clear_tail, constant, count, pack, unpack
from trimtab.masks.chance import LABEL, limit_of, random_words
from trimtab.masks.entries import Chance, MaskEntry, Op
from trimtab.masks.file import MaskFile

Shares = npt.NDArray[np.float32]
#: entries evaluated at once where a whole tensor is counted; a multiple of 8
STRIDE = 1 << 20


class _Layer(Protocol):
    """One entry of a stack in one tensor; `soft` says which of the two may be asked for."""

    soft: bool
    signature: str

    def bits(self, low: int, high: int) -> Bits: ...
    def shares(self, low: int, high: int) -> Shares: ...


class _Stored:
    def __init__(self, file: MaskFile, name: str):
        self._file, self._name = file, name
        self.soft = file.kind(name) == "soft"
        self.signature = f"file {file.fingerprint}"

    def bits(self, low: int, high: int) -> Bits:
        return self._file.read_bits(self._name, low, high)

    def shares(self, low: int, high: int) -> Shares:
        return self._file.read_soft(self._name, low, high).astype(np.float32)


class _Random:
    soft = False

    def __init__(self, keep: float, key: int):
        self.keep, self._key = keep, key
        self.signature = f"random {keep!r} {key}"

    def bits(self, low: int, high: int) -> Bits:
        return pack(random_words(self._key, low, high - low) <= limit_of(self.keep))

    def shares(self, low: int, high: int) -> Shares:
        return unpack(self.bits(low, high), high - low).astype(np.float32)


@dataclass(frozen=True)
class _Step:
    op: Op
    invert: bool
    layer: _Layer


@dataclass(frozen=True)
class TensorMask:
    """The mask of one tensor, not the same in all of it; entries are evaluated when asked for.

    `title` says in words what it is, `first` whether the stack begins with everything kept.
    With `rescale` the task vector is divided by the mask's mean.
    """

    name: str
    shape: tuple[int, ...]
    title: str
    first: bool
    steps: tuple[_Step, ...]
    rescale: bool = False

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @cached_property
    def soft(self) -> bool:
        """Whether there are values other than 0 and 1 in it."""
        return any(step.layer.soft for step in self.steps)

    @cached_property
    def signature(self) -> str:
        """All that its values depend on, as a hex digest."""
        parts = [f"{step.op} {step.invert} {step.layer.signature}" for step in self.steps]
        text = "\n".join([self.name, str(self.shape), f"{self.first} {self.rescale}", *parts])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def chance(self) -> float | None:
        """The probability of an entry to be kept, where nothing but one random mask decides."""
        layer = self.steps[0].layer
        if len(self.steps) != 1 or not isinstance(layer, _Random):
            return None
        turned = self.first and self.steps[0].op in ("minus", "xor")
        return 1 - layer.keep if turned != self.steps[0].invert else layer.keep

    def bits(self, low: int, high: int) -> Bits:
        """Return entries [low, high) as packed bits, uint8 [ceil((high - low) / 8)].

        Only where the mask is not `soft`.
        """
        size = high - low
        kept = constant(size, self.first)
        for step in self.steps:
            own = step.layer.bits(low, high)
            if step.invert:
                own = clear_tail(~own, size)
            kept = _joined_bits(step.op, kept, own)
        return kept

    def shares(self, low: int, high: int) -> Shares:
        """Return how much of entries [low, high) is kept, float32 [high - low] in [0, 1]."""
        if not self.soft:
            return unpack(self.bits(low, high), high - low).astype(np.float32)
        kept = np.full(high - low, self.first, dtype=np.float32)
        for step in self.steps:
            own = step.layer.shares(low, high)
            kept = _joined_shares(step.op, kept, 1 - own if step.invert else own)
        return kept

    def pieces(self, stride: int = STRIDE) -> Iterator[tuple[int, int]]:
        """Cut the tensor into ranges of at most `stride` entries, a multiple of 8."""
        yield from pairwise([*range(0, self.numel, stride), self.numel])

    @cached_property
    def kept(self) -> float:
        """Σ of the mask's values over the tensor: counted, and known from then on."""
        return _COUNTED.get(self)

    @property
    def mean(self) -> float:
        """The mask's mean over the tensor."""
        return self.kept / max(self.numel, 1)

    def apply(self, ops: Ops, values: Any, reference: Any, low: int) -> None:
        """Take out of a model's values what the mask does not keep, in place.

        `values` and `reference` are float32, entries from `low` on, of any shape: the value becomes
        ref + m · (value − ref), for m = 0 and 1 the very bits of one of them. With `rescale` m is
        divided by the mask's mean; a mask that keeps nothing leaves the reference.
        """
        high = low + math.prod(values.shape)
        if not self.soft and not self.rescale:
            ops.take_packed(values, reference, self.bits(low, high))
            return
        shares = self.shares(low, high)
        if self.rescale and self.kept:
            shares *= np.float32(1 / self.mean)
        ops.blend(values, reference, shares)


def _joined_bits(op: Op, kept: Bits, own: Bits) -> Bits:
    if op == "or":
        return kept | own
    if op == "minus":
        return kept & ~own
    if op == "xor":
        return kept ^ own
    return kept & own


def _joined_shares(op: Op, kept: Shares, own: Shares) -> Shares:
    rest: Shares = 1 - own
    if op == "or":
        return np.maximum(kept, own)
    if op == "minus":
        return np.minimum(kept, rest)
    if op == "xor":
        return np.maximum(np.minimum(kept, rest), np.minimum(1 - kept, own))
    if op == "times":
        return kept * own
    return np.minimum(kept, own)


class _Counted:
    """Remembers the last few thousand masks' sums, by what the masks are."""

    def __init__(self, room: int):
        self._room = room
        self._known: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, mask: TensorMask) -> float:
        key = mask.signature
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        total = 0.0
        for low, high in mask.pieces():
            if mask.soft:
                total += float(mask.shares(low, high).sum(dtype=np.float64))
            else:
                total += count(mask.bits(low, high))
        with self._lock:
            self._known[key] = total
            while len(self._known) > self._room:
                self._known.popitem(last=False)
        return total


_COUNTED = _Counted(1 << 14)


class _Files:
    """Keeps the headers of the last few mask files, for as long as the files stay the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, int], MaskFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path) -> MaskFile:
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(
                "unreadable",
                f"The mask {path.name} cannot be read.",
                f"The system says: {error.strerror}.",
                "Correct its path in the recipe, or take it out of the stack.",
                details=str(path),
            ) from error
        key = (str(path), status.st_size, status.st_mtime_ns)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        file = MaskFile.open(path)
        with self._lock:
            self._known[key] = file
            while len(self._known) > 16:
                self._known.popitem(last=False)
        return file


_FILES = _Files()


class MaskStack:
    """The entries of a stack that are on, with their files open.

    `seed` counts for random entries that have none of their own. Raises `UserError` as
    `MaskFile.open` does, and with `unreadable` for a file that is not there.
    """

    def __init__(self, entries: Sequence[MaskEntry], seed: int = 0, rescale: bool = False):
        self._seed = seed
        self._rescale = rescale
        self._entries = [
            (entry, _FILES.open(Path(entry.path).expanduser()) if entry.path else None)
            for entry in entries
            if entry.on
        ]

    @property
    def files(self) -> tuple[MaskFile, ...]:
        """The mask files it is made of."""
        return tuple(file for _, file in self._entries if file is not None)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `UserError` for what does not fit tensors of these names and shapes.

        With `mask_does_not_fit` for a file that masks a tensor that is not there, or has another
        shape; with `rule_matches_nothing` for a rule that no tensor fits.
        """
        for entry, file in self._entries:
            for name, shape in (file.shapes if file is not None else {}).items():
                if shapes.get(name) != shape:
                    raise _misfit(entry, name, shape, shapes.get(name))
            rule = entry.rule
            painted_nothing = rule is not None and rule.cells == ()
            if rule is not None and not painted_nothing and not any(map(rule.matches, shapes)):
                raise UserError(
                    "rule_matches_nothing",
                    f"The mask {entry.title} is of no tensor.",
                    f"Nothing in the model fits {_told(rule.model_dump(exclude_defaults=True))}.",
                    "Correct its layers, modules or names, or switch it off.",
                )

    def of(self, name: str, shape: tuple[int, ...]) -> TensorMask | bool:
        """Return the mask of a tensor; True where all of it is kept, False where all is removed."""
        first, steps, titles = True, list[_Step](), list[str]()
        for entry, file in self._entries:
            layer = self._layer(entry, file, name)
            if isinstance(layer, bool):
                own = layer != entry.invert
                settled = _settles(entry.op, own)
                if settled is not None:
                    first, steps, titles = settled, [], []
                elif entry.op == "xor" and own:
                    if steps:
                        steps = [*steps, _Step("xor", False, _Everything())]
                    first = first if steps else not first
                continue
            if not steps and _absorbs(entry.op, first):
                continue
            steps.append(_Step(entry.op, entry.invert, layer))
            titles.append(entry.title)
        if not steps:
            return first
        return TensorMask(name, shape, ", ".join(titles), first, tuple(steps), self._rescale)

    def _layer(self, entry: MaskEntry, file: MaskFile | None, name: str) -> _Layer | bool:
        if file is not None:
            kind = file.kind(name)
            return kind == "all" if kind in ("all", "none") else _Stored(file, name)
        if entry.rule is not None:
            return entry.rule.matches(name)
        assert entry.random is not None
        return self._chance(entry.random, name)

    def _chance(self, chance: Chance, name: str) -> _Layer | bool:
        if chance.keep in (0, 1):
            return chance.keep == 1
        seed = self._seed if chance.seed is None else chance.seed
        return _Random(chance.keep, random_key(seed, name, LABEL))


class _Everything:
    soft = False
    signature = "everything"

    def bits(self, low: int, high: int) -> Bits:
        return constant(high - low, True)

    def shares(self, low: int, high: int) -> Shares:
        return np.ones(high - low, dtype=np.float32)


def _settles(op: Op, own: bool) -> bool | None:
    """Return what a constant entry makes of any stack; None where what was before counts."""
    if op == "or":
        return True if own else None
    if op == "minus":
        return False if own else None
    return None if op == "xor" or own else False


def _absorbs(op: Op, first: bool) -> bool:
    """Whether an entry changes nothing of a stack that is all kept, or all removed."""
    return (op == "or" and first) or (op in ("and", "minus", "times") and not first)


def _told(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in rule.items()) or "it"


def _misfit(
    entry: MaskEntry, name: str, own: tuple[int, ...], wanted: tuple[int, ...] | None
) -> UserError:
    return UserError(
        "mask_does_not_fit",
        f"The mask {entry.title} does not fit {name}.",
        f"It is for {list(own)} and the merged model has "
        + (f"{list(wanted)} there." if wanted is not None else "no such tensor."),
        "Use a mask that was made for these models, or make it anew.",
        details=entry.path,
    )
