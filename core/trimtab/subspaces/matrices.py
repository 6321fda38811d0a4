"""Matrices that are held in memory or come a few rows at a time, and products with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
#: f(first row, row behind the last) -> float32 [rows, n]
ReadRows = Callable[[int, int], Singles]

# elements turned to float64 at a time
_BLOCK = 1 << 21


class Matrix(Protocol):
    """A matrix float32 [m, n] that can be gone through any number of times."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def blocks(self) -> Iterator[tuple[int, Singles]]:
        """Yield (number of the first row, some rows float32 [b, n]) from the top to the bottom."""


class Held:
    """A `Matrix` in memory; other dtypes than float32 are converted."""

    def __init__(self, values: npt.NDArray[Any]):
        self.values: Singles = np.ascontiguousarray(values, dtype=np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        m, n = self.values.shape
        return int(m), int(n)

    def blocks(self) -> Iterator[tuple[int, Singles]]:
        """Yield all rows at once."""
        yield 0, self.values


class Streamed:
    """A `Matrix` that is read anew each time, so many rows at once."""

    def __init__(self, shape: tuple[int, int], read: ReadRows, rows: int):
        self.shape = shape
        self._read = read
        self._rows = max(1, rows)

    def blocks(self) -> Iterator[tuple[int, Singles]]:
        """Yield blocks of rows as they are read."""
        for low in range(0, self.shape[0], self._rows):
            yield low, self._read(low, min(low + self._rows, self.shape[0]))


def times(matrix: Matrix, right: npt.NDArray[Any]) -> Floats:
    """Return matrix @ right, float64 [m, l] of float32 products; `right` is [n, l]."""
    single = np.ascontiguousarray(right, dtype=np.float32)
    out = np.empty((matrix.shape[0], single.shape[1]))
    for low, rows in matrix.blocks():
        out[low : low + len(rows)] = rows @ single
    return out


def transposed_times(matrix: Matrix, left: npt.NDArray[Any]) -> Floats:
    """Return matrix.T @ left, float64 [n, l] of float32 products; `left` is [m, l].

    Sums over blocks are float64.
    """
    single = np.ascontiguousarray(left, dtype=np.float32)
    out = np.zeros((matrix.shape[1], single.shape[1]))
    for low, rows in matrix.blocks():
        out += rows.T @ single[low : low + len(rows)]
    return out


def squared_norm(matrix: Matrix) -> float:
    """Return the squared Frobenius norm, summed in float64."""
    total = 0.0
    for _, rows in matrix.blocks():
        for part in _parts(rows):
            flat = part.reshape(-1)
            total += float(flat @ flat)
    return total


def is_finite(matrix: Matrix) -> bool:
    """Whether no entry is NaN or infinite."""
    return all(bool(np.isfinite(rows).all()) for _, rows in matrix.blocks())


def gram(matrix: Matrix) -> Floats:
    """Return the inner products of the rows or of the columns, whichever are fewer.

    float64 [d, d] with d = min(m, n), computed in float64: of columns (MᵀM) where n ≤ m, of rows
    (MMᵀ) where not. A streamed matrix that is wider than high is read once for each of its
    blocks; what is held at a time is two blocks and the result.
    """
    m, n = matrix.shape
    if n <= m:
        out = np.zeros((n, n))
        for _, rows in matrix.blocks():
            for part in _parts(rows):
                out += part.T @ part
        return out
    out = np.zeros((m, m))
    for low, rows in matrix.blocks():
        top = low + len(rows)
        if len(rows) == m:
            step = max(1, _BLOCK // m)
            for left in range(0, n, step):
                part = rows[:, left : left + step].astype(np.float64)
                out += part @ part.T
            return out
        for other_low, others in matrix.blocks():
            if other_low >= low:
                product = _wide_product(rows, others)
                out[low:top, other_low : other_low + len(others)] = product
                out[other_low : other_low + len(others), low:top] = product.T
    return out


def _wide_product(rows: Singles, others: Singles) -> Floats:
    out = np.zeros((len(rows), len(others)))
    step = max(1, _BLOCK // max(len(rows), len(others)))
    for left in range(0, rows.shape[1], step):
        part = slice(left, left + step)
        out += rows[:, part].astype(np.float64) @ others[:, part].astype(np.float64).T
    return out


def _parts(rows: Singles) -> Iterator[Floats]:
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for low in range(0, len(rows), step):
        yield rows[low : low + step].astype(np.float64)
