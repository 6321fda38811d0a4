"""Rows of an adapted weight: the formula's, and the same bits however they are asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.checkpoints.adapter_apply import changed_rows, prepare
from trimtab.checkpoints.adapters import AddedBias, Change, LowRank, TokenRows

Array = npt.NDArray[np.float32]


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


class Adapted:
    """A weight [rows, width] with a change, and what it must become in float64."""

    def __init__(self, change: Change, weight: Array, *factors: Array):
        self.change, self.weight, self.factors = change, weight, factors
        self.prepared = prepare(change, weight.shape, self._base, self._factor)

    def _base(self, first: int, last: int) -> Array:
        return self.weight[first:last]

    def _factor(self, row: int) -> Array:
        return self.factors[row]

    def rows(self, first: int, last: int) -> Array:
        return changed_rows(
            self.change, self.weight.shape, first, last,
            self._base, self._factor, self.prepared,
        )  # fmt: skip


def linear(
    rank: int, rows: int, width: int, transposed: bool = False, dora: bool = False
) -> Adapted:
    out, into = (width, rows) if transposed else (rows, width)
    change = LowRank(0, 1, rank, 0.75, transposed, 2 if dora else None)
    return Adapted(
        change, noise(1, rows, width), noise(2, rank, into), noise(3, out, rank), noise(4, out)
    )


def stacked(experts: int, transposed: bool = False) -> Adapted:
    rank, out, into = 3, 70, 9
    change = LowRank(0, 1, rank, 0.5, transposed, experts=experts)
    rows, width = (into, out) if transposed else (out, into)
    return Adapted(
        change, noise(1, experts * rows, width),
        noise(2, experts * rank, into), noise(3, out, rank * experts),
    )  # fmt: skip


CASES: dict[str, Callable[[], Adapted]] = {
    "plain": lambda: linear(5, 200, 33),
    "rank one": lambda: linear(1, 129, 17),
    "deep": lambda: linear(300, 130, 20),
    "one row": lambda: linear(4, 1, 50),
    "one column": lambda: linear(4, 129, 1),
    "wide": lambda: linear(100, 65, 129),
    "transposed": lambda: linear(5, 200, 33, transposed=True),
    "DoRA": lambda: linear(5, 200, 33, dora=True),
    "DoRA, transposed": lambda: linear(5, 200, 33, transposed=True, dora=True),
    "experts": lambda: stacked(3),
    "experts, transposed": lambda: stacked(3, transposed=True),
    "bias": lambda: Adapted(AddedBias(0, 0.25), noise(1, 1, 40), noise(2, 40)),
    "tokens": lambda: Adapted(TokenRows(0, (70, 0, 3)), noise(1, 80, 7), noise(2, 3, 7)),
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_are_the_same_bits_however_they_are_asked_for(case: str, data: st.DataObject) -> None:
    adapted = CASES[case]()
    n = len(adapted.weight)
    whole = adapted.rows(0, n)
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    part = adapted.rows(first, last)
    assert part.dtype == np.float32
    assert part.tobytes() == whole[first:last].tobytes()


@pytest.mark.parametrize("case", ["plain", "rank one", "deep", "one row", "one column", "wide"])
def test_low_rank_rows_are_those_of_the_formula(case: str) -> None:
    adapted = CASES[case]()
    a, b = (factor.astype(np.float64) for factor in adapted.factors[:2])
    wanted = adapted.weight + 0.75 * (b @ a)
    np.testing.assert_allclose(
        adapted.rows(0, len(wanted)), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_every_expert_has_its_own_part_of_the_factors(transposed: bool) -> None:
    adapted = stacked(3, transposed)
    a, b = adapted.factors
    wanted = adapted.weight.astype(np.float64).reshape(3, -1, adapted.weight.shape[1])
    for expert in range(3):
        change = 0.5 * b[:, expert::3].astype(np.float64) @ a[3 * expert : 3 * expert + 3]
        wanted[expert] += change.T if transposed else change
    found = adapted.rows(0, len(adapted.weight)).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    if not transposed:
        # stored one by one, with the second half of the outputs in a tensor of its own
        for expert in range(3):
            change = LowRank(0, 1, 3, 0.5, False, experts=3, expert=expert, first_out=30)
            own = Adapted(change, adapted.weight.reshape(3, 70, 9)[expert, 30:], a, b)
            np.testing.assert_allclose(own.rows(0, 40), wanted[expert, 30:], rtol=0, atol=1e-5)


def test_a_row_of_zeros_stays_zero_under_dora() -> None:
    change = LowRank(0, 1, 2, 1.0, False, 2)
    weight = np.stack([np.zeros(4, np.float32), np.ones(4, np.float32)])
    adapted = Adapted(
        change, weight, noise(1, 2, 4), np.zeros((2, 2), np.float32), np.float32([3, 3])
    )
    np.testing.assert_array_equal(adapted.rows(0, 2), [[0, 0, 0, 0], [1.5, 1.5, 1.5, 1.5]])


def test_what_the_adapter_does_not_reach_keeps_its_bits() -> None:
    adapted = CASES["tokens"]()
    found = adapted.rows(0, 80)
    kept = [row for row in range(80) if row not in (70, 0, 3)]
    assert found[kept].tobytes() == adapted.weight[kept].tobytes()
    np.testing.assert_array_equal(found[[70, 0, 3]], adapted.factors[0])


_HASH = """
import hashlib, numpy as np
from trimtab.checkpoints.adapter_apply import changed_rows
from trimtab.checkpoints.adapters import LowRank
a, b = (np.random.default_rng(s).standard_normal((900, 64), dtype=np.float32) for s in (1, 2))
rows = changed_rows(LowRank(0, 1, 64, 1.0, False), (900, 900), 0, 900,
                    lambda i, j: np.zeros((j - i, 900), np.float32), [a.T.copy(), b].__getitem__)
print(hashlib.sha256(rows.tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _HASH],
            env=os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), threads),
            check=True, capture_output=True, text=True,
        ).stdout
        for threads in ("1", "2", "5")
    }  # fmt: skip
    assert len(found) == 1
    assert len(found.pop().strip()) == hashlib.sha256().digest_size * 2
