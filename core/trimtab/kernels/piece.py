"""What a merge method is given: one piece of one tensor, and the primitives to work on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

#: a numpy array on the CPU, a torch tensor elsewhere; float32 unless said otherwise
Array = Any
Counts = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: a mask's bits, uint8: entry i is bit i % 8, counted from the lowest, of byte i // 8
Bits = npt.NDArray[np.uint8]


class Ops(Protocol):
    """The primitives, on arrays of one kind. "In place" changes the first argument.

    All arrays are float32, contiguous and flat unless a method says otherwise. A product and the
    sum it goes into are rounded separately. Besides these, arrays take Python's operators.
    """

    name: str

    def copy(self, values: Array) -> Array:
        """Return a copy."""

    def zeros_like(self, values: Array) -> Array:
        """Return zeros in the same shape."""

    def double(self, values: Array) -> Array:
        """Return the values in float64."""

    def single(self, values: Array) -> Array:
        """Return float64 values in float32."""

    def where(self, condition: Array, yes: Array, no: Array) -> Array:
        """Return `yes` where the condition holds and `no` elsewhere."""

    def exp(self, values: Array) -> Array:
        """Return e to the values."""

    def log(self, values: Array) -> Array:
        """Return the natural logarithm."""

    def sin(self, values: Array) -> Array:
        """Return the sine."""

    def arccos(self, values: Array) -> Array:
        """Return the angle whose cosine the values are."""

    def row_max(self, rows: Array) -> Array:
        """Return the largest value of each row, [rows, 1]."""

    def svd(self, matrix: Array) -> tuple[Array, Array, Array]:
        """Return U [m, r], S [r], Vᵀ [r, n] with r = min(m, n), largest singular value first."""

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join arrays along an axis."""

    def subtract(self, values: Array, other: Array) -> None:
        """values −= other, in place."""

    def add(self, values: Array, other: Array) -> None:
        """values += other, in place."""

    def scale(self, values: Array, factor: float) -> None:
        """values ×= factor, in place."""

    def add_scaled(self, values: Array, other: Array, factor: float) -> None:
        """values += factor × other, in place."""

    def dot(self, left: Array, right: Array) -> float:
        """Return the inner product, summed in float64."""

    def gram(self, reference: Array, models: Sequence[Array], changes_only: bool = False) -> Floats:
        """Return the inner products of [reference, modelᵢ − reference, …], [1 + m, 1 + m].

        Those with the reference are NaN with `changes_only`. Takes bfloat16 bits as well.
        """

    def absolute_sum(self, values: Array) -> float:
        """Return Σ|values|, summed in float64."""

    def count_high(self, values: Array, counts: Counts) -> None:
        """Add to a histogram of the upper 16 of the 31 bits of each |value|, ints [131072].

        Bin 2 × upper holds those whose lower 15 bits are zero, bin 2 × upper + 1 the others.
        """

    def count_change(self, reference: Array, model: Array, counts: Counts) -> None:
        """Do what `count_high` does with model − reference; takes bfloat16 bits as well."""

    def count_low(self, values: Array, high: int, counts: Counts) -> None:
        """Add to a histogram of the lower 15 bits where the upper are `high`, ints [32768]."""

    def count_nonzero(self, values: Array) -> int:
        """Return how many values are not zero."""

    def variance(self, rows: Sequence[Array]) -> Array:
        """Return the variance over several rows, entry by entry: Σ(row − mean)² / rows."""

    def keep_where(self, values: Array, chosen: Array) -> None:
        """Zero the values where `chosen` is zero, in place."""

    def drop_below(self, values: Array, key: int, first: int, room: int) -> int:
        """Zero all but the values whose |bits| exceed `key` and the first ones at it, in place.

        `first` values at `key` came in earlier pieces, `room` are kept of the whole tensor.
        Returns `first` plus those of this piece.
        """

    def drop_above(self, values: Array, key: int, first: int, room: int) -> int:
        """Zero what `drop_below` keeps and leave the rest, in place; returns the same."""

    def drop_random(self, values: Array, p: float, key: int, start: int) -> None:
        """Keep each value with probability p, in place; flat index `start` is the first's."""

    def drop_by_rank(
        self,
        values: Array,
        width: int,
        low: float,
        step: float,
        key: int,
        start: int,
        rescale: bool,
    ) -> None:
        """Keep each value with p = low + step × its rank by size in its row, in place.

        With `rescale` what is kept is divided by its p.
        """

    def agree(
        self, total: Array, value: Array, weight: float, mixed: Array, divisor: Array
    ) -> None:
        """Where `value` has the sign of `total`: mixed += value, divisor += weight, in place."""

    def elect(
        self,
        reference: Array,
        deltas: Sequence[Array],
        factors: Sequence[float],
        shares: Sequence[float],
        normalize: bool,
        scale: float,
        plain_vote: bool = False,
    ) -> Array:
        """Return reference + scale × Σ of those factorᵢ deltasᵢ that have the sign of their sum.

        With `plain_vote` the sign of Σ deltasᵢ, without factors. With `normalize` the result's Σ is
        divided by the sum of the shares that count. Overwrites the deltas.
        """

    def divide_where(self, values: Array, divisor: Array) -> None:
        """values ÷= divisor where that is not zero, in place."""

    def pack_nonzero(self, values: Array) -> Array:
        """Return where values are not zero, packed to bits on the CPU."""

    def keep_packed(self, values: Array, bits: Array) -> None:
        """Zero the values whose bit is not set, in place."""

    def take_packed(self, values: Array, other: Array, bits: Bits) -> None:
        """Put the other value where a bit of a mask is not set, in place; bits as a mask's."""

    def blend(self, values: Array, other: Array, shares: npt.NDArray[np.float32]) -> None:
        """values = other + shares × (values − other), in place; exactly one of them at 0 and 1."""

    def random_words(self, key: int, start: int, count: int) -> npt.NDArray[np.uint32]:
        """Return `count` random words, uint32 on the CPU; flat index `start` is the first's.

        `drop_random` keeps the entries whose word is below p · 2³². Valid in this thread until it
        asks for random numbers again.
        """


