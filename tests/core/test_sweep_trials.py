"""The trials of a sweep: the same whether it was killed or not, and none lost silently."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from trimtab.errors import UserError
from trimtab.search.objectives import Number, parse_objectives
from trimtab.search.space import Dimension, Value
from trimtab.search.trials import Asked, SamplerName, Trials, grid, refuse_unfit

TWO = parse_objectives(("refusal", "task"), "probes")
ONE = parse_objectives(("task",), "probes")
NUMBERS = (Dimension("x"), Dimension("y", 1e-3, 1.0, log=True), Dimension("k", 1, 6, integer=True))
MIXED = (*NUMBERS, Dimension("method", choices=("a", "b")))


def opened(
    folder: Path,
    sampler: SamplerName,
    dimensions: Sequence[Dimension] = MIXED,
    objectives: tuple[Number, ...] = TWO,
    **more: Any,
) -> Trials:
    trials = Trials(folder, dimensions, objectives, sampler, 7, population=4, **more)
    trials.mend()
    return trials


def told(trials: Trials, asked: Asked) -> None:
    x = float(asked.params["x"])
    values = [x, 1 - x * x] if len(trials._objectives) == 2 else [1 - (x - 0.3) ** 2]
    trials.tell(asked.number, values, {"small": x - 0.9}, {"measured": {"task": x}})


def points(trials: Trials) -> list[tuple[Value, ...]]:
    return [tuple(t.params[name] for name in sorted(t.params)) for t in trials.found]


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_a_sweep_that_was_killed_makes_the_same_trials(
    tmp_path: Path, sampler: SamplerName
) -> None:
    dimensions, objectives = (NUMBERS, ONE) if sampler == "cmaes" else (MIXED, TWO)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = opened(tmp_path / "whole", sampler, dimensions, objectives)
    for _ in range(14):
        [asked] = whole.ask(1)
        told(whole, asked)
    wanted = points(whole)
    whole.close()

    left = 14
    for lost in (3, 6, 5):
        trials = opened(tmp_path / "killed", sampler, dimensions, objectives)
        for _ in range(min(lost, left)):
            [asked] = trials.ask(1)
            told(trials, asked)
            left -= 1
        trials.ask(1)  # never told: the process ends here
        trials.close()
    trials = opened(tmp_path / "killed", sampler, dimensions, objectives)
    assert points(trials) == wanted
    trials.close()


def test_what_was_running_is_tried_again_and_after_three_times_has_failed(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        trials = opened(tmp_path, "random")
        seen.append(trials.ask(1)[0].params)
        trials.close()
    assert seen[0] == seen[1] == seen[2]
    trials = opened(tmp_path, "random")
    [failed] = trials.found
    assert "3 times" in failed.user_attrs["why"]
    assert trials.ask(1)[0].params != seen[0]
    trials.close()


def test_a_trial_that_is_given_back_is_the_next_one(tmp_path: Path) -> None:
    trials = opened(tmp_path, "tpe")
    first, second = trials.ask(2)
    trials.again(first.number)
    assert not trials.found
    told(trials, second)
    assert trials.ask(1)[0].params == first.params
    trials.close()


def test_a_grid_is_every_combination_once_in_the_seeds_order(tmp_path: Path) -> None:
    dimensions = (
        Dimension("x"),
        Dimension("k", 1, 2, integer=True),
        Dimension("m", choices=("a", "b")),
    )
    trials = opened(tmp_path, "grid", dimensions, steps=3)
    assert trials.size == 12
    asked = list(itertools.chain.from_iterable(iter(lambda: trials.ask(5), [])))
    found = [(a.params["x"], a.params["k"], a.params["m"]) for a in asked]
    assert sorted(found, key=str) == sorted(
        itertools.product((0.0, 0.5, 1.0), (1, 2), "ab"), key=str
    )
    trials.close()
    first, second = (grid(dimensions, 3, seed) for seed in (1, 2))
    assert first == grid(dimensions, 3, 1) != second


def test_a_generation_of_cmaes_waits_for_the_one_before(tmp_path: Path) -> None:
    trials = opened(tmp_path, "cmaes", NUMBERS, ONE)
    generation = trials.ask(10)
    assert len(generation) == 4
    assert not trials.ask(1)
    for asked in generation[:3]:
        told(trials, asked)
    trials.fail(generation[3].number, "it broke")
    assert len(trials.ask(10)) == 4
    trials.close()


def test_cmaes_finds_the_top_of_a_hill_and_keeps_to_the_constraint(tmp_path: Path) -> None:
    dimensions = (Dimension("x", -2, 2), Dimension("y", -2, 2))
    trials = Trials(tmp_path, dimensions, ONE, "cmaes", 1)
    for _ in range(90):
        [asked] = trials.ask(1)
        x, y = float(asked.params["x"]), float(asked.params["y"])
        trials.tell(asked.number, [-((x - 1) ** 2) - (y + 0.5) ** 2], {"x": x - 0.5}, {})
    allowed = [t for t in trials.found if t.constraints["x"] <= 0]
    # the top itself is not allowed: the search stays where it may be
    assert sum(t.constraints["x"] <= 0 for t in trials.found[-24:]) >= 12
    best = max(allowed, key=lambda t: t.values[0])
    assert best.params["x"] == pytest.approx(0.5, abs=0.1)
    assert best.params["y"] == pytest.approx(-0.5, abs=0.1)
    trials.close()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_known_points_are_tried_first(tmp_path: Path, sampler: SamplerName) -> None:
    trials = opened(tmp_path, sampler, (Dimension("x"), Dimension("y")))
    trials.start_from([{"x": 0.25, "y": 0.5}, {"x": 1.0, "y": 0.0}])
    asked = trials.ask(3)
    assert [a.params for a in asked[:2]] == [{"x": 0.25, "y": 0.5}, {"x": 1.0, "y": 0.0}]
    trials.close()


@pytest.mark.parametrize(
    ("sampler", "dimensions", "objectives", "code"),
    [
        ("cmaes", MIXED, ONE, "sampler_unfit"),
        ("cmaes", NUMBERS, TWO, "sampler_unfit"),
        ("cmaes", NUMBERS[:1], ONE, "sampler_unfit"),
        ("grid", (Dimension("a"),) * 9, TWO, "grid_too_large"),
    ],
)
def test_what_a_sampler_cannot_search_is_refused(
    sampler: SamplerName,
    dimensions: tuple[Dimension, ...],
    objectives: tuple[Number, ...],
    code: str,
) -> None:
    with pytest.raises(UserError) as raised:
        refuse_unfit(sampler, dimensions, objectives, 5)
    assert raised.value.code == code
