"""Safe LoRA and its kin, LoX, MergeAlign, RESTA and Safety Arithmetic follow their formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import BACKENDS, F32, assert_close, assert_same_bytes, normal
from references_alignment import (
    Array,
    angle_cosine,
    arc_between,
    each_matrix,
    least_rank,
    projector,
    published,
    replaced_below,
    summed,
    top_share,
)

from trimtab.kernels.piece import random_key
from trimtab.methods import get_method, methods

WITH_BASE = tuple(m.name for m in methods() if m.needs_base)
SHAPES = [(12, 20), (20, 12), (3, 8, 6), (17,)]


def merge(
    name: str,
    tensors: Sequence[F32],
    ratios: Sequence[float],
    *,
    backend: str = "numba",
    **more: Any,
) -> F32:
    """Merge [base, aligned, *models] and check that nothing given was touched."""
    base, aligned, *models = (torch.from_numpy(t.copy()) for t in tensors)
    out = get_method(name).merge(aligned, models, ratios, base=base, backend=backend, **more)
    for tensor, array in zip([base, aligned, *models], tensors, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
    found: F32 = out.numpy()
    assert found.dtype == np.float32
    assert found.shape == tensors[0].shape
    return found


def double(tensors: Sequence[F32]) -> tuple[Array, Array, list[Array]]:
    base, aligned, *models = (t.astype(np.float64) for t in tensors)
    return base, aligned, models


def lineup(shape: tuple[int, ...], models: int, seed: int = 0) -> list[F32]:
    """Base, aligned and models; alignment is strong in few directions, as it is in practice."""
    base, aligned, *rest = normal(shape, models + 1, seed)
    if len(shape) > 1:
        rng = np.random.default_rng(seed + 7)
        u, v = rng.normal(size=(*shape[:-1], 2)), rng.normal(size=(*shape[:-2], 2, shape[-1]))
        strong = np.asarray(0.5 * u @ v, np.float32)
        aligned, rest = aligned + strong, [r + strong for r in rest]
    return [base, aligned, *rest]


def wanted_of(name: str, tensors: Sequence[F32], ratios: Sequence[float], values: Any) -> Array:
    base, aligned, models = double(tensors)
    if name == "safe_lora":
        update = replaced_below(published, values["threshold"])
    elif name == "safe_lora_projector":
        energy = values["energy"]
        update = replaced_below(lambda v: projector(v, least_rank(v, energy)), values["threshold"])
    else:
        assert name == "alignment_subspace"

        def update(v: Array, tau: Array) -> Array:
            inside = projector(v, max(1, int(values["share"] * min(v.shape)))) @ tau
            return inside if values["keep"] == "inside" else tau - inside

    return summed(base, aligned, models, ratios, update)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("safe_lora", {"threshold": 0.0}),
    ("safe_lora", {"threshold": 0.45}),
    ("safe_lora", {"threshold": 1.0}),
    ("safe_lora_projector", {"threshold": 0.5, "energy": 0.9}),
    ("safe_lora_projector", {"threshold": 1.0, "energy": 0.5}),
    ("alignment_subspace", {"keep": "inside", "share": 0.25}),
    ("alignment_subspace", {"keep": "outside", "share": 0.5}),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "values"), CASES)
def test_projecting_methods_equal_their_formulas(
    name: str, values: dict[str, Any], shape: tuple[int, ...], backend: str
) -> None:
    tensors = lineup(shape, 2)
    found = merge(name, tensors, [0.7, 1.2], backend=backend, **values)
    assert_close(found, wanted_of(name, tensors, [0.7, 1.2], values))


def test_the_published_matrix_is_no_projector_and_grows_with_alignment() -> None:
    base, aligned, model = lineup((12, 20), 1)
    tau = (model - aligned).astype(np.float64)
    once = merge("safe_lora", [base, aligned, model], [1.0], threshold=1.0) - aligned
    again = merge("safe_lora", [base, aligned, aligned + once], [1.0], threshold=1.0) - aligned
    assert np.linalg.norm(again - once) > 0.1 * np.linalg.norm(once)
    # twice the alignment vector, twice the change written
    further = base - (aligned - base)
    doubled = merge("safe_lora", [further, aligned, model], [1.0], threshold=1.0) - aligned
    np.testing.assert_allclose(doubled, 2 * once, rtol=1e-3, atol=1e-4)
    assert 0 < angle_cosine(once.astype(np.float64), tau) < 1


@given(seed=st.integers(0, 99))
@settings(max_examples=20)
def test_the_true_projector_changes_nothing_more_when_applied_again(seed: int) -> None:
    base, aligned, model = lineup((10, 14), 1, seed)
    once = merge("safe_lora_projector", [base, aligned, model], [1.0], threshold=1.0)
    again = merge("safe_lora_projector", [base, aligned, once], [1.0], threshold=1.0)
    assert_close(again, once.astype(np.float64), 2e-5)
    further = base - 3 * (aligned - base)  # its size does not count
    other = merge("safe_lora_projector", [further, aligned, model], [1.0], threshold=1.0)
    assert_close(other, once.astype(np.float64), 2e-5)


def test_inside_and_outside_of_the_subspace_add_up_to_the_task_vector() -> None:
    base, aligned, model = lineup((16, 9), 1)
    parts = [
        merge("alignment_subspace", [base, aligned, model], [1.0], keep=keep).astype(np.float64)
        for keep in ("inside", "outside")
    ]
    assert_close(np.float32(sum(parts) - aligned), model.astype(np.float64), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_safemerge_mixes_what_leaves_the_subspace(threshold: float, backend: str) -> None:
    tensors = lineup((3, 12, 20), 2)
    base, aligned, (model, safe) = double(tensors)

    def update(v: Array, tau: Array, kept: Array) -> Array:
        mixed = 0.6 * 0.8 * tau + 0.4 * 1.1 * kept
        return mixed if angle_cosine(published(v) @ tau, tau) < threshold else 0.8 * tau

    wanted = aligned + each_matrix([aligned - base, model - aligned, safe - aligned], update)
    found = merge(
        "safemerge", tensors, [0.8, 1.1], backend=backend, threshold=threshold, weight=0.6
    )
    assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_lox_goes_further_along_the_strongest_directions(rank: int, backend: str) -> None:
    for models in (0, 2):
        tensors = lineup((11, 7), models)
        base, aligned, others = double(tensors)
        u, s, vt = np.linalg.svd(aligned - base)
        k = rank or len(s)
        wanted = aligned + 1.5 * sum(s[i] * np.outer(u[:, i], vt[i]) for i in range(k))
        for model in others:
            wanted = wanted + 0.5 * (model - aligned)
        found = merge("lox", tensors, [0.5] * models, backend=backend, rank=rank, strength=1.5)
        assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", ["line", "arc"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_mergealign_goes_from_the_alignment_vector_to_the_domains(
    path: str, ratio: float, backend: str
) -> None:
    for chunk in (None, 13):
        tensors = lineup((9, 8), 1)
        base, aligned, (model,) = double(tensors)
        a, d = aligned - base, model - base
        mixed = (1 - ratio) * a + ratio * d if path == "line" else arc_between(a, d, ratio)
        found = merge("mergealign", tensors, [ratio], backend=backend, path=path, chunk=chunk)
        assert_close(found, base + mixed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_resta_adds_back_what_the_unsafe_model_lost(backend: str) -> None:
    tensors = lineup((40,), 3)
    _, aligned, (one, two, unsafe) = double(tensors)
    wanted = (
        aligned + 0.7 * (one - aligned) + 0.4 * (two - aligned) + 0.3 * 0.9 * (aligned - unsafe)
    )
    found = merge("resta", tensors, [0.7, 0.4, 0.9], backend=backend, gamma=0.3)
    assert_close(found, wanted)


def test_resta_drops_of_the_fine_tuned_and_never_of_the_unsafe_model() -> None:
    tensors = lineup((4096,), 2)
    _, aligned, (model, unsafe) = double(tensors)
    found = merge("resta", tensors, [1.0, 1.0], gamma=0.5, drop=0.25, labels=["m", "u"], seed=3)
    left = found - aligned - 0.5 * (aligned - unsafe)
    tau = model - aligned
    moved = np.abs(tau) > 1e-3
    kept = np.abs(left - tau / 0.75) < 1e-5
    dropped = np.abs(left) < 1e-5
    assert (kept | dropped)[moved].all()
    assert abs(kept[moved].mean() - 0.75) < 0.03
    from references_random import bernoulli

    drawn = bernoulli(0.75, 4096, random_key(3, "w", "m"))
    np.testing.assert_array_equal(kept[moved], np.asarray(drawn, bool)[moved])


@pytest.mark.parametrize("backend", BACKENDS)
def test_safety_arithmetic_takes_the_largest_of_the_harmful_change_out(backend: str) -> None:
    tensors = lineup((31, 9), 2)
    _, aligned, (model, _) = double(tensors)
    for chunk in (None, 50):
        found = merge(
            "safety_arithmetic", tensors, [0.9, 1.0], backend=backend, strength=3.0, share=0.1,
            chunk=chunk,
        )  # fmt: skip
        tau = np.float32(tensors[3] - tensors[1]).astype(np.float64)
        wanted = aligned + 0.9 * (model - aligned) - 3.0 * top_share(tau, 0.1)
        assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*WITH_BASE, "resta", "safety_arithmetic"])
@pytest.mark.parametrize("shape", [(6, 5), (7,), (2, 3, 4)])
def test_zero_ratios_are_the_aligned_model_to_the_bit(
    name: str, shape: tuple[int, ...], backend: str
) -> None:
    method = get_method(name)
    count = method.takes[1] or max(method.takes[0], 1)
    still = {"strength": 0.0} if name == "lox" else {}
    tensors = lineup(shape, count)
    found = merge(name, tensors, [0.0] * count, backend=backend, **still)
    assert_same_bytes(found, tensors[1])


@pytest.mark.parametrize("name", [n for n in WITH_BASE if n not in ("lox", "alignment_subspace")])
def test_where_alignment_changed_nothing_the_task_vector_stays(name: str) -> None:
    method = get_method(name)
    base, *models = normal((6, 5), method.takes[0])
    found = merge(name, [base, base, *models], [1.0] * len(models), **{})
    assert_close(found, models[0].astype(np.float64), 1e-5)


def test_the_order_of_the_models_does_not_matter() -> None:
    base, aligned, one, two = lineup((8, 9), 2)
    for name in ("safe_lora", "safe_lora_projector", "alignment_subspace", "lox"):
        there = merge(name, [base, aligned, one, two], [0.4, 0.9])
        back = merge(name, [base, aligned, two, one], [0.9, 0.4])
        assert_close(there, back.astype(np.float64), 1e-6)
