"""`Ops` on numpy arrays by compiled loops: what merges run on where there is no GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.kernels import compiled as c
from trimtab.kernels import compiled_changes as changes
from trimtab.kernels import compiled_masks as m
from trimtab.kernels import compiled_random as r
from trimtab.kernels import compiled_ranks as ranks
from trimtab.kernels.piece import Counts

Vector = npt.NDArray[np.float32]
Gram = npt.NDArray[np.float64]


def _flat(values: Vector) -> Vector:
    """The same elements in one dimension, and the same memory: the loops know nothing else."""
    if values.ndim == 1:
        return values
    assert values.flags.c_contiguous
    return values.reshape(-1)


class CompiledOps:
    """`Ops` on contiguous float32 numpy arrays; safe to use from several threads."""

    name = "numba"

    def __init__(self) -> None:
        self._local = threading.local()

    def _words(self, key: int, start: int, count: int) -> npt.NDArray[np.uint32]:
        """Return random words in this thread's own buffer: a fresh one would cost page faults."""
        words: npt.NDArray[np.uint32] | None = getattr(self._local, "words", None)
        if words is None or words.size < count:
            words = self._local.words = np.empty(count, dtype=np.uint32)
        r.random_words(np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), start, words[:count])
        return words[:count]

    def copy(self, values: Vector) -> Vector:
        return values.copy()

    def zeros_like(self, values: Vector) -> Vector:
        return np.zeros_like(values)

    def double(self, values: Vector) -> npt.NDArray[np.float64]:
        return values.astype(np.float64)

    def single(self, values: npt.NDArray[np.float64]) -> Vector:
        return values.astype(np.float32)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, yes, no)

    def exp(self, values: Vector) -> Vector:
        found: Vector = np.exp(values)
        return found

    def log(self, values: Vector) -> Vector:
        found: Vector = np.log(values)
        return found

    def sin(self, values: Vector) -> Vector:
        found: Vector = np.sin(values)
        return found

    def arccos(self, values: Vector) -> Vector:
        found: Vector = np.arccos(values)
        return found

    def row_max(self, rows: Vector) -> Vector:
        found: Vector = rows.max(axis=-1, keepdims=True)
        return found

    def svd(self, matrix: Vector) -> tuple[Vector, Vector, Vector]:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        return u, s, vt

    def concatenate(self, arrays: Sequence[Vector], axis: int) -> Vector:
        return np.concatenate(arrays, axis=axis)

    def subtract(self, values: Vector, other: Vector) -> None:
        c.subtract(_flat(values), _flat(other))

    def add(self, values: Vector, other: Vector) -> None:
        c.add(_flat(values), _flat(other))

    def scale(self, values: Vector, factor: float) -> None:
        c.scale(_flat(values), np.float32(factor))

    def add_scaled(self, values: Vector, other: Vector, factor: float) -> None:
        c.add_scaled(_flat(values), _flat(other), np.float32(factor))

    def dot(self, left: Vector, right: Vector) -> float:
        return float(c.dot(left, right))

    def gram(self, reference: Any, models: Sequence[Any], changes_only: bool = False) -> Gram:
        found = np.empty((1 + len(models), 1 + len(models)))
        changes.gram(reference, tuple(models), int(changes_only), found)
        found += np.triu(found, 1).T
        if changes_only:
            found[0] = found[:, 0] = np.nan
        return found

    def absolute_sum(self, values: Vector) -> float:
        return float(c.absolute_sum(values))

    def count_high(self, values: Vector, counts: Counts) -> None:
        ranks.count_high(values, counts)

    def count_change(self, reference: Any, model: Any, counts: Counts) -> None:
        ranks.count_change(reference, model, counts)

    def count_low(self, values: Vector, high: int, counts: Counts) -> None:
        ranks.count_low(values, np.uint32(high), counts)

    def count_nonzero(self, values: Vector) -> int:
        return int(np.count_nonzero(values))

    def variance(self, rows: Sequence[Vector]) -> Vector:
        mean = rows[0].copy()
        for row in rows[1:]:
            c.add(mean, row)
        c.scale(mean, np.float32(1.0 / len(rows)))
        total = np.zeros_like(mean)
        for row in rows:
            c.add_square_apart(total, row, mean)
        c.scale(total, np.float32(1.0 / len(rows)))
        return total

    def keep_where(self, values: Vector, chosen: Vector) -> None:
        c.keep_where(values, chosen)

    def drop_below(self, values: Vector, key: int, first: int, room: int) -> int:
        return int(ranks.drop_below(values, np.uint32(key), first, room))

    def drop_above(self, values: Vector, key: int, first: int, room: int) -> int:
        return int(ranks.drop_above(values, np.uint32(key), first, room))

    def drop_random(self, values: Vector, p: float, key: int, start: int) -> None:
        r.drop_random(values, self._words(key, start, values.size), p * 4294967296.0)

    def drop_by_rank(
        self,
        values: Vector,
        width: int,
        low: float,
        step: float,
        key: int,
        start: int,
        rescale: bool,
    ) -> None:
        words = self._words(key, start, values.size)
        drop = r.drop_by_rank_rescaled if rescale else r.drop_by_rank
        drop(values, width, words, low, step)

    def agree(
        self, total: Vector, value: Vector, weight: float, mixed: Vector, divisor: Vector
    ) -> None:
        c.agree(total, value, np.float32(weight), mixed, divisor)

    def elect(
        self,
        reference: Vector,
        deltas: Sequence[Vector],
        factors: Sequence[float],
        shares: Sequence[float],
        normalize: bool,
        scale: float,
        plain_vote: bool = False,
    ) -> Vector:
        single = np.float32
        changes.elect(
            reference, tuple(deltas), np.array(factors, single), np.array(shares, single),
            normalize, single(scale), plain_vote,
        )  # fmt: skip
        return deltas[0]

    def divide_where(self, values: Vector, divisor: Vector) -> None:
        c.divide_where(values, divisor)

    def pack_nonzero(self, values: Vector) -> npt.NDArray[np.uint8]:
        bits = np.empty(-(-values.size // 8), dtype=np.uint8)
        c.pack_nonzero(values, bits)
        return bits

    def keep_packed(self, values: Vector, bits: npt.NDArray[np.uint8]) -> None:
        c.keep_packed(values.view(np.uint32), bits)

    def take_packed(self, values: Vector, other: Vector, bits: npt.NDArray[np.uint8]) -> None:
        m.take_packed(_flat(values).view(np.uint32), _flat(other).view(np.uint32), bits)

    def blend(self, values: Vector, other: Vector, shares: Vector) -> None:
        m.blend(_flat(values), _flat(other), shares)

    def random_words(self, key: int, start: int, count: int) -> npt.NDArray[np.uint32]:
        return self._words(key, start, count)
