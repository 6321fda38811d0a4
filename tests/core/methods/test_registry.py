"""Every method says what it is, and refuses by name what it cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from method_cases import COUNTS, NAMES, SPARSE, assert_close, merge, normal

from trimtab.errors import UserError
from trimtab.methods import get_method, methods

LINEAR = ("linear", "task_arithmetic")
#: methods that go by the alignment vector or a harmful model, and how many models each takes; they
#: have tests of their own
ALIGNMENT: dict[str, tuple[int, int | None]] = {
    "alignment_subspace": (1, None),
    "lox": (0, None),
    "mergealign": (1, 1),
    "resta": (2, None),
    "safe_lora": (1, None),
    "safe_lora_projector": (1, None),
    "safemerge": (2, 2),
    "safety_arithmetic": (2, None),
}


def test_all_methods_are_there() -> None:
    assert {m.name for m in methods()} == {*NAMES, *ALIGNMENT}


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
def test_every_method_says_what_it_is(method: Any) -> None:
    assert method.title
    assert method.sentence.endswith(".")
    assert any(sign in method.formula for sign in "θτ")
    assert method.reference
    names = [p.name for p in method.parameters]
    assert len(names) == len(set(names))
    for parameter in method.parameters:
        assert parameter.title
        assert parameter.sentence.endswith(".")
        if parameter.kind == "choice":
            assert parameter.default in parameter.choices
            assert all(parameter.choices.values())
        elif parameter.kind == "switch":
            assert isinstance(parameter.default, bool)
        else:
            assert parameter.minimum <= parameter.default <= parameter.maximum
    assert method.check({}) == {p.name: p.default for p in method.parameters}


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
def test_a_method_says_how_many_models_it_takes(method: Any) -> None:
    fewest, most = method.takes
    if method.name in ALIGNMENT:
        assert method.takes == ALIGNMENT[method.name]
    elif method.name in COUNTS:
        assert (fewest, most) == (COUNTS[method.name],) * 2
    else:
        assert fewest == (2 if method.name == "model_stock" else 1)
        assert most is None


@pytest.mark.parametrize("method", methods(), ids=lambda m: m.name)
def test_a_parameter_outside_of_its_range_is_named(method: Any) -> None:
    for parameter in method.parameters:
        wrong: list[Any] = ["a word"]
        if parameter.kind in ("number", "integer"):
            wrong += [parameter.minimum - 1, parameter.maximum + 1, float("nan"), float("inf")]
        for value in wrong:
            with pytest.raises(UserError) as caught:
                method.check({parameter.name: value})
            assert caught.value.code == "parameter_out_of_range"
            assert parameter.name in caught.value.what


def test_unknown_methods_and_parameters_are_named() -> None:
    with pytest.raises(UserError) as caught:
        get_method("magic")
    assert caught.value.code == "unknown_method"
    assert "magic" in caught.value.what
    assert "task_arithmetic" in caught.value.why
    with pytest.raises(UserError) as caught:
        get_method("task_arithmetic").check({"speed": 1.0})
    assert caught.value.code == "unknown_parameter"
    assert "speed" in caught.value.what


@pytest.mark.parametrize("name", SPARSE)
def test_a_density_may_be_one_for_all_or_one_for_each(name: str) -> None:
    tensors = normal((60,), 3)
    one = merge(name, tensors[0], tensors[1:], [1.0] * 3, density=0.5)
    np.testing.assert_array_equal(
        merge(name, tensors[0], tensors[1:], [1.0] * 3, density=[0.5] * 3), one
    )


@pytest.mark.parametrize("name", LINEAR)
@given(data=st.data())
def test_coefficients_tell_what_the_tensors_do(name: str, data: st.DataObject) -> None:
    method = get_method(name)
    assert method.coefficients is not None
    ratios = data.draw(st.lists(st.floats(0, 2), min_size=1, max_size=3))
    values: dict[str, Any] = {}
    for p in method.parameters:
        if p.kind == "number":
            values[p.name] = data.draw(st.floats(0.1, p.maximum))
    c = method.coefficients(np.array([ratios]), **values)
    assert c.shape == (1, len(ratios))
    reference, *models = normal((257,), len(ratios))
    wanted = reference.astype(np.float64)
    for model, factor in zip(models, c[0], strict=True):
        wanted = wanted + factor * (model.astype(np.float64) - reference)
    assert_close(merge(name, reference, models, ratios, **values), wanted, 1e-5)


def test_only_what_is_a_sum_of_task_vectors_has_coefficients() -> None:
    assert {m.name for m in methods() if m.coefficients is not None} == {
        *LINEAR, "mergealign", "resta",
    }  # fmt: skip


def test_ratios_that_cancel_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        get_method("linear").coefficients(np.array([[0.5], [-1.0]]))
    assert caught.value.code == "ratios_cancel"
    reference, model = normal((4,), 1)
    with pytest.raises(UserError) as caught:
        merge("linear", reference, [model], [-1.0])
    assert caught.value.code == "ratios_cancel"
