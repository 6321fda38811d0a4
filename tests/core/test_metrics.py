"""Metrics: each is its formula, and the quadratic form is the length of a real merge's change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from builders import lineup, llama_tensors, moved, write_model
from trimtab.checkpoints import Lineup
from trimtab.checkpoints.naming import parse
from trimtab.control import Unattended
from trimtab.inspection import metrics
from trimtab.inspection.metrics import BY_ID, METRICS, available
from trimtab.inspection.result import Inspection
from trimtab.inspection.scan import inspect
from trimtab.merging.engine import run_merge
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe, open_lineup


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    aligned = llama_tensors(1, torch.float32)
    write_model(root / "aligned", aligned)
    write_model(root / "base", moved(aligned, 2, 0.05))
    write_model(root / "one", moved(aligned, 3, 0.02, keep=["lm_head.weight"]))
    write_model(root / "two", moved(aligned, 4, 0.01))
    return root


@pytest.fixture(scope="module")
def opened(models: Path) -> Lineup:
    return lineup(models / "aligned", models / "one", models / "two", base=models / "base")


@pytest.fixture(scope="module")
def sums(opened: Lineup) -> Inspection:
    return inspect(opened, Unattended())


def test_each_metric_is_its_formula(models: Path, opened: Lineup, sums: Inspection) -> None:
    tensors = {
        name: load_file(models / name / "model.safetensors")
        for name in ("base", "aligned", "one", "two")
    }
    for i, model in enumerate(("one", "two")):
        values = {metric.id: metric.compute(sums, i) for metric in METRICS}
        for row, name in enumerate(opened.names):
            theta = tensors["aligned"][name].double().numpy().ravel()
            tau = tensors[model][name].double().numpy().ravel() - theta
            a = theta - tensors["base"][name].double().numpy().ravel()
            length = np.linalg.norm(tau)
            wanted = {
                "tau": length,
                "relative": length / np.linalg.norm(theta),
                "alignment": np.linalg.norm(a),
                "cosine": tau @ a / (length * np.linalg.norm(a)) if length else np.nan,
                "rollback": -(tau @ a) / (a @ a),
                "conflict": np.mean(tau * a < 0),
                "zeros": np.mean(tau == 0),
            }
            for key, value in wanted.items():
                assert values[key][row] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), (
                    key
                )


def test_known_readings() -> None:
    """Fine-tuning that takes all of alignment back has cosine -1 and rollback 1."""
    sums = Inspection(
        names=("full", "half", "orthogonal", "none", "no alignment"),
        finetuned=("t",),
        has_alignment=True,
        gram=np.array(
            [[[4, -4], [-4, 4]], [[4, -2], [-2, 1]], [[4, 0], [0, 9]], [[4, 0], [0, 0]],
             [[0, 0], [0, 1]]], dtype=float
        ),
        ref_dots=np.zeros((5, 2)),
        norm2=np.array([1.0, 1.0, 0.0, 1.0, 1.0]),
        numel=np.array([2, 2, 2, 2, 0]),
        conflicts=np.array([[2], [2], [1], [0], [0]]),
        zeros=np.array([[0], [0], [1], [2], [0]]),
        non_finite=np.zeros((5, 3), dtype=np.int64),
    )  # fmt: skip
    nan = np.nan
    for key, wanted in (
        ("cosine", [-1, -1, 0, nan, nan]),
        ("rollback", [1, 0.5, 0, 0, nan]),
        ("tau", [2, 1, 3, 0, 1]),
        ("relative", [2, 1, nan, 0, 1]),
        ("conflict", [1, 1, 0.5, 0, nan]),
        ("zeros", [0, 0, 0.5, 1, nan]),
    ):
        np.testing.assert_allclose(BY_ID[key].compute(sums, 0), wanted, err_msg=key)


def test_without_base_only_what_can_be_known_is_offered(models: Path, sums: Inspection) -> None:
    alone = inspect(lineup(models / "aligned", models / "one"), Unattended())
    assert {m.id for m in available(alone)} == {"relative", "tau", "zeros"}
    assert available(sums) == METRICS
    for metric in METRICS:
        if metric.needs_alignment:
            assert np.isnan(metric.compute(alone, 0)).all(), metric.id


def test_every_text_is_there() -> None:
    assert len({m.id for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.title
        assert metric.sentence.endswith(".")
        assert metric.formula
        assert metric.value_range
        assert metric.reference


_ratio = st.floats(-1.5, 1.5).map(lambda x: round(x, 3))
_layers = st.dictionaries(st.integers(0, 1), _ratio, max_size=2)
_modules = st.dictionaries(st.sampled_from(["q", "down", "norm", "embed"]), _ratio, max_size=2)


@settings(max_examples=20)
@given(
    method=st.sampled_from(["linear", "task_arithmetic"]),
    parameter=st.floats(0.2, 2.0).map(lambda x: round(x, 2)),
    one=st.tuples(_ratio, _layers, _modules),
    two=st.tuples(_ratio.map(abs), st.just({}), st.just({})),
)
def test_the_quadratic_form_is_the_length_of_the_merged_change(
    models: Path, sums: Inspection, tmp_path_factory: pytest.TempPathFactory, method: str,
    parameter: float, one: tuple[float, dict[int, float], dict[str, float]],
    two: tuple[float, dict[int, float], dict[str, float]],
) -> None:  # fmt: skip
    key = "reference_ratio" if method == "linear" else "scale"
    if method == "linear":  # a mean with negative weights may divide by next to nothing
        one = (abs(one[0]), *({k: abs(v) for k, v in part.items()} for part in one[1:]))  # type: ignore[assignment]
    recipe = Recipe(
        method=method,
        parameters={key: parameter},
        base=ModelRef(path=str(models / "base")),
        aligned=ModelRef(path=str(models / "aligned")),
        finetuned=tuple(
            FineTuned(path=str(models / name), ratio=ratio, layers=layers, modules=modules)
            for name, (ratio, layers, modules) in (("one", one), ("two", two))
        ),
        output=Output(dtype="float32"),
    )
    opened = open_lineup(recipe)
    output = tmp_path_factory.mktemp("merged") / "out"
    run_merge(plan_merge(recipe, opened), output, Unattended())
    merged = load_file(output / "model.safetensors")
    aligned = load_file(models / "aligned" / "model.safetensors")
    base = load_file(models / "base" / "model.safetensors")
    places = [parse(name) for name in opened.names]
    layers = np.array([-1 if p.layer is None else p.layer for p in places], dtype=np.int32)
    coefficients = recipe.coefficients(layers, tuple(p.module for p in places))
    assert coefficients is not None
    # |Σ cᵢτᵢ| and its share along −a are quadratic and linear forms in the coefficients
    tau = sums.gram[:, 1:, 1:]
    shift = np.sqrt(np.einsum("ni,nij,nj->n", coefficients, tau, coefficients).clip(0))
    rollback = -np.einsum("ni,ni->n", coefficients, sums.gram[:, 0, 1:]) / sums.gram[:, 0, 0]
    for row, name in enumerate(opened.names):
        change = (merged[name].double() - aligned[name].double()).numpy().ravel()
        a = (aligned[name].double() - base[name].double()).numpy().ravel()
        length = np.linalg.norm(a)
        scale = 1e-6 * float(aligned[name].double().norm())
        assert shift[row] == pytest.approx(np.linalg.norm(change), rel=1e-4, abs=scale), name
        assert rollback[row] == pytest.approx(
            -(change @ a) / length**2, rel=1e-3, abs=2 * scale / length
        ), name


def test_metrics_of_groups_are_those_of_their_joined_tensors(
    models: Path, opened: Lineup, sums: Inspection
) -> None:
    aligned = load_file(models / "aligned" / "model.safetensors")
    one = load_file(models / "one" / "model.safetensors")
    grouped = sums.grouped(opened.grid)
    for group in range(opened.grid.n_groups):
        names = [opened.names[i] for i in opened.grid.members(group)]
        tau = torch.cat([(one[n].double() - aligned[n].double()).flatten() for n in names])
        theta = torch.cat([aligned[n].double().flatten() for n in names])
        wanted = float(tau.norm() / theta.norm())
        assert metrics.relative_norm(grouped, 0)[group] == pytest.approx(wanted, rel=1e-4)


def test_a_tensor_without_alignment_vector_leaves_its_group_the_others() -> None:
    gram = np.array([[[4.0, -2.0], [-2.0, 9.0]], [[np.nan, np.nan], [np.nan, 16.0]]])
    dots = np.array([[1.0, 2.0], [np.nan, 3.0]])
    counts = np.zeros((2, 1), dtype=np.int64)
    sums = Inspection(
        names=("a", "b"), finetuned=("t",), has_alignment=True, gram=gram, ref_dots=dots,
        norm2=np.ones(2), numel=np.array([10, 10]), conflicts=counts, zeros=counts,
        non_finite=np.zeros((2, 3), dtype=np.int64),
    )  # fmt: skip
    whole = sums.total()
    np.testing.assert_array_equal(whole.gram[0], [[4.0, -2.0], [-2.0, 25.0]])
    np.testing.assert_array_equal(whole.ref_dots[0], [1.0, 5.0])
    apart = sums.summed(np.array([0, 1], dtype=np.int32), ("a", "b"))
    np.testing.assert_array_equal(apart.gram, gram)


def test_nan_in_the_weights_stays_nan_in_the_sum() -> None:
    gram = np.array([[[4.0, -2.0], [-2.0, 9.0]], [[np.nan, np.nan], [np.nan, 16.0]]])
    dots = np.array([[1.0, 2.0], [np.nan, 3.0]])
    counts = np.zeros((2, 1), dtype=np.int64)
    sums = Inspection(
        names=("a", "b"), finetuned=("t",), has_alignment=True, gram=gram, ref_dots=dots,
        norm2=np.ones(2), numel=np.array([10, 10]), conflicts=counts, zeros=counts,
        non_finite=np.array([[0, 0, 0], [1, 0, 0]]),
    )  # fmt: skip
    assert np.isnan(sums.total().gram[0, 0, 0])
    assert np.isnan(sums.total().ref_dots[0, 0])
    assert sums.total().ref_dots[0, 1] == 5.0
    assert sums.total().gram[0, 1, 1] == 25.0
