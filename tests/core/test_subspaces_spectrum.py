"""Singular values: exact ones are numpy's, sketched ones lie within what they state."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.subspaces.matrices import (
    Held,
    Streamed,
    gram,
    is_finite,
    squared_norm,
    times,
    transposed_times,
)
from trimtab.subspaces.spectrum import (
    effective_rank,
    exact_spectrum,
    residual_bound,
    stable_rank,
    top_spectrum,
)

Floats = npt.NDArray[Any]


def matrix(seed: int, m: int, n: int, decay: float = 0.0, rank: int | None = None) -> Floats:
    """A float32 matrix with singular values i^-decay, of a given rank."""
    draw = np.random.default_rng(seed)
    least = min(m, n)
    u = np.linalg.qr(draw.standard_normal((m, least)))[0]
    v = np.linalg.qr(draw.standard_normal((n, least)))[0]
    s = np.arange(1, least + 1, dtype=float) ** -decay
    s[least if rank is None else rank :] = 0
    return np.asarray((u * s) @ v.T, dtype=np.float32)


def streamed(values: Floats, rows: int) -> Streamed:
    m, n = values.shape
    return Streamed((m, n), lambda low, high: values[low:high].copy(), rows)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(shapes, st.integers(0, 99), st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_streaming_changes_no_product(shape: tuple[int, int], seed: int, rows: int) -> None:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    parts = streamed(values, rows)
    double = values.astype(float)
    side = double.T @ double if shape[1] <= shape[0] else double @ double.T
    np.testing.assert_allclose(gram(parts), side, atol=1e-12 * shape[0] * shape[1])
    np.testing.assert_allclose(gram(Held(values)), side, atol=1e-12 * shape[0] * shape[1])
    assert squared_norm(parts) == pytest.approx(np.sum(double**2))
    left, right = np.eye(shape[0])[:, :2], np.eye(shape[1])[:, :2]
    np.testing.assert_array_equal(times(parts, right), values[:, :2])
    np.testing.assert_array_equal(transposed_times(parts, left), values[:2].T)


def test_one_entry_that_is_no_number_is_seen_in_any_block() -> None:
    values = np.zeros((6, 4), dtype=np.float32)
    assert is_finite(streamed(values, 4))
    values[5, 1] = np.inf
    assert not is_finite(streamed(values, 4))


@pytest.mark.parametrize("shape", [(70, 40), (40, 70), (50, 50), (1, 9), (9, 1)])
@pytest.mark.parametrize("rank", [None, 1])
@pytest.mark.parametrize("rows", [None, 16])
def test_exact_values_are_those_of_a_dense_decomposition(
    shape: tuple[int, int], rank: int | None, rows: int | None
) -> None:
    values = matrix(3, *shape, decay=0.7, rank=rank)
    found = exact_spectrum(Held(values) if rows is None else streamed(values, rows), 12)
    u, s, _ = np.linalg.svd(values.astype(float), full_matrices=False)
    k = min(12, *shape)
    assert found.values.shape == (k,)
    np.testing.assert_allclose(found.values, s[:k], atol=3e-7)
    assert np.all(found.lower <= s[:k])
    assert np.all(s[:k] <= found.upper)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(found.rank), atol=1e-12)
    own = min(k, 4) if rank is None else 1
    np.testing.assert_allclose(
        found.basis[:, :own] @ found.basis[:, :own].T, u[:, :own] @ u[:, :own].T, atol=1e-5
    )
    assert found.norm2 == pytest.approx(np.sum(s**2))
    if rank is None:
        assert found.nuclear == pytest.approx(np.sum(s))
        assert found.log_sum == pytest.approx(np.sum(s * np.log(s)), abs=1e-6)
        assert found.fourth == pytest.approx(np.sum(s**4))


def test_directions_of_zero_values_are_none() -> None:
    values = matrix(5, 30, 20, rank=3)
    # in float32 the rest is rounding, about 1e-8 of the whole
    exactly = (values > 0).astype(np.float32)[:, :2].repeat(5, axis=1)
    assert exact_spectrum(Held(exactly), 10).rank == 2
    nothing = exact_spectrum(Held(np.zeros((6, 4))), 3)
    assert nothing.rank == 0
    assert nothing.basis.shape == (6, 0)
    assert not nothing.values.any()
    assert np.isnan(stable_rank(nothing.norm2, float(nothing.values[0])))
    assert np.isnan(effective_rank(nothing.nuclear, nothing.log_sum))


def test_ranks_of_equal_values_are_their_number() -> None:
    found = exact_spectrum(Held(np.eye(12)[:7] * 0.3), 7)
    assert stable_rank(found.norm2, float(found.values[0])) == pytest.approx(7)
    assert effective_rank(found.nuclear, found.log_sum) == pytest.approx(7)
    one = exact_spectrum(Held(np.outer(np.arange(1.0, 5.0), np.ones(6))), 4)
    assert stable_rank(one.norm2, float(one.values[0])) == pytest.approx(1)
    assert effective_rank(one.nuclear, one.log_sum) == pytest.approx(1)


@given(
    st.integers(0, 10**6), st.integers(40, 130), st.integers(40, 130),
    st.sampled_from([0.0, 0.3, 1.0, 2.5]), st.sampled_from([None, 3, 30]),
    st.sampled_from([1e-9, 1.0, 1e6]), st.integers(1, 16), st.integers(0, 2),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_the_stated_bounds_cover_the_true_values(
    seed: int, m: int, n: int, decay: float, rank: int | None, scale: float, k: int, power: int
) -> None:
    values = matrix(seed, m, n, decay, rank) * np.float32(scale)
    true = np.linalg.svd(values.astype(float), compute_uv=False)[:k]
    found = top_spectrum(Held(values), k, seed, oversampling=4, power=power)
    assert not found.exact
    assert np.all(found.lower <= true)
    assert np.all(true <= found.upper)
    assert np.all(found.lower <= found.values)
    assert np.all(found.values <= found.upper)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(found.rank), atol=1e-10)


def test_bounds_are_narrow_where_the_spectrum_falls() -> None:
    values = matrix(1, 300, 200, decay=1.5)
    found = top_spectrum(Held(values), 8, 0)
    assert np.all(found.upper - found.lower < 0.1 * found.values)
    true = np.linalg.svd(values.astype(float), compute_uv=False)[:8]
    np.testing.assert_allclose(found.values, true, rtol=1e-4)


def test_what_is_left_over_stays_below_its_bound() -> None:
    values = matrix(2, 120, 90)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 10)))[0]
    left = np.linalg.norm(values - basis @ (basis.T @ values), 2) ** 2
    bounds = [residual_bound(Held(values), basis, np.random.default_rng(i)) for i in range(20)]
    assert left <= min(bounds)
    assert max(bounds) < 20 * left
    assert residual_bound(Held(np.zeros((9, 9))), basis[:9], np.random.default_rng(0)) == 0.0


def test_a_sketch_as_large_as_the_matrix_is_exact() -> None:
    values = matrix(4, 30, 20)
    assert top_spectrum(Held(values), 12, 0).exact
    assert not top_spectrum(Held(matrix(4, 60, 50)), 12, 0).exact


@pytest.mark.parametrize("find", ["exact", "top"])
def test_doubling_a_matrix_doubles_its_values(find: str) -> None:
    values = matrix(6, 80, 60, decay=0.5)
    one, two = (
        exact_spectrum(Held(v), 8) if find == "exact" else top_spectrum(Held(v), 8, 1)
        for v in (values, 2 * values)
    )
    np.testing.assert_allclose(two.values, 2 * one.values, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(one.basis * two.basis, axis=0)), 1, atol=1e-5)
    assert stable_rank(two.norm2, two.values[0]) == pytest.approx(
        stable_rank(one.norm2, one.values[0])
    )


def test_same_seed_same_bits() -> None:
    values = matrix(7, 90, 70)
    one, two, other = (top_spectrum(Held(values), 8, seed) for seed in (3, 3, 4))
    assert one.values.tobytes() == two.values.tobytes()
    assert one.upper.tobytes() == two.upper.tobytes()
    assert one.basis.tobytes() == two.basis.tobytes()
    assert one.values.tobytes() != other.values.tobytes()
