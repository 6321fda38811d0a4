"""The loops on stored bfloat16 round, refuse and sum as the definitions say, at every edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trimtab.kernels import compiled, compiled_changes
from trimtab.kernels.whole import make_ops

Stored = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def widened(stored: Stored) -> Floats:
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(values: Floats) -> Stored:
    bits: Stored = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    return bits


def stored_models(count: int, size: int, seed: int = 0) -> list[Stored]:
    random = np.random.default_rng(seed)
    origin = random.standard_normal(size).astype(np.float32)
    moved = (origin + 0.1 * random.standard_normal(size).astype(np.float32) for _ in range(count))
    return [rounded(values.astype(np.float32)) for values in (origin, *moved)]


def test_rounding_is_torchs_for_bits_of_all_kinds() -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    values = bits[(bits & 0x7FFFFFFF) < 0x7F7F8000].view(np.float32)
    out = np.empty(values.size, dtype=np.uint16)
    assert compiled.round_bf16(values, out)
    assert np.array_equal(out, rounded(values))


@pytest.mark.parametrize("sign", [0, 1 << 31])
def test_the_largest_number_that_rounds_to_a_finite_one_passes_and_the_next_does_not(
    sign: int,
) -> None:
    for bits, passes in ((0x7F7F7FFF, True), (0x7F7F8000, False), (0x7F800000, False)):
        values = np.zeros(100, dtype=np.uint32)
        values[37] = sign | bits
        out = np.empty(100, dtype=np.uint16)
        assert compiled.round_bf16(values.view(np.float32), out) == passes
        assert bool(np.isfinite(widened(rounded(values.view(np.float32)))).all()) == passes


def test_every_nan_is_refused_wherever_its_payload_lies() -> None:
    for bits in (0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00000):
        values = np.ones(9, dtype=np.float32)
        values.view(np.uint32)[8] = bits
        assert not compiled.round_bf16(values, np.empty(9, dtype=np.uint16))
        assert not compiled.all_finite(values)


def test_each_of_all_65536_stored_numbers_is_told_finite_or_not() -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    found = [bool(compiled.all_finite_bf16(every[i : i + 1])) for i in range(every.size)]
    assert np.array_equal(found, np.isfinite(widened(every)))
    assert compiled.all_finite(np.array([3.4028235e38, -3.4028235e38], dtype=np.float32))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_combination_has_the_bits_of_the_sum_as_it_is_written(count: int) -> None:
    origin, *models = stored_models(count, 5001)
    origin[:2], models[0][:2] = 0x8000, 0x8000  # -0 that has not moved
    factors = np.linspace(0.3, -0.7, count).astype(np.float32)
    first = np.float32(0.9)
    total = np.zeros(origin.size, dtype=np.float32)
    for model, factor in zip(models, factors, strict=True):
        total = total + factor * (widened(model) - widened(origin))
    expected = rounded(first * widened(origin) + total)
    out = np.empty_like(origin)
    assert compiled.combine_bf16(origin, tuple(models), first, factors, out)
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_combination_that_overflows_is_told(count: int) -> None:
    origin, *models = stored_models(count, 3000)
    models[-1][2999] = 0x7F00  # 1.7e38
    factors = np.full(count, 3.0, dtype=np.float32)
    out = np.empty_like(origin)
    assert not compiled.combine_bf16(origin, tuple(models), np.float32(1.0), factors, out)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["stored", "float32"])
def test_inner_products_are_those_of_float64(count: int, kind: str) -> None:
    stored = stored_models(count, 3 * compiled.BLOCK + 17)
    given: list[Any] = stored if kind == "stored" else [widened(s) for s in stored]
    out = np.empty((1 + count, 1 + count))
    compiled_changes.gram(given[0], tuple(given[1:]), 0, out)
    origin, *models = (widened(s) for s in stored)
    # the task vectors are float32, as every method sees them
    vectors = np.array([origin, *(m - origin for m in models)]).astype(np.float64)
    upper = np.triu_indices(1 + count)
    exact = (vectors @ vectors.T)[upper]
    scale = np.sqrt(np.outer(*(2 * [(vectors * vectors).sum(1)])))[upper]
    assert np.all(np.abs(out[upper] - exact) <= 1e-12 * scale)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_inner_products_do_not_depend_on_cuts_at_whole_blocks(count: int) -> None:
    origin, *models = stored_models(count, 4 * compiled.BLOCK)
    whole, parts = np.empty((1 + count, 1 + count)), np.zeros((1 + count, 1 + count))
    compiled_changes.gram(origin, tuple(models), 0, whole)
    one = np.empty_like(whole)
    for low in range(0, origin.size, compiled.BLOCK):
        cut = slice(low, low + compiled.BLOCK)
        compiled_changes.gram(origin[cut], tuple(m[cut] for m in models), 0, one)
        parts += one
    assert np.array_equal(np.triu(whole), np.triu(parts))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_inner_products_of_changes_alone_are_the_same_and_the_others_are_not_numbers(
    backend: str,
) -> None:
    ops = make_ops(backend)
    given: list[Any] = [widened(s) for s in stored_models(3, 2 * compiled.BLOCK + 5)]
    if backend == "torch":
        given = [torch.from_numpy(values) for values in given]
    every, few = ops.gram(given[0], given[1:]), ops.gram(given[0], given[1:], changes_only=True)
    assert np.array_equal(every, every.T)
    assert np.array_equal(few[1:, 1:], every[1:, 1:])
    assert np.isnan(few[0]).all()
    assert np.isnan(few[:, 0]).all()
