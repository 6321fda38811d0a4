"""Computes rows of a weight that an adapter changed, the same bits however they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.adapters import AddedBias, Change, LowRank, TokenRows

Array = npt.NDArray[np.float32]
#: reads rows [first, last) of the model's own weight, float32 [last - first, width]
Rows = Callable[[int, int], Array]
#: returns a whole tensor of the adapter by its row in the index, float32 in its own shape
Factor = Callable[[int], Array]

# Products are made of tiles that begin at multiples of these, each a call of its own to BLAS, so
# that no bit depends on which rows were asked for. With 2^18 multiplications a tile is small enough
# for OpenBLAS to stay on one thread: nor does any bit depend on how many there are.
_ROWS = 64
_DEPTH = 256
_TILE = 1 << 18


def prepare(change: Change, shape: tuple[int, int], base: Rows, factor: Factor) -> Array | None:
    """Compute what `changed_rows` must know of the whole weight: None, or float32 [width].

    Only DoRA on a layer that stores [in, out] asks for it: there a norm is that of a column. The
    arguments are those of `changed_rows`. Reads all rows once.
    """
    if not isinstance(change, LowRank) or change.magnitude is None or not change.transposed:
        return None
    n_rows, width = shape
    squares = np.zeros(width, np.float64)
    for first in range(0, n_rows, _ROWS):
        last = min(first + _ROWS, n_rows)
        changed = base(first, last) + _low_rank(change, shape, first, last, factor)
        squares += np.square(changed, dtype=np.float64).sum(axis=0)
    return _ratio(factor(change.magnitude), squares)


def changed_rows(
    change: Change,
    shape: tuple[int, int],
    first: int,
    last: int,
    base: Rows,
    factor: Factor,
    prepared: Array | None = None,
) -> Array:
    """Return rows [first, last) of a weight as its adapter leaves it.

    float32 [last - first, width], the same bits for a row however many are asked for.
    `shape` is (rows, width), the stored shape with all axes but the last made one; a vector is one
    row. `prepared` is what `prepare` returned for this tensor. Computed in float32, norms of DoRA
    summed in float64.
    """
    values = np.array(base(first, last), np.float32)
    if isinstance(change, TokenRows):
        for place, token in enumerate(change.tokens):
            if first <= token < last:
                values[token - first] = factor(change.row)[place]
    elif isinstance(change, AddedBias):
        values += factor(change.row) * np.float32(change.scale)
    else:
        values += _low_rank(change, shape, first, last, factor)
        if change.magnitude is not None and change.transposed:
            assert prepared is not None
            values *= prepared
        elif change.magnitude is not None:
            magnitude = factor(change.magnitude)[first:last]
            for start in range(0, last - first, _ROWS):
                rows = slice(start, start + _ROWS)
                squares = np.square(values[rows], dtype=np.float64).sum(axis=1)
                values[rows] *= _ratio(magnitude[rows], squares)[:, None]
    return values


def _ratio(magnitude: Array, squares: npt.NDArray[np.float64]) -> Array:
    """Return magnitude over norm; where the norm is zero the weight is too, and stays so."""
    norms = np.sqrt(squares)
    return np.divide(magnitude, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)


def _low_rank(
    change: LowRank, shape: tuple[int, int], first: int, last: int, factor: Factor
) -> Array:
    """Return rows [first, last) of scale * B @ A, float32 [last - first, width]."""
    a, b = factor(change.a), factor(change.b)
    n_rows, width = shape
    stacked = change.expert is None
    per_expert = n_rows // change.experts if stacked else n_rows
    out = np.empty((last - first, width), np.float32)
    row = first
    while row < last:
        expert = row // per_expert if stacked else change.expert
        assert expert is not None
        within = row - expert * per_expert if stacked else row
        begin = within // _ROWS * _ROWS
        end = min(begin + _ROWS, per_expert)
        count = min(end - within, last - row)
        # of stacked experts, A holds one after the other and B all of them in turn
        own_a = a[expert * change.rank : (expert + 1) * change.rank]
        own_b: Any = b[:, expert :: change.experts]
        if change.transposed:
            block = _product(own_a[:, begin:end].T, own_b.T)
        else:
            rows = slice(change.first_out + begin, change.first_out + end)
            block = _product(own_b[rows], own_a)
        out[row - first : row - first + count] = block[within - begin : within - begin + count]
        row += count
    out *= np.float32(change.scale)
    return out


def _product(left: Array, right: Array) -> Array:
    """Return left [n, rank] @ right [rank, width] for n <= 64, tile by tile."""
    n, rank = left.shape
    width = right.shape[1]
    columns = _TILE // _ROWS // (1 << (min(rank, _DEPTH) - 1).bit_length())
    # a lone row or column would go to another routine, which is quicker to use several threads
    padded = np.zeros((max(n, 2), rank), np.float32)
    padded[:n] = left
    out = np.empty((len(padded), width), np.float32)
    for start in range(0, width, columns):
        tile = right[:, start : start + columns]
        if tile.shape[1] == 1:
            tile = np.repeat(tile, 2, axis=1)
        elif not (tile.flags.c_contiguous or tile.T.flags.c_contiguous):
            tile = np.ascontiguousarray(tile)
        part = padded[:, :_DEPTH] @ tile[:_DEPTH]
        for depth in range(_DEPTH, rank, _DEPTH):
            part += padded[:, depth : depth + _DEPTH] @ tile[depth : depth + _DEPTH]
        out[:, start : start + columns] = part[:, : width - start]
    return out[:n]
