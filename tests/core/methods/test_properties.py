"""What holds for every method: zero ratios, one whole model, order, scale, seeds, odd shapes."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import (
    BACKENDS,
    F32,
    FAMILY,
    NAMES,
    RANDOM,
    REDUCTIONS,
    SPARSE,
    SUBSPACE,
    assert_close,
    assert_same_bytes,
    choices,
    count,
    lattice,
    merge,
    normal,
    weights,
)

from trimtab.methods import get_method

shapes = st.sampled_from([(1,), (5,), (3, 4), (2, 3, 4), (1, 7), (7, 1), (130,)])


def whole(name: str) -> dict[str, Any]:
    """The parameters with which nothing of a task vector is left out."""
    return {"density": 1.0} if name in SPARSE else {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["linear", *FAMILY, *SUBSPACE])
@given(shape=shapes, models=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_zero_weights_are_the_reference_to_the_bit(
    name: str, shape: tuple[int, ...], models: int, seed: int, backend: str
) -> None:
    tensors = normal(shape, models, seed)
    found = merge(name, tensors[0], tensors[1:], [0.0] * models, backend=backend)
    assert_same_bytes(found, tensors[0])


@pytest.mark.parametrize("name", [*FAMILY, *SUBSPACE])
def test_zero_scale_is_the_reference_to_the_bit(name: str) -> None:
    tensors = normal((12, 20), 3)
    found = merge(name, tensors[0], tensors[1:], weights(3), scale=0.0)
    assert_same_bytes(found, tensors[0])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("passthrough", "karcher")])
def test_models_that_are_the_reference_change_nothing(name: str) -> None:
    for shape in ((40,), (6, 8)):
        reference = normal(shape, 0)[0]
        models = [reference] * count(name)
        found = merge(name, reference, models, [1.0] * count(name))
        if name in ("slerp", "linear", "karcher"):
            assert_close(found, reference.astype(np.float64), 1e-6)
        else:
            assert_same_bytes(found, reference)


def assert_model_to_one_ulp(found: F32, reference: F32, model: F32) -> None:
    """One ulp of the largest number on the way: ref + (x - ref) cannot do better."""
    largest = np.maximum(np.maximum(np.abs(reference), np.abs(model)), np.abs(model - reference))
    assert (np.abs(found - model) <= np.spacing(largest)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*FAMILY, "sce", "ram"])
@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=15)
def test_one_whole_model_is_that_model(
    name: str, shape: tuple[int, ...], seed: int, backend: str
) -> None:
    reference, model = normal(shape, 1, seed)
    values = whole(name) | ({"epsilon": 0.0} if name == "ram" else {})
    found = merge(name, reference, [model], [1.0], backend=backend, **values)
    assert_model_to_one_ulp(found, reference, model)


@pytest.mark.parametrize("name", SPARSE)
def test_one_whole_model_is_that_model_however_rescaled(name: str) -> None:
    reference, model = normal((300,), 1)
    for rescale in choices(name, "rescale"):
        for normalize in (False, True):
            found = merge(
                name, reference, [model], [1.0],
                rescale=rescale, normalize=normalize, **whole(name),
            )  # fmt: skip
            assert_model_to_one_ulp(found, reference, model)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("linear", {"reference_ratio": 0.0}),
        ("slerp", {"t": 1.0}),
        ("nearswap", {"t": 1.0}),
        ("passthrough", {}),
        ("multislerp", {"origin": "zero"}),
        ("multislerp", {"origin": "reference"}),
        ("karcher", {}),
        ("tsv_merge", {}),
    ],
)
def test_one_model_alone_comes_out_as_it_went_in(name: str, values: dict[str, Any]) -> None:
    reference, model = normal((9, 14), 1)
    found = merge(name, reference, [model], [1.0], **values)
    assert_close(found, model.astype(np.float64), 2e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("linear", {"reference_ratio": 0.0}),
        ("nuslerp", {}),
        ("nuslerp", {"origin": "zero"}),
        ("nuslerp", {"flatten": False}),
        ("multislerp", {}),
        ("multislerp", {"origin": "zero"}),
        ("karcher", {}),
        ("model_stock", {}),
        ("model_stock", {"filter_wise": True}),
        ("sce", {}),
        ("ram", {"epsilon": 0.0}),
        ("ties", {"density": 1.0}),
        ("breadcrumbs_ties", {"density": 1.0, "normalize": True}),
        ("della", {"density": 1.0}),
    ],
)
@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=15)
def test_models_that_are_all_the_same_come_out_as_that_one(
    name: str, values: dict[str, Any], shape: tuple[int, ...], seed: int
) -> None:
    reference, model = normal(shape, 1, seed)
    n = count(name)
    found = merge(name, reference, [model] * n, weights(n, seed), **values)
    largest = float(max(np.abs(reference).max(), np.abs(model).max()))
    np.testing.assert_allclose(found, model, rtol=0, atol=2e-6 * largest)


def test_linear_without_the_reference_is_its_one_model() -> None:
    reference, model = normal((50,), 1)
    found = merge("linear", reference, [model], [1.0], reference_ratio=0.0)
    assert_model_to_one_ulp(found, reference, model)


def test_passthrough_alone_is_exact() -> None:
    reference, model = normal((50,), 1)
    assert_same_bytes(merge("passthrough", reference, [model], [1.0]), model)


@pytest.mark.parametrize("name", [n for n in NAMES if count(n) == 3])
def test_the_order_of_models_does_not_matter(name: str) -> None:
    for shape in ((200,), (12, 16)):
        tensors = normal(shape, 3, seed=4)
        ratios, labels = [0.3, 0.7, 1.1], ["a", "b", "c"]
        values: dict[str, Any] = {"density": [0.4, 0.5, 0.6]} if name in SPARSE else {}
        results = []
        for order in permutations(range(3)):
            if values:
                values["density"] = [[0.4, 0.5, 0.6][i] for i in order]
            results.append(
                merge(
                    name, tensors[0], [tensors[1 + i] for i in order], [ratios[i] for i in order],
                    labels=[labels[i] for i in order], **values,
                )
            )  # fmt: skip
        for other in results[1:]:
            assert_close(other, results[0].astype(np.float64), 2e-5 if name in SUBSPACE else 2e-6)


HOMOGENEOUS = ("task_arithmetic", *SPARSE, "model_stock", "sce", "nuslerp", "multislerp", *SUBSPACE)


@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_task_vectors_scaled_scale_the_result(name: str, factor: float) -> None:
    """On a zero reference and with a power of two nothing but the scale may change."""
    for shape in ((200,), (12, 16)):
        n = count(name)
        models = normal(shape, n, seed=2)[1:]
        zero = np.zeros(shape, np.float32)
        ratios = weights(n)
        once = merge(name, zero, models, ratios)
        scaled = merge(name, zero, [m * np.float32(factor) for m in models], ratios)
        assert_close(scaled, factor * once.astype(np.float64), 2e-5 if name in SUBSPACE else 2e-6)


@pytest.mark.parametrize("name", [*FAMILY, *SUBSPACE])
def test_the_scale_multiplies_what_was_added(name: str) -> None:
    models = normal((12, 16), 3, seed=2)[1:]
    zero = np.zeros((12, 16), np.float32)
    once = merge(name, zero, models, weights(3))
    half = merge(name, zero, models, weights(3), scale=0.5)
    assert_close(half, 0.5 * once.astype(np.float64), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_bytes(name: str) -> None:
    tensors = normal((30, 41), count(name))
    ratios = weights(count(name))
    first = merge(name, tensors[0], tensors[1:], ratios, seed=5)
    assert_same_bytes(first, merge(name, tensors[0], tensors[1:], ratios, seed=5))
    other = merge(name, tensors[0], tensors[1:], ratios, seed=6)
    assert (not np.array_equal(first, other)) == (name in RANDOM)


@pytest.mark.parametrize("name", SPARSE)
def test_nothing_kept_is_the_reference_to_the_bit(name: str) -> None:
    tensors = normal((8, 9), 3)
    for rescale in choices(name, "rescale"):
        for normalize in (False, True):
            found = merge(
                name, tensors[0], tensors[1:], weights(3),
                density=0.0, rescale=rescale, normalize=normalize,
            )  # fmt: skip
            assert_same_bytes(found, tensors[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_any_shape_come_out_in_that_shape_and_finite(name: str, backend: str) -> None:
    for shape in (
        (),
        (0,),
        (0, 4),
        (4, 0),
        (1,),
        (1, 1),
        (2,),
        (3, 1),
        (1, 3),
        (2, 3, 4),
        (2, 2, 2, 2),
    ):
        tensors = normal(shape, count(name), seed=1)
        found = merge(name, tensors[0], tensors[1:], weights(count(name)), backend=backend)
        assert np.isfinite(found).all(), shape


@pytest.mark.parametrize("name", NAMES)
@given(shape=shapes, models=st.integers(2, 4), seed=st.integers(0, 999))
@settings(max_examples=20)
def test_nothing_makes_a_number_that_is_none(
    name: str, shape: tuple[int, ...], models: int, seed: int
) -> None:
    """Zeros, equal models, opposite models and cancelling weights: no NaN and no infinity."""
    rng = np.random.default_rng(seed)
    n = count(name, models)
    reference, *others = lattice(shape, n, seed, steps=1)
    if rng.random() < 0.3:
        reference = np.zeros_like(reference)
    if rng.random() < 0.3:
        others = [reference] * n
    elif rng.random() < 0.3:
        others = [others[0]] * n
    elif rng.random() < 0.5:
        others[1:] = [2 * reference - x for x in others[:-1]]
    ratios = [float(w) for w in rng.choice([0.0, 0.5, 1.0, 2.0], n)]
    found = merge(name, reference, others, ratios)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["iso_c", "iso_cts", "tsv_merge", "model_stock", "sce"])
def test_a_model_that_did_not_move_is_no_obstacle(name: str) -> None:
    tensors = normal((10, 12), 3)
    tensors[2] = tensors[0]
    found = merge(name, tensors[0], tensors[1:], [1.0] * 3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", [n for n in REDUCTIONS if n not in SUBSPACE])
def test_the_size_of_the_numbers_does_not_matter(name: str) -> None:
    """Powers of two round nothing: inner products neither under- nor overflow nor have a floor."""
    reference, *models = normal((300,), count(name), seed=3)
    values = {"eps": 0.0} if name == "multislerp" else {}
    once = merge(name, reference, models, [1.0] * count(name), **values)
    for exponent in (-24, 40):
        size = np.float32(2.0**exponent)
        scaled = merge(
            name, reference * size, [m * size for m in models], [1.0] * count(name), **values
        )
        assert_close(scaled / size, once.astype(np.float64), 1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if not get_method(n).weighted])
def test_where_weights_are_not_used_they_change_nothing(name: str) -> None:
    tensors = normal((20, 30), count(name))
    first = merge(name, tensors[0], tensors[1:], [1.0] * count(name))
    for ratios in ([0.0] * count(name), weights(count(name))):
        assert_same_bytes(merge(name, tensors[0], tensors[1:], ratios), first)


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_zeros_stays_one(name: str) -> None:
    """Biases often are, in every model."""
    for shape in ((8,), (4, 6)):
        zeros = np.zeros(shape, np.float32)
        found = merge(name, zeros, [zeros] * count(name), [1.0] * count(name))
        np.testing.assert_array_equal(found, zeros)