@dataclass
class Piece:
    """Consecutive elements of one tensor in every model.

    `reference` and `models` are float32 and may be overwritten (but see `Pass.takes_stored`); flat,
    but for methods that ask for the whole tensor: those get its `shape`. `start` is the flat index
    of the first element in the tensor, `numel` the tensor's size, `keys` the random key of each
    model. `facts` holds what each pass over the tensor has settled. `base` is the base model's for
    methods that ask for it, None for others and where the base model has no such tensor. `carry`
    lives while the pieces of one unit are gone through in order, `store` as long as its tensor is
    worked on.
    """

    reference: Array
    models: list[Array]
    weights: Sequence[float]
    keys: Sequence[int]
    ops: Ops
    shape: tuple[int, ...]
    numel: int
    start: int = 0
    unit: int = 0
    facts: Sequence[Any] = ()
    carry: dict[Any, Any] = field(default_factory=dict)
    store: dict[Any, Any] | None = None
    base: Array | None = None

    @property
    def width(self) -> int:
        """Length of the last axis: the elements of a row."""
        return self.shape[-1] if self.shape else 1

    def deltas(self) -> list[Array]:
        """Turn the models into their task vectors, in place, and return them."""
        for model in self.models:
            self.ops.subtract(model, self.reference)
        return self.models

    def alignment(self) -> Array:
        """Return the alignment vector reference − base; zeros where there is no base tensor."""
        if self.base is None:
            return self.ops.zeros_like(self.reference)
        found = self.ops.copy(self.reference)
        self.ops.subtract(found, self.base)
        return found


@dataclass(frozen=True)
class Outline:
    """What is known of a tensor before it is read: for a method to say what it must measure."""

    shape: tuple[int, ...]
    numel: int
    weights: tuple[float, ...]

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.weights)


#: what one piece contributes: arrays that add up over the pieces of a unit
Measured = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Pass:
    """One reading of a tensor before it is merged.

    `measure(piece)` is called for every piece; what it returns is added up over each unit. Then
    `settle(units, facts)` makes of the units' sums, in order, and of the facts settled before, the
    fact that `Piece.facts` will hold next.
    `kind` names what is measured where it may be known already: "gram", or "changes" for inner
    products of which those with the reference are not looked at. `takes_stored` says that
    `measure` is content with a piece of uint16, the bits of bfloat16, where the primitives are
    compiled. Where `known(facts)` nothing needs to be read and `settle` gets no units.
    """

    measure: Callable[[Piece], Measured]
    settle: Callable[[list[Measured], Sequence[Any]], Any]
    kind: str = ""
    takes_stored: bool = False
    known: Callable[[Sequence[Any]], bool] = lambda facts: False


def settle_known(passes: Sequence[Pass], facts: list[Any]) -> None:
    """Settle the next passes as long as they need nothing to be read."""
    while len(facts) < len(passes) and passes[len(facts)].known(facts):
        facts.append(passes[len(facts)].settle([], facts))


def random_key(seed: int, tensor: str, model: str) -> int:
    """Return the 64-bit key of the random numbers of one tensor of one model."""
    text = f"{seed}\0{tensor}\0{model}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
