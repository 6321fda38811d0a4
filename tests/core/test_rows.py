"""Rows gathered from several tensors: each the same whatever else is read with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.rows import ZERO, RowMap, build_row_map


def _map(part: Sequence[int], row: Sequence[int], **more: Any) -> RowMap:
    parts = np.array(part, dtype=np.int64)
    return build_row_map([], parts, np.array(row, dtype=np.int64), **more)


def test_runs_are_read_at_once_and_nothing_else_is() -> None:
    asked = []

    def fetch(part: int, first: int, last: int) -> npt.NDArray[np.float32]:
        asked.append((part, first, last))
        return np.arange(first, last, dtype=np.float32)[:, None] + 1000 * part

    rows = _map([0, 0, 0, 1, 1, ZERO, 0], [5, 6, 7, 2, 3, 0, 9])
    assert rows.read(0, 7, 1, fetch)[:, 0].tolist() == [5, 6, 7, 1002, 1003, 0, 9]
    assert asked == [(0, 5, 8), (1, 2, 4), (0, 9, 10)]
    asked.clear()
    assert rows.read(1, 4, 1, fetch)[:, 0].tolist() == [6, 7, 1002]
    assert asked == [(0, 6, 8), (1, 2, 3)]


def test_rows_do_not_depend_on_what_is_read_with_them() -> None:
    generator = np.random.default_rng(0)
    stored = [generator.normal(size=(3000, 3)).astype(np.float32) for _ in range(2)]
    part = generator.integers(-1, 2, size=2500)
    row = generator.integers(0, 3000, size=2500)
    averaged = {7: ((0, 3), (1, 4)), 1999: ((1, 0), (0, 0), (0, 1))}
    part[[7, 1999]] = ZERO
    rows = _map(part.tolist(), row.tolist(), averaged=averaged, padding=5)

    def fetch(part: int, first: int, last: int) -> npt.NDArray[np.float32]:
        return stored[part][first:last]

    whole = rows.read(0, rows.n_rows, 3, fetch)
    expected = np.zeros((2500, 3), dtype=np.float32)
    for i, (p, r) in enumerate(zip(part, row, strict=True)):
        if p != ZERO:
            expected[i] = stored[p][r]
    expected[7] = (stored[0][3] + stored[1][4]) / 2
    expected[1999] = ((stored[1][0] + stored[0][0]) + stored[0][1]) / np.float32(3)
    np.testing.assert_array_equal(whole[:2500], expected)
    mean = expected.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(whole[2500:], np.tile(mean, (5, 1)), rtol=1e-6)
    for block in (1, 7, 1000):
        pieces = [
            rows.read(first, min(first + block, rows.n_rows), 3, fetch, rows.mean_row(3, fetch))
            for first in range(0, rows.n_rows, block)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_map_without_rows_reads_nothing() -> None:
    assert _map([], []).read(0, 0, 3, lambda p, a, b: np.zeros((0, 3), np.float32)).shape == (0, 3)
