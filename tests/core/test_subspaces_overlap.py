"""Overlaps are scipy's angles, and chance is what drawing at random gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import beta

from trimtab.subspaces.matrices import Held
from trimtab.subspaces.overlap import (
    by_chance,
    captured,
    captured_by_chance,
    energy_share,
    expected_mso,
    expected_share,
    mso,
    overlap_sum,
    principal_angles,
    random_basis,
)

Floats = npt.NDArray[Any]


def basis(seed: int, d: int, k: int) -> Floats:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0])


@given(st.integers(0, 999), st.integers(8, 40), st.integers(1, 8), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_angles_are_scipys(seed: int, d: int, k: int, l: int) -> None:  # noqa: E741
    u, h = basis(seed, d, k), basis(seed + 1, d, l)
    angles = principal_angles(u, h)
    assert angles.shape == (min(k, l),)
    np.testing.assert_allclose(angles, np.sort(subspace_angles(u, h)), atol=1e-9)
    np.testing.assert_allclose(mso(u, h), np.mean(np.cos(angles) ** 2), atol=1e-12)
    assert mso(u, h) == pytest.approx(mso(h, u))


@pytest.mark.parametrize("angle", [1e-10, 1e-6, 0.3, np.pi / 2])
def test_small_angles_keep_their_digits(angle: float) -> None:
    u = np.eye(5)[:, :1]
    h = np.cos(angle) * np.eye(5)[:, :1] + np.sin(angle) * np.eye(5)[:, 1:2]
    assert principal_angles(u, h)[0] == pytest.approx(angle, rel=1e-9)


def test_overlap_of_what_is_the_same_is_one_and_of_what_is_apart_none() -> None:
    u = basis(0, 12, 3)
    turned = u @ basis(1, 3, 3)
    assert mso(u, turned) == pytest.approx(1)
    assert mso(np.eye(12)[:, :3], np.eye(12)[:, 3:8]) == 0
    assert np.isnan(mso(u, np.zeros((12, 0))))


def test_chance_of_an_overlap_is_the_larger_share_of_dimensions() -> None:
    draw = np.random.default_rng(0)
    u = basis(1, 30, 4)
    found = [mso(u, random_basis(30, 7, draw)) for _ in range(3000)]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected_mso(4, 7, 30), abs=4 * error)
    assert error < 0.002


@pytest.mark.parametrize("spectrum", ["flat", "falling", "single"])
def test_chance_of_a_share_has_the_stated_mean_and_deviation(spectrum: str) -> None:
    d, k, draws = 24, 5, 6000
    s = {"flat": np.ones(d), "falling": np.arange(1, d + 1) ** -1.0, "single": np.eye(d)[0]}[
        spectrum
    ]
    values = (basis(2, d, d) * s) @ basis(3, d, d)
    chance = expected_share(k, d, float(np.sum(s**4) / np.sum(s**2) ** 2))
    assert chance.mean == k / d
    draw = np.random.default_rng(5)
    found = np.array([energy_share(random_basis(d, k, draw), values) for _ in range(draws)])
    assert found.mean() == pytest.approx(k / d, abs=4 * found.std() / np.sqrt(draws) + 1e-7)
    assert found.std() == pytest.approx(chance.deviation, rel=0.05, abs=1e-7)
    if spectrum == "flat":
        assert chance.deviation == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("k", "d"), [(1, 2), (3, 7), (16, 4096)])
def test_what_chance_holds_of_a_single_direction_is_beta_distributed(k: int, d: int) -> None:
    assert expected_share(k, d, 1.0).deviation == pytest.approx(beta(k / 2, (d - k) / 2).std())


def test_a_single_dimension_leaves_nothing_to_chance() -> None:
    assert expected_share(1, 1, 1.0).mean == 1
    assert expected_share(1, 1, 1.0).deviation == 0


def test_shares_are_those_of_the_projection_and_ignore_scale() -> None:
    u = basis(4, 20, 3)
    values = np.random.default_rng(6).standard_normal((20, 9)).astype(np.float32)
    inside = u @ u.T @ values.astype(float)
    share = np.sum(inside**2) / np.sum(values.astype(float) ** 2)
    assert energy_share(u, values) == pytest.approx(share, rel=1e-6)
    assert energy_share(u, 2 * values) == energy_share(u, values)
    assert captured(u, 2 * values) == pytest.approx(4 * captured(u, values))
    assert energy_share(u, inside) == pytest.approx(1, rel=1e-6)
    assert np.isnan(energy_share(u, np.zeros((20, 9))))


@pytest.mark.parametrize("chance", ["rotation", "permutation", "signs"])
def test_each_chance_keeps_bases_orthonormal_and_its_seed(chance: Any) -> None:
    u = basis(7, 16, 3)
    one, two, other = (by_chance(u, 4, seed, chance) for seed in (1, 1, 2))
    for drawn in one:
        np.testing.assert_allclose(drawn.T @ drawn, np.eye(3), atol=1e-12)
    assert [b.tobytes() for b in one] == [b.tobytes() for b in two]
    assert [b.tobytes() for b in one] != [b.tobytes() for b in other]
    if chance == "permutation":
        np.testing.assert_allclose(np.sort(one[0], axis=0), np.sort(u, axis=0))
    if chance == "signs":
        np.testing.assert_allclose(np.abs(one[0]), np.abs(u))


def test_signs_keep_an_overlap_that_comes_from_large_coordinates() -> None:
    u = np.eye(40)[:, :2]
    assert all(mso(u, other) == pytest.approx(1) for other in by_chance(u, 5, 0, "signs"))
    dealt = [mso(u, other) for other in by_chance(u, 200, 0, "permutation")]
    assert np.mean(dealt) == pytest.approx(2 / 40, abs=0.03)


def test_shares_by_permutation_have_the_mean_of_all_permutations() -> None:
    u = np.abs(basis(8, 12, 2))
    u = np.linalg.qr(u)[0]
    values = np.random.default_rng(9).standard_normal((12, 5)) + 1.0
    g, p, d = values @ values.T, u @ u.T, 12
    apart = (g.sum() - np.trace(g)) / (d * (d - 1))
    wanted = np.trace(p) * np.trace(g) / d + (p.sum() - np.trace(p)) * apart
    found = captured_by_chance(by_chance(u, 4000, 1, "permutation"), Held(values))
    assert found.mean() == pytest.approx(wanted, abs=4 * found.std() / np.sqrt(len(found)))
    assert found[3] == pytest.approx(
        captured(by_chance(u, 4, 1, "permutation")[3], values), rel=1e-5
    )
    assert captured_by_chance([np.zeros((12, 0))] * 2, Held(values)).tolist() == [0, 0]


def test_the_sum_of_squared_cosines_is_that_of_the_projectors() -> None:
    u, h = basis(1, 15, 3), basis(2, 15, 5)
    assert overlap_sum(u, h) == pytest.approx(np.trace(u @ u.T @ h @ h.T))
