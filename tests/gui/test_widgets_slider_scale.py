from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.methods import methods
from trimtab_gui.widgets.slider_scale import DecadeScale, EvenScale, scale_for

EPSILON = DecadeScale(0.0, 0.1, 1e-12)


@given(st.integers(0, EPSILON.steps))
def test_steps_over_decades_come_back_as_they_were(step: int) -> None:
    assert EPSILON.step_of(EPSILON.value_at(step)) == step


def test_decades_have_neat_values_from_the_least_to_the_most() -> None:
    values = [EPSILON.value_at(step) for step in range(EPSILON.steps + 1)]
    assert values == sorted(set(values))
    assert values[0] == 0.0
    assert values[-1] == 0.1
    assert all(value == float(f"{value:.1e}") for value in values)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-8, "1×10⁻⁸"), (1.5e-8, "1.5×10⁻⁸"), (0.0001, "0.0001"), (0.1, "0.1")],
)
def test_small_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert EPSILON.text(value) == text


@pytest.mark.parametrize("value", [0.0, 1e-8, 2.5e-5, 0.1])
def test_what_is_shown_for_typing_reads_back_as_the_same_number(value: float) -> None:
    assert float(EPSILON.editable(value)) == value


def test_every_number_of_every_method_has_a_scale_that_holds_its_default() -> None:
    decades = set()
    for method in methods():
        for p in method.parameters:
            if p.kind not in ("number", "integer"):
                continue
            assert not isinstance(p.default, str)
            scale = scale_for(p.kind, p.minimum, p.maximum, float(p.default))
            assert scale.value_at(0) == p.minimum
            assert scale.value_at(scale.steps) == p.maximum
            assert scale.value_at(scale.step_of(float(p.default))) == pytest.approx(p.default)
            if isinstance(scale, DecadeScale):
                decades.add(f"{method.name}.{p.name}")
    assert {"nearswap.t", "multislerp.eps", "karcher.tol", "ram.epsilon"} <= decades
    assert "ties.density" not in decades


def test_whole_numbers_have_whole_steps() -> None:
    scale = scale_for("integer", 1, 1000, 10)
    assert isinstance(scale, EvenScale)
    assert [scale.value_at(step) for step in (0, 1, 999)] == [1, 2, 1000]
    assert scale.text(10) == "10"
