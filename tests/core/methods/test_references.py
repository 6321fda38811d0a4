"""The references themselves: known answers, slow loops and facts of geometry that must come out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import arc, karcher, multislerp, ram, ramplus_tl, sce, tangent
from references_family import keep_middle, keep_probability, keep_top, rescaled
from references_inputs import Array, Inputs
from references_random import bernoulli, model_key, philox4x32, words
from references_subspace import iso_c_update, iso_cts_update, polar, tsv_update

small = st.lists(st.integers(-4, 4), min_size=0, max_size=12)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: list[int], key: list[int], answer: str
) -> None:
    out = philox4x32([counter], (key[0], key[1]))[0]
    assert " ".join(f"{int(w):08x}" for w in out) == answer


def test_philox_with_whole_numbers_instead_of_arrays_is_the_same() -> None:
    def slow(c: list[int], k: list[int]) -> list[int]:
        for _ in range(10):
            a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        return c

    key = model_key(7, "layers.3.mlp", "coder")
    for first in (0, 5000, 3 << 40):
        found = words(3000, key, first)
        for offset in (0, 1, 1023, 1024, 2047, 2999):
            i = first + offset
            c = ((i >> 12) << 10) | (i & 1023)
            out = slow([c % 2**32, c >> 32, 0, 0], [key % 2**32, key >> 32])
            assert int(found[offset]) == out[(i >> 10) & 3]


def test_each_word_of_each_block_is_used_once() -> None:
    assert len(set(words(8192, 1).tolist())) > 8190
    share = bernoulli(0.25, 1 << 16, model_key(0, "w", "0")).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / (1 << 16))


@given(values=small, density=st.floats(0, 1.2))
def test_top_density_is_what_a_loop_keeps(values: list[int], density: float) -> None:
    mask = keep_top(np.array(values, float), density)
    n = len(values)
    count = n if density >= 1 else 0 if density <= 0 or not n else max(1, int(density * n))
    left = list(range(n))
    for _ in range(count):
        best = max(left, key=lambda i: (abs(values[i]), -i))
        left.remove(best)
        assert mask[best]
    assert mask.sum() == count


@given(values=small, density=st.floats(0, 1), gamma=st.floats(0, 1))
def test_the_middle_is_what_a_loop_keeps(values: list[int], density: float, gamma: float) -> None:
    n = len(values)
    order = sorted(range(n), key=lambda i: (-abs(values[i]), i))
    stay = int(density * n)
    dropped = min(int(gamma * n), n - stay)
    wanted = set(order[dropped : dropped + stay])
    assert set(np.flatnonzero(keep_middle(np.array(values, float), density, gamma))) == wanted


@given(rows=st.integers(1, 3), row=st.integers(1, 5), data=st.data())
def test_keep_probabilities_rise_along_each_row(rows: int, row: int, data: st.DataObject) -> None:
    flat = data.draw(st.lists(st.integers(-3, 3), min_size=rows * row, max_size=rows * row))
    delta = np.array(flat, float).reshape(rows, row)
    p = keep_probability(delta, 0.5, 0.2)
    for r in range(rows):
        for i in range(row):
            rank = sum((abs(delta[r, j]), j) < (abs(delta[r, i]), i) for j in range(row) if j != i)
            assert p[r, i] == pytest.approx(0.3 + 0.4 * rank / max(row - 1, 1))


def test_rescaling_by_density_is_unbiased_and_by_l1_keeps_the_norm() -> None:
    delta = np.random.default_rng(0).normal(size=512)
    total = np.zeros(512)
    for seed in range(400):
        mask = bernoulli(0.5, 512, model_key(seed, "w", "0"))
        total += rescaled(delta, mask, 0.5, "density")
        assert np.abs(rescaled(delta, mask, 0.5, "l1")).sum() == pytest.approx(np.abs(delta).sum())
    assert np.abs(total / 400 - delta).max() < 5 * np.abs(delta).max() / np.sqrt(400)
    assert not rescaled(delta, np.zeros(512, bool), 0.0, "density").any()
    assert not rescaled(delta, np.zeros(512, bool), 0.0, "l1").any()


def unit(*values: float) -> Array:
    v = np.array(values, float)
    return v / np.linalg.norm(v)


def test_the_arc_divides_the_angle_and_both_means_of_two_are_its_middle() -> None:
    a, b = unit(1, 2, -1, 0.5), unit(0.5, -1, 1, 2)
    whole = np.arccos(a @ b)
    for t in (0.0, 0.2, 0.5, 1.0):
        point = arc(a, b, t, straight=1e-8)
        assert np.linalg.norm(point) == pytest.approx(1)
        assert np.arccos(np.clip(point @ a, -1, 1)) == pytest.approx(t * whole, abs=1e-7)
    f32 = [v.astype(np.float32) for v in (a, b)]
    inputs = Inputs(np.zeros(4, np.float32), f32, [1.0, 1.0])
    middle = arc(*(v.astype(np.float64) for v in f32), 0.5, straight=1e-8)
    np.testing.assert_allclose(karcher(inputs), middle, atol=1e-7)
    np.testing.assert_allclose(multislerp(inputs), middle, atol=1e-7)


def test_karcher_stands_where_the_logarithms_cancel() -> None:
    rng = np.random.default_rng(3)
    models = [rng.normal(size=20).astype(np.float32) for _ in range(4)]
    found = karcher(Inputs(np.zeros(20, np.float32), models, [1.0] * 4), max_iter=200, tol=1e-14)
    units = [m / np.linalg.norm(m) for m in (m.astype(np.float64) for m in models)]
    assert np.linalg.norm(tangent(found / np.linalg.norm(found), units)) < 1e-12


def test_subspace_methods_on_tasks_that_do_not_meet() -> None:
    first = np.diag([4.0, 3.0, 0, 0])
    second = np.diag([0, 0, 2.0, 1.0])
    np.testing.assert_allclose(tsv_update([first, second]), first + second, atol=1e-12)
    np.testing.assert_allclose(iso_c_update([first, second]), 2.5 * np.eye(4), atol=1e-12)
    # One common direction, 10 strong in the sum; outside of it the tasks have 1 and 2 of their own.
    tasks = [np.diag([5.0, 1, 0]), np.diag([5.0, 0, 2])]
    np.testing.assert_allclose(iso_cts_update(tasks, 0.4), 13 / 3 * np.eye(3), atol=1e-12)
    rng = np.random.default_rng(1)
    tasks = [rng.normal(size=(12, 9)) for _ in range(3)]
    for update in (iso_c_update(tasks), iso_cts_update(tasks, 0.5)):
        s = np.linalg.svd(update, compute_uv=False)
        np.testing.assert_allclose(s, s[0])


def test_the_polar_factor_is_the_nearest_orthogonal_matrix() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(6, 4))
    q = polar(a)
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-12)
    best = np.linalg.norm(a - q)
    for _ in range(50):
        other = np.linalg.qr(q + 0.05 * rng.normal(size=a.shape))[0]
        other = other * np.sign(np.sum(other * q, axis=0))
        assert np.linalg.norm(a - other) >= best


def test_ram_by_hand() -> None:
    a = np.array([1, 2, 0, 0, 1e-6], np.float32)
    b = np.array([0, 4, 3, 0, 0], np.float32)
    inputs = Inputs(np.zeros(5, np.float32), [a, b], [1.0, 1.0])
    np.testing.assert_allclose(ram(inputs), [1, 3, 3, 0, 0])
    # One shared entry to one own entry each: the ratio 1 is cut to α.
    np.testing.assert_allclose(ramplus_tl(inputs, r=0.5, alpha=0.2), [1.1, 3, 3.3, 0, 0])


def test_sce_by_hand() -> None:
    a = np.array([2, -1, 0, 1], np.float32)
    b = np.array([1, 3, 0, 1], np.float32)
    inputs = Inputs(np.zeros(4, np.float32), [a, b], [1.0, 1.0])
    wa, wb = 6 / 17, 11 / 17
    np.testing.assert_allclose(sce(inputs), [2 * wa + wb, 3, 0, 1])
    # Two entries vary, half of them is one: the second.
    np.testing.assert_allclose(sce(inputs, select_topk=0.5), [0, 3, 0, 0])
