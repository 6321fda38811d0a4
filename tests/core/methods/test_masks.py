"""Which entries of a task vector stay: exact counts, exact ties, exact random bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from method_cases import BACKENDS, F32, merge
from references_family import keep_middle, keep_probability, keep_top
from references_random import bernoulli, model_key, words


def kept(name: str, delta: F32, **values: Any) -> F32:
    """S(δ), not rescaled, of one model on a zero reference."""
    if name != "task_arithmetic":
        values = {"rescale": "none", "normalize": False, **values}
    return merge(name, np.zeros_like(delta), [delta], [1.0], **values)


def distinct(shape: tuple[int, ...], seed: int = 0) -> F32:
    """No two magnitudes alike, none zero."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    values = (rng.permutation(n) + 1) * rng.choice([-1, 1], n) / 1024
    return np.asarray(values.reshape(shape), np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("density", [0.0, 1e-6, 0.001, 0.29, 0.5, 0.7, 0.999, 1.0])
def test_ties_keeps_exactly_its_share(density: float, backend: str) -> None:
    for shape in ((100,), (7, 13), (3, 4, 5), (9000,)):
        delta = distinct(shape)
        found = kept("ties", delta, density=density, backend=backend)
        wanted = np.where(keep_top(delta.astype(np.float64), density), delta, 0)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equal_magnitudes_the_first_stay(backend: str) -> None:
    delta = np.array([1, -2, 1, 2, -1, 1, 2, -1], np.float32)
    for k in range(1, 9):
        found = kept("ties", delta, density=k / 8, backend=backend)
        order = [1, 3, 6, 0, 2, 4, 5, 7][:k]
        np.testing.assert_array_equal(np.flatnonzero(found), sorted(order))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_value_everywhere_is_cut_by_index_across_pieces(backend: str) -> None:
    delta = np.full(20000, 0.25, np.float32)
    delta[::3] *= -1
    for chunk in (4096, 8192, 20000):
        found = kept("ties", delta, density=0.61, chunk=chunk, backend=backend)
        np.testing.assert_array_equal(np.flatnonzero(found), np.arange(12200))


@pytest.mark.parametrize("backend", BACKENDS)
def test_magnitudes_one_ulp_apart_are_told_apart(backend: str) -> None:
    start = np.float32(0.1).view(np.uint32)
    delta = (start + np.random.default_rng(0).permutation(5000).astype(np.uint32)).view(np.float32)
    found = kept("ties", delta, density=0.5, chunk=4096, backend=backend)
    np.testing.assert_array_equal(np.sort(found[found != 0]), np.sort(delta)[2500:])


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    density=st.floats(0, 1),
    gamma=st.floats(0, 1),
)
def test_breadcrumbs_keeps_the_middle(
    values: list[int], density: float, gamma: float, backend: str
) -> None:
    delta = np.array(values, np.float32)
    found = kept("breadcrumbs", delta, density=density, gamma=gamma, backend=backend)
    mask = keep_middle(delta.astype(np.float64), density, gamma)
    np.testing.assert_array_equal(found, np.where(mask, delta, 0))


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_breadcrumbs_without_outliers_to_drop_keeps_its_share(gamma: float) -> None:
    delta = distinct((64,))
    assert np.count_nonzero(kept("breadcrumbs", delta, density=0.9, gamma=gamma)) == 57


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("seed", "tensor", "label"), [(0, "w", "0"), (2**63 + 5, "layer.é", "b")])
def test_dare_draws_the_bits_that_are_written_down(
    seed: int, tensor: str, label: str, backend: str
) -> None:
    for shape in ((3,), (1030,), (5, 1700), (13000,)):
        delta = distinct(shape)
        n = delta.size
        found = kept(
            "dare_linear", delta, density=0.37, seed=seed, tensor=tensor, labels=[label],
            backend=backend,
        )  # fmt: skip
        mask = bernoulli(0.37, n, model_key(seed, tensor, label)).reshape(shape)
        np.testing.assert_array_equal(found, np.where(mask, delta, 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_density_equal_to_a_draw_does_not_keep_it_and_one_more_does(backend: str) -> None:
    delta = distinct((16,))
    drawn = words(16, model_key(0, "w", "0"))
    for i in range(16):
        for more in (0, 1):
            density = (int(drawn[i]) + more) / 2**32
            found = kept("dare_linear", delta, density=density, backend=backend)
            np.testing.assert_array_equal(found != 0, drawn < int(drawn[i]) + more)


@pytest.mark.parametrize("backend", BACKENDS)
def test_della_draws_by_rank_in_each_row(backend: str) -> None:
    for shape in ((40,), (5, 900), (3, 4, 50), (30, 2)):
        delta = distinct(shape)
        # Ties in magnitude: the lower index has the lower rank.
        delta.reshape(-1)[1::3] = delta.reshape(-1)[:-1:3][: delta.reshape(-1)[1::3].size]
        found = kept("della_linear", delta, density=0.5, epsilon=0.45, backend=backend)
        p = keep_probability(delta.astype(np.float64), 0.5, 0.45)
        mask = bernoulli(p.ravel(), delta.size, model_key(0, "w", "0")).reshape(shape)
        np.testing.assert_array_equal(found, np.where(mask, delta, 0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [500, 6000])
def test_della_tells_ranks_apart_where_most_magnitudes_are_alike(width: int, backend: str) -> None:
    # in bfloat16 a row has few magnitudes, each of them often; one bin may hold two
    few = np.array([0, 0.5, 1, np.nextafter(np.float32(1), np.float32(2)), 1.5, 4], np.float32)
    delta = np.random.default_rng(1).choice(few, (6, width))
    found = kept("della_linear", delta, density=0.5, epsilon=0.45, backend=backend)
    p = keep_probability(delta.astype(np.float64), 0.5, 0.45)
    mask = bernoulli(p.ravel(), delta.size, model_key(0, "w", "0")).reshape(delta.shape)
    np.testing.assert_array_equal(found, np.where(mask, delta, 0))


@pytest.mark.parametrize("name", ["ties", "dare_linear", "breadcrumbs"])
def test_density_nought_leaves_the_reference_and_one_the_model(name: str) -> None:
    delta = distinct((500,))
    assert not kept(name, delta, density=0.0).any()
    np.testing.assert_array_equal(kept(name, delta, density=1.0), delta)
    rescale = {"rescale": "l1"}
    np.testing.assert_array_equal(kept(name, delta, density=1.0, **rescale), delta)
    assert not kept(name, delta, density=0.0, **rescale).any()


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_masks_of_models_tensors_and_seeds_are_unlike(name: str) -> None:
    delta = distinct((4000,))
    first = kept(name, delta) != 0
    for other in ({"seed": 1}, {"tensor": "v"}, {"labels": ["1"]}):
        second = kept(name, delta, **other) != 0
        assert 0.4 < np.mean(first == second) < 0.6
