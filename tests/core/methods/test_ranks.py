"""Cuts are exact, and found in one reading where the numbers are bfloat16's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from method_cases import BACKENDS, F32

from trimtab.kernels.piece import Ops, Piece, settle_known
from trimtab.kernels.whole import make_ops
from trimtab.methods.ranks import Cut, rank_passes

Words = npt.NDArray[np.uint16]
UNITS = 3


def bf16(values: npt.ArrayLike) -> Words:
    """Cut to bfloat16, as bits."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: Words) -> F32:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def fine_tuned(size: int, seed: int = 0) -> tuple[Words, Words]:
    """A reference and a model near to it."""
    rng = np.random.default_rng(seed)
    reference = bf16(rng.normal(0, 0.02, size))
    return reference, bf16(widened(reference) + rng.normal(0, 1e-4, size))


def cuts(ops: Ops, reference: Any, model: Any, places: list[int]) -> tuple[list[Cut], int]:
    """The cuts after each of the k largest, and how many passes read anything."""
    numel = reference.shape[0]
    passes = rank_passes(None, [0], lambda nonzero: [(0, k) for k in places])
    facts: list[Any] = []
    reads = 0
    edges = [numel * i // UNITS for i in range(UNITS + 1)]
    while len(facts) < len(passes):
        reads += 1
        units = []
        for unit in range(UNITS):
            part = slice(edges[unit], edges[unit + 1])
            own, other = reference[part], model[part]
            if not passes[len(facts)].takes_stored and isinstance(own, np.ndarray):
                own, other = (
                    widened(v) if v.dtype == np.uint16 else v.copy() for v in (own, other)
                )
            piece = Piece(
                own, [other], (1.0,), (0,), ops, (numel,), numel, edges[unit], unit, facts
            )
            units.append(passes[len(facts)].measure(piece))
        facts.append(passes[len(facts)].settle(units, facts))
        settle_known(passes, facts)
    return facts[1], reads


def wanted(delta: F32, k: int) -> Cut:
    """The same by sorting."""
    order = np.lexsort((np.arange(delta.size), -np.abs(delta.astype(np.float64))))
    key = int(np.abs(delta[order[k - 1]]).view(np.uint32))
    at = np.abs(delta).view(np.uint32) == key
    room = int(at[order[:k]].sum())
    ends = [delta.size * i // UNITS for i in range(UNITS)]
    return Cut(key, room, tuple(int(at[:end].sum()) for end in ends))


def test_cuts_of_bfloat16_models_are_found_in_one_reading_of_what_is_stored() -> None:
    reference, model = fine_tuned(30011)
    places = [1, 300, 9000, 20000, 30011]
    found, reads = cuts(make_ops("numba"), reference, model, places)
    delta = widened(model) - widened(reference)
    assert reads == 1
    assert found == [wanted(delta, k) for k in places]


@pytest.mark.parametrize("backend", BACKENDS)
def test_cuts_of_any_numbers_are_found_in_two(backend: str) -> None:
    rng = np.random.default_rng(3)
    delta = rng.normal(size=20000).astype(np.float32)
    places = [1, 777, 10000, 20000]
    arrays: list[Any] = [np.zeros_like(delta), delta]
    if backend == "torch":
        import torch

        arrays = [torch.from_numpy(a.copy()) for a in arrays]
    found, reads = cuts(make_ops(backend), arrays[0], arrays[1], places)
    assert reads == 2
    assert found == [wanted(delta, k) for k in places]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bin_may_hold_both_its_least_value_and_others(backend: str) -> None:
    rng = np.random.default_rng(4)
    least = np.uint32(0x3DCC8000)
    bits = least + rng.choice(np.array([0, 0, 0, 1, 2, 0x7FFF], np.uint32), 5000)
    delta = bits.view(np.float32) * rng.choice(np.array([-1, 1], np.float32), 5000)
    above = int((bits > least).sum())
    arrays: list[Any] = [np.zeros_like(delta), delta]
    if backend == "torch":
        import torch

        arrays = [torch.from_numpy(a.copy()) for a in arrays]
    for places, readings in (([above + 1, 5000], 1), ([above, above + 1], 2), ([1, 5000, 9], 2)):
        found, reads = cuts(make_ops(backend), arrays[0], arrays[1], places)
        assert reads == readings
        assert found == [wanted(delta, k) for k in places]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_cut_drops_is_what_it_would_keep(backend: str) -> None:
    rng = np.random.default_rng(5)
    delta = (rng.integers(-4, 5, 6000) / 8).astype(np.float32)
    ops = make_ops(backend)
    for k in (1, 500, 2999, 6000):
        cut = wanted(delta, k)
        parts: dict[str, list[F32]] = {"keep": [], "drop": []}
        for name, result in parts.items():
            carry: dict[Any, Any] = {}
            for low in range(0, 6000, 500):
                values: Any = delta[low : low + 500].copy()
                if backend == "torch":
                    import torch

                    values = torch.from_numpy(values)
                piece = Piece(values, [values], (1.0,), (0,), ops, (6000,), 6000, low, 0, (), carry)
                getattr(cut, name)(piece, values, "label")
                result.append(np.asarray(values))
        kept, left = (np.concatenate(parts[name]) for name in ("keep", "drop"))
        np.testing.assert_array_equal(kept + left, delta)
        assert not np.any((kept != 0) & (left != 0))
        chosen = np.zeros(6000, bool)
        chosen[np.lexsort((np.arange(6000), -np.abs(delta)))[:k]] = True
        np.testing.assert_array_equal(kept, np.where(chosen, delta, 0))


def test_inner_products_of_stored_numbers_are_those_of_wide_ones_to_the_bit() -> None:
    ops = make_ops("numba")
    reference, model = fine_tuned(9001)
    _, other = fine_tuned(9001, seed=1)
    stored = ops.gram(reference, [model, other])
    wide = ops.gram(widened(reference), [widened(model), widened(other)])
    np.testing.assert_array_equal(stored, wide)
    changes = [widened(m) - widened(reference) for m in (model, other)]
    vectors = np.array([widened(reference), *changes], np.float64)
    np.testing.assert_allclose(stored, vectors @ vectors.T, rtol=1e-9)
    assert stored[0, 1] == ops.dot(widened(reference), widened(model) - widened(reference))
