"""Each method computes its formula: against dense float64 references, on both backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import (
    BACKENDS,
    FAMILY,
    NAMES,
    RANDOM,
    SUBSPACE,
    TIES_LIKE,
    assert_close,
    count,
    expected,
    lattice,
    merge,
    normal,
    weights,
)
from references import cosine, importance
from references_inputs import Inputs

from trimtab.methods import get_method

CASES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("linear", {"reference_ratio": 0.3}),
    ("linear", {"reference_ratio": 0.5, "normalize": False}),
    ("slerp", {}),
    ("slerp", {"t": 0.0}),
    ("slerp", {"t": 1.0}),
    ("slerp", {"t": 0.3}),
    ("nuslerp", {}),
    ("nuslerp", {"origin": "zero"}),
    ("nuslerp", {"flatten": False}),
    ("nuslerp", {"flatten": False, "row_wise": True}),
    ("nuslerp", {"flatten": False, "origin": "zero"}),
    ("nuslerp", {"flatten": False, "row_wise": True, "origin": "zero"}),
    ("multislerp", {}),
    ("multislerp", {"origin": "zero"}),
    ("multislerp", {"normalize_weights": False}),
    ("multislerp", {"normalize_weights": False, "origin": "zero"}),
    ("multislerp", {"eps": 1e-3}),
    ("karcher", {}),
    ("karcher", {"max_iter": 1}),
    ("karcher", {"max_iter": 100, "tol": 1e-6}),
    ("task_arithmetic", {}),
    ("task_arithmetic", {"scale": 0.4}),
    ("ties", {}),
    ("ties", {"density": 0.7, "normalize": False}),
    ("ties", {"density": [0.1, 0.5, 1.0], "scale": 0.4}),
    ("ties", {"density": 0.3, "rescale": "l1"}),
    ("dare_linear", {}),
    ("dare_linear", {"density": 0.1, "scale": 1.4}),
    ("dare_linear", {"density": [0.2, 0.5, 0.9], "rescale": "l1"}),
    ("dare_linear", {"rescale": "none", "normalize": True}),
    ("dare_ties", {}),
    ("dare_ties", {"density": [0.2, 0.5, 0.9], "normalize": True}),
    ("dare_ties", {"density": 0.4, "rescale": "l1"}),
    ("dare_ties", {"density": 0.4, "rescale": "none", "scale": 0.7}),
    ("della", {}),
    ("della", {"density": [0.3, 0.5, 0.7], "epsilon": [0.05, 0.1, 0.2]}),
    ("della", {"rescale": "l1", "normalize": False, "scale": 0.6}),
    ("della", {"rescale": "none"}),
    ("della_linear", {}),
    ("della_linear", {"density": 0.3, "epsilon": 0.29}),
    ("della_linear", {"rescale": "l1", "normalize": True}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.2, "normalize": True}),
    ("breadcrumbs", {"density": [0.3, 0.9, 1.0], "gamma": [0.0, 0.2, 0.3]}),
    ("breadcrumbs", {"density": 0.5, "rescale": "l1", "scale": 0.5}),
    ("breadcrumbs_ties", {}),
    ("breadcrumbs_ties", {"density": 0.4, "gamma": 0.05, "rescale": "l1", "normalize": True}),
    ("model_stock", {}),
    ("model_stock", {"filter_wise": True}),
    ("sce", {}),
    ("sce", {"select_topk": 0.3}),
    ("sce", {"select_topk": 0.0}),
    ("nearswap", {}),
    ("nearswap", {"t": 0.05}),
    ("passthrough", {}),
    ("passthrough", {"scale": [1.7]}),
    ("ram", {}),
    ("ram", {"epsilon": 0.1}),
    ("ramplus_tl", {}),
    ("ramplus_tl", {"r": 0.5, "alpha": 5.0, "epsilon": 0.1}),
    ("tsv_merge", {}),
    ("tsv_merge", {"scale": 0.5}),
    ("iso_c", {}),
    ("iso_c", {"scale": 0.5}),
    ("iso_cts", {}),
    ("iso_cts", {"common_fraction": 0.3, "scale": 0.5}),
]
IDS = [name + "".join(f"-{k}={v}" for k, v in values.items()) for name, values in CASES]
ROUNDED = {"karcher": 2e-5, "multislerp": 5e-6, "nuslerp": 5e-6}


def tolerance(name: str) -> float:
    return 2e-5 if name in SUBSPACE else ROUNDED.get(name, 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "values"), CASES, ids=IDS)
def test_a_method_is_its_formula(name: str, values: dict[str, Any], backend: str) -> None:
    for shape in ((257,), (24, 35), (35, 24)):
        n = count(name)
        tensors = normal(shape, n, seed=len(shape))
        ratios = weights(n) if get_method(name).weighted else [1.0] * n
        found = merge(name, tensors[0], tensors[1:], ratios, backend=backend, **values)
        assert_close(found, expected(name, tensors, ratios, **values), tolerance(name))


@pytest.mark.parametrize("name", SUBSPACE)
@pytest.mark.parametrize("models", [1, 2, 4])
def test_subspace_methods_with_any_number_of_models(name: str, models: int) -> None:
    tensors = normal((19, 30), models, seed=5)
    ratios = weights(models)
    found = merge(name, tensors[0], tensors[1:], ratios)
    assert_close(found, expected(name, tensors, ratios), 2e-5)


@given(data=st.data(), seed=st.integers(0, 1000), models=st.integers(1, 5))
@settings(max_examples=60)
@pytest.mark.parametrize("name", FAMILY)
def test_where_magnitudes_tie_and_votes_cancel_the_rule_decides(
    name: str, data: st.DataObject, seed: int, models: int
) -> None:
    """On exact sixteenths with power-of-two weights float32 has nothing to round."""
    shape = data.draw(st.sampled_from([(1,), (2,), (7,), (3, 5), (2, 3, 4), (64,)]))
    tensors = lattice(shape, models, seed)
    ratios = data.draw(
        st.lists(st.sampled_from([0.5, 1.0, 2.0, -1.0]), min_size=models, max_size=models)
    )
    values: dict[str, Any] = {}
    if name not in ("task_arithmetic",):
        values["normalize"] = data.draw(st.booleans())
        values["rescale"] = "none"
        values["density"] = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    if name.startswith("breadcrumbs"):
        values["gamma"] = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    if name.startswith("della"):
        values["density"] = data.draw(st.sampled_from([0.25, 0.5, 0.75]))
        most = min(values["density"], 1 - values["density"])
        values["epsilon"] = most * data.draw(st.sampled_from([0.0, 0.5, 0.75]))
    if name in RANDOM:
        values["seed"] = seed
    found = merge(name, tensors[0], tensors[1:], ratios, **values)
    assert_close(found, expected(name, tensors, ratios, **values))


@pytest.mark.parametrize("name", SUBSPACE)
@pytest.mark.parametrize("shape", [(3, 12, 16), (2, 2, 9, 8)])
def test_a_stack_of_experts_is_merged_matrix_by_matrix(name: str, shape: tuple[int, ...]) -> None:
    tensors = normal(shape, 3, seed=6)
    found = merge(name, tensors[0], tensors[1:], weights(3))
    assert_close(found, expected(name, tensors, weights(3)), 2e-5)


@pytest.mark.parametrize("name", ["iso_c", "iso_cts"])
@pytest.mark.parametrize("shape", [(2, 50), (50, 2), (1, 50)])
def test_iso_needs_no_more_directions_than_models(name: str, shape: tuple[int, ...]) -> None:
    """A thin matrix has a spectrum like any other; nothing in the formula asks for rank ≥ N."""
    tensors = normal(shape, 3, seed=6)
    found = merge(name, tensors[0], tensors[1:], weights(3))
    assert_close(found, expected(name, tensors, weights(3)), 2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TIES_LIKE)
def test_a_tied_vote_counts_as_plus(name: str, backend: str) -> None:
    reference = np.zeros(4, np.float32)
    models = [np.array(m, np.float32) for m in ([1, -1, 0, 2], [-1, 1, 0, -2])]
    found = merge(
        name, reference, models, [1.0, 1.0], density=1.0, normalize=False, backend=backend
    )
    np.testing.assert_array_equal(found, [1, 1, 0, 2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cos", [0.9994, 0.99951, 0.999999])
def test_slerp_becomes_a_line_where_the_arc_is_flat(cos: float, backend: str) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    b = rng.normal(size=500)
    b -= a * (a @ b) / (a @ a)
    b = 2 * (cos * a + np.sqrt(1 - cos**2) * b * np.linalg.norm(a) / np.linalg.norm(b))
    tensors = [a.astype(np.float32), b.astype(np.float32)]
    found = merge("slerp", tensors[0], tensors[1:], [1.0], t=0.3, backend=backend)
    wanted = expected("slerp", tensors, [1.0], t=0.3)
    assert (cosine(*(v.astype(np.float64) for v in tensors)) > 0.9995) == (cos > 0.9995)
    assert_close(found, wanted, 2e-5 if cos < 0.9995 else 2e-6)


@pytest.mark.parametrize("shape", [(400,), (20, 64)])
def test_arcee_fusion_takes_what_matters_most(shape: tuple[int, ...]) -> None:
    tensors = normal(shape, 1, size=0.5)
    found = merge("arcee_fusion", tensors[0], tensors[1:], [1.0])
    wanted = expected("arcee_fusion", tensors, [1.0])
    taken = wanted != tensors[0]
    assert 0.005 < taken.mean() < 0.3
    # An entry whose score stands on the threshold may fall either way in float32.
    score = importance(Inputs(tensors[0], tensors[1:], [1.0]))
    low, median, high = np.quantile(score, [0.25, 0.5, 0.75], method="lower")
    sure = np.abs(score - median - 1.5 * (high - low)) > 1e-3 * high
    assert sure.mean() > 0.95
    assert_close(found[sure], wanted[sure])


@pytest.mark.parametrize("n", [8, 9, 10, 11, 12])
def test_arcee_fusion_takes_the_usual_quantiles(n: int) -> None:
    """In one row the score is proportional to |δ|: 0, 1, 2, … and one that is just in or out."""
    low, median, high = np.quantile(np.arange(n), [0.25, 0.5, 0.75], method="lower")
    edge = median + 1.5 * (high - low)
    assert edge > n - 1.5
    for last, taken in ((edge * 1.01, True), (max(edge * 0.99, n - 1.5), False)):
        delta = np.array([*range(n - 1), last], np.float32) / 1024
        found = merge("arcee_fusion", np.zeros(n, np.float32), [delta], [1.0])
        np.testing.assert_array_equal(np.flatnonzero(found), [n - 1] if taken else [])


@pytest.mark.parametrize("exponent", [-20, -10, 10])
@pytest.mark.parametrize("name", ["model_stock", "sce"])
def test_task_vectors_as_small_as_real_ones_are_weighed_alike(name: str, exponent: int) -> None:
    """A formula of cosines and shares has no scale: fine-tuning moves weights by 1e-5, not 1."""
    tensors = normal((300,), 3, seed=3)
    zero = np.zeros_like(tensors[0])
    moves = [(t - tensors[0]) * np.float32(2.0**exponent) for t in tensors[1:]]
    found = merge(name, zero, moves, [1.0] * 3)
    wanted = expected(name, [zero, *moves], [1.0] * 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("values", [{}, {"flatten": False}, {"flatten": False, "row_wise": True}])
@pytest.mark.parametrize("shape", [(1,), (3,), (50, 2), (4, 30)])
@pytest.mark.parametrize("times", [-3.0, -0.7, 0.7, 1.0])
def test_nuslerp_along_one_line_goes_straight(
    times: float, shape: tuple[int, ...], values: dict[str, Any]
) -> None:
    """sin Ω is zero there, however the cosine was rounded; nothing may be divided by it."""
    move = normal(shape, 1, seed=4)[1]
    models = [move, move * np.float32(times)]
    found = merge("nuslerp", np.zeros_like(move), models, [1.0, 1.0], **values)
    assert_close(found, (1 + times) / 2 * move.astype(np.float64))


def test_every_method_has_a_case() -> None:
    assert {name for name, _ in CASES} | {"arcee_fusion"} == set(NAMES)
