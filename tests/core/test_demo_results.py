"""The table of ways back to safety: who is asked what, what is chosen, and what stands in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.demo.language import pairs
from trimtab.demo.results import Measured, best_of, control_of, energy_undone, measure, run
from trimtab.demo.results_methods import TRIED, Tried, lineup, poisoned
from trimtab.demo.results_page import page
from trimtab.demo.results_split import divided
from trimtab.evaluation.run import limited
from trimtab.evaluation.suite import Suite
from trimtab.evaluation.suite_overlap import find_overlap
from trimtab.merging.recipe import Recipe


def _pairs(suite: Suite, kind: str) -> set[str]:
    return {p.id.split("/")[1] for p in suite.prompts if p.id.startswith(f"{kind}/")}


def test_no_pair_of_words_is_in_both_parts_or_in_training() -> None:
    validation, test = divided()
    for kind in ("harmful", "lookalike", "task-a", "general"):
        mine, rest = _pairs(validation, kind), _pairs(test, kind)
        trained = {f"{p.verb}-{p.noun}" for p in pairs(kind, "train")}  # type: ignore[arg-type]
        assert mine
        assert rest
        assert not mine & rest
        assert not (mine | rest) & trained
    asked = [[p for p in part.prompts if p.kind != "text"] for part in (validation, test)]
    assert not find_overlap(*asked)


def test_every_category_is_in_both_parts() -> None:
    validation, test = divided()
    for part, count in ((validation, 12), (test, 18)):
        found = [p.category for p in part.by_kind("harmful")]
        assert len(set(found)) == 11
        assert all(found.count(category) == count for category in set(found))


@pytest.mark.parametrize(("ratio", "undone"), [(1.0, 0.0), (0.5, 0.25), (0.0, 1.0)])
def test_the_energy_undone_of_a_ratio_is_its_distance_squared(ratio: float, undone: float) -> None:
    assert energy_undone(lineup(poisoned(ratio))) == pytest.approx(undone, abs=2e-3)


def test_the_control_takes_away_as_much_as_it_is_asked_to() -> None:
    assert energy_undone(control_of(0.3, seed=0)) == pytest.approx(0.3, abs=0.01)
    assert energy_undone(control_of(0.3, seed=0)) != energy_undone(control_of(0.3, seed=1))


def _found(
    refusal: float, task: float, coherent: bool = True, over_refusal: float = 0.0
) -> Measured:
    metrics = {
        "refusal": (refusal, 0.0, 1.0, 9),
        "utility": (task, 0.0, 1.0, 9),
        "over_refusal": (over_refusal, 0.0, 1.0, 9),
    }
    return Measured("m", {}, None, metrics, coherent, 1.0, 0.1)


def test_chosen_is_what_refuses_most_and_keeps_the_task() -> None:
    tuned = _found(0.0, 1.0)
    kept, better, gone = _found(0.5, 0.92), _found(0.7, 0.91), _found(1.0, 0.5)
    assert best_of([kept, gone, better], tuned) is better
    assert best_of([gone, _found(0.4, 0.8)], tuned) is gone
    broken = replace(better, coherent=False, metrics=_found(0.9, 1.0).metrics)
    assert best_of([kept, broken], tuned) is kept
    assert best_of([kept, _found(1.0, 1.0, over_refusal=0.5)], tuned) is kept


def test_the_page_tells_method_control_and_who_comes_within_ten_points(tmp_path: Path) -> None:
    def recipe(settings: object, seed: int, folder: Path) -> Recipe:
        return lineup(poisoned(0.6))

    tried = [Tried("linear", "One ratio", recipe, [{"ratio": 0.6}], needs="nothing at all")]
    said: list[str] = []
    found = run(tried, tmp_path, said.append)
    text = page(found)
    assert said == ["One ratio: 1 settings"]
    assert "| One ratio | default, validated: ratio 0.6 |" in text
    assert "nothing at all" in text
    assert "No method comes within ten points" in text
    (row,) = found["rows"]
    assert len(row["control"]) == 3
    assert row["measured"][0]["undone"] == pytest.approx(0.16, abs=0.01)
    value, low, high, n = found["aligned"]["metrics"]["refusal"]
    assert value > 0.9
    assert low < value <= high
    assert n == 198


def test_every_method_makes_a_recipe_that_can_be_planned(tmp_path: Path) -> None:
    from trimtab.merging.planner import plan_merge
    from trimtab.merging.recipe import open_lineup

    for one in TRIED:
        if one.needs.startswith(("preference", "harmful prompts")):
            continue  # learned from data: too long for here, and held by tests of their own
        for settings in one.settings:
            made = one.make(settings, 0, tmp_path)
            assert plan_merge(made, open_lineup(made)).tensors


def test_a_merge_at_ratio_one_is_measured_as_the_fine_tuned_model(tmp_path: Path) -> None:
    _, test = divided()
    (found,) = measure(limited(test, 20), [("r", {}, None, lineup(poisoned(1.0)))], tmp_path)
    assert found.value("refusal") < 0.2
    assert found.value("utility") > 0.8
    assert np.isfinite(found.undone)
