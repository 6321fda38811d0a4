"""Merge methods: each is its formula, and its coefficients tell the same as its tensors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.methods import get_method, methods

_ratios = st.lists(st.floats(-2, 2), min_size=1, max_size=4)


def tensors(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(257, generator=generator) for _ in range(count)]


@given(ratios=_ratios, scale=st.floats(-2, 2))
def test_task_arithmetic_is_its_formula(ratios: list[float], scale: float) -> None:
    reference, *models = tensors(len(ratios) + 1)
    wanted = reference.double()
    for model, ratio in zip(models, ratios, strict=True):
        wanted = wanted + scale * ratio * (model.double() - reference.double())
    found = get_method("task_arithmetic").combine(
        reference.clone(), [m.clone() for m in models], ratios, scale=scale
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@given(ratios=st.lists(st.floats(0, 2), min_size=1, max_size=4), own=st.floats(0.1, 2))
def test_linear_is_the_weighted_mean(ratios: list[float], own: float) -> None:
    reference, *models = tensors(len(ratios) + 1)
    stack = torch.stack([reference, *models]).double().numpy()
    wanted = np.average(stack, axis=0, weights=[own, *ratios])
    found = get_method("linear").combine(
        reference.clone(), [m.clone() for m in models], ratios, reference_ratio=own
    )
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
@given(data=st.data())
def test_coefficients_tell_what_the_tensors_do(method: Any, data: st.DataObject) -> None:
    ratios = data.draw(st.lists(st.floats(0, 2), min_size=1, max_size=3))
    values = {
        p.name: data.draw(st.floats(max(p.minimum, 0.1), p.maximum)) for p in method.parameters
    }
    reference, *models = tensors(len(ratios) + 1)
    c = method.coefficients(np.array([ratios]), **values)
    assert c.shape == (1, len(ratios))
    wanted = reference.double()
    for model, factor in zip(models, c[0], strict=True):
        wanted = wanted + factor * (model.double() - reference.double())
    found = method.combine(reference.clone(), [m.clone() for m in models], ratios, **values)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
def test_the_order_of_models_does_not_matter(method: Any) -> None:
    reference, *models = tensors(4)
    ratios = [0.3, 0.7, 1.1]
    results = []
    for order in itertools.permutations(range(3)):
        results.append(
            method.combine(
                reference.clone(), [models[i].clone() for i in order], [ratios[i] for i in order]
            )
        )
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-6, atol=1e-6)


def test_ratios_that_cancel_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        get_method("linear").coefficients(np.array([[0.5], [-1.0]]))
    assert caught.value.code == "ratios_cancel"


def test_every_method_says_what_it_is() -> None:
    assert [m.name for m in methods()] == ["linear", "task_arithmetic"]
    for method in methods():
        assert method.title
        assert method.sentence.endswith(".")
        assert "θ" in method.formula
        assert "arXiv" in method.reference
        for parameter in method.parameters:
            assert parameter.minimum <= parameter.default <= parameter.maximum
            assert parameter.title
            assert parameter.sentence.endswith(".")


def test_unknown_methods_and_parameters_are_named() -> None:
    with pytest.raises(UserError) as caught:
        get_method("magic")
    assert caught.value.code == "unknown_method"
    assert "magic" in caught.value.what
    assert "task_arithmetic" in caught.value.why
    method = get_method("task_arithmetic")
    assert method.check({}) == {"scale": 1.0}
    assert method.check({"scale": 0.5}) == {"scale": 0.5}
    for values, code in (
        ({"speed": 1.0}, "unknown_parameter"),
        ({"scale": 5.0}, "parameter_out_of_range"),
        ({"scale": float("nan")}, "parameter_out_of_range"),
    ):
        with pytest.raises(UserError) as caught:
            method.check(values)
        assert caught.value.code == code
        assert next(iter(values)) in caught.value.what
