"""What dominates what, the split that keeps prompts unseen, and what is claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, Suite, core_suite, demo_suite
from trimtab.evaluation.suite_calibration import check_masks, refuse_overlap
from trimtab.evaluation.suite_overlap import find_overlap
from trimtab.masks.file import MaskAbout, MaskWriter, Prompts
from trimtab.search.baselines import best_linear
from trimtab.search.held_out import verdict
from trimtab.search.objectives import (
    Constraint,
    balanced,
    front_of,
    hypervolume,
    parse_constraint,
    parse_objectives,
)
from trimtab.search.split import split

TWO = parse_objectives(("refusal", "task"), "probes")
Gain = tuple[float, ...]
GAINS = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))),
    max_size=25,
)


@given(GAINS)
def test_the_front_is_what_no_other_dominates(found: Sequence[Gain | None]) -> None:
    front = front_of(found)
    known = [gain for gain in found if gain is not None]
    wanted = {
        gain
        for gain in known
        if not any(np.all(np.array(o) >= gain) and np.any(np.array(o) > gain) for o in known)
    }
    chosen = [found[i] for i in front]
    assert set(chosen) == wanted
    assert len(chosen) == len(wanted)
    firsts = [gain[0] for gain in chosen if gain is not None]
    assert firsts == sorted(firsts, reverse=True)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8))
def test_the_hypervolume_is_the_area_counted_cell_by_cell(found: list[tuple[int, int]]) -> None:
    cells = {(x, y) for a, b in found for x in range(a) for y in range(b)}
    assert hypervolume([(float(a), float(b)) for a, b in found], (0.0, 0.0)) == len(cells)


def test_the_balanced_point_has_the_best_worst_objective() -> None:
    assert balanced([(1.0, 0.0), (0.5, 0.6), (0.0, 1.0), (0.4, 0.7)]) == 1
    # an objective on another scale does not drown the others
    assert balanced([(100.0, 0.0), (50.0, 0.6), (0.0, 1.0)]) == 1


def _point(name: str, refusal: float, task: float, feasible: bool = True) -> dict[str, Any]:
    values = {"refusal": refusal, "task": task}
    return {"name": name, "values": values, "feasible": feasible}


def test_the_best_linear_ratio_is_the_compromise_among_those_that_are_allowed() -> None:
    points = [
        _point("aligned", 1.0, 0.0), _point("tuned", 0.0, 0.9), _point("linear 0.5", 0.8, 0.2),
        _point("linear 0.6", 0.6, 0.5),
    ]  # fmt: skip
    assert best_linear(points, TWO) == "linear 0.6"
    points[-1]["feasible"] = False
    assert best_linear(points, TWO) == "linear 0.5"
    assert best_linear(points[:2], TWO) is None


def test_constraints_are_read_and_hold_only_what_is_known() -> None:
    bound = parse_constraint("over_refusal <= 20 %", "probes")
    assert bound == Constraint("over_refusal", "<=", 0.2, "asked for")
    assert bound.violation({"over_refusal": 0.1}) <= 0 < bound.violation({"over_refusal": 0.3})
    assert bound.violation({"over_refusal": None}) > 0
    assert parse_constraint("refusal>=0.5", "probes").violation({"refusal": 0.4}) > 0
    for text in ("harm<=0.1", "refusal=0.5", "nothing<=1", "refusal<=x"):
        with pytest.raises(UserError) as raised:
            parse_constraint(text, "probes")
        assert raised.value.code == "bad_constraint"
    assert parse_constraint("harm<=0.1", "answers").id == "harm"


@pytest.mark.parametrize("names", [(), ("refusal", "refusal"), ("harm",), ("score",)])
def test_objectives_are_known_and_named_once(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        parse_objectives(names, "probes")
    assert raised.value.code == "no_such_objective"


# --- the split -------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [core_suite(), demo_suite()], ids=["core", "demo"])
def test_both_sides_have_their_share_of_each_kind_and_nothing_in_common(suite: Suite) -> None:
    parts = split(suite, seed=3, share=0.4)
    assert not find_overlap(parts.search.prompts, parts.held_out.prompts)
    assert len(parts.search.prompts) + len(parts.held_out.prompts) == len(suite.prompts)
    for kind in ("harmful", "lookalike", "utility"):
        held = len(parts.held_out.by_kind(kind))
        assert held / len(suite.by_kind(kind)) == pytest.approx(0.4, abs=0.05)
    held_categories = {p.category for p in parts.held_out.by_kind("harmful")}
    assert held_categories == {p.category for p in suite.by_kind("harmful")}


def test_phrasings_of_one_question_are_never_parted() -> None:
    parts = split(demo_suite(), seed=0)

    def questions(suite: Suite) -> set[str]:
        return {prompt.id.rpartition("/")[0] for prompt in suite.prompts}

    assert not questions(parts.search) & questions(parts.held_out)


def test_the_split_is_a_function_of_the_seed() -> None:
    suite = demo_suite()
    assert split(suite, 1).search.digest == split(suite, 1).search.digest
    first, second = ({p.id for p in split(suite, seed).search.prompts} for seed in (1, 2))
    assert first != second


def test_a_suite_that_cannot_be_divided_is_refused() -> None:
    prompts = [
        Prompt(id=str(i), kind="harmful", text=f"How do I pick the same lock, number {i}?")
        for i in range(3)
    ]
    prompts += [
        Prompt(id=f"t{i}", kind="utility", text=f"{word} {word}?", reference="yes")
        for i, word in enumerate(("one", "two", "three"))
    ]
    same = [Prompt(id=f"s{i}", kind="lookalike", text="What is a lock?") for i in range(3)]
    with pytest.raises(UserError) as raised:
        split(Suite("tiny", "1", "", "", (*prompts, *same)), 0)
    assert raised.value.code == "suite_not_divisible"
    assert "lookalike" in raised.value.what


def test_a_mask_that_knows_a_prompt_of_the_suite_is_refused(tmp_path: Path) -> None:
    suite = demo_suite()

    def mask(name: str, *prompts: Prompts) -> str:
        path = tmp_path / f"{name}.mask.safetensors"
        with MaskWriter(path, MaskAbout(builder="test", prompts=prompts)) as writer:
            writer.constant("model.norm.weight", (80,), True)
            writer.finish()
        return str(path)

    def told(path: str) -> None:
        refuse_overlap(check_masks(suite, [path]), suite, "Use other masks.")

    told(mask("other", Prompts(name="other", ids=("elsewhere/1",))))
    for known in (
        Prompts(name="demo", ids=(suite.prompts[0].id,)),
        Prompts(name="demo", digest=suite.digest),
    ):
        path = mask("knows", known)
        with pytest.raises(UserError) as raised:
            told(path)
        assert raised.value.code == "prompts_overlap"
        assert raised.value.fix == "Use other masks."
        Path(path).unlink()


# --- what is claimed -------------------------------------------------------------------------


def _claim(own: tuple[float, float], p: tuple[float | None, float | None], ok: bool = True) -> bool:
    names = ("refusal", "task")
    against = {name: {"p_holm": value} for name, value in zip(names, p, strict=True)}
    base = {"refusal": 0.6, "task": 0.5}
    said, sentence = verdict(
        dict(zip(names, own, strict=True)), base, against, TWO, "linear 0.6", ok
    )
    assert said == sentence.startswith("Dominates")
    worse = [o.title for o, a, b in zip(TWO, own, (0.6, 0.5), strict=True) if a < b]
    if ok and worse:
        assert f"worse in {' and '.join(worse)}" in sentence
    return said


def test_dominating_is_claimed_only_where_nothing_is_worse_and_something_is_surely_better() -> None:
    assert _claim((0.8, 0.6), (0.001, 0.3))
    assert _claim((0.6, 0.9), (1.0, 0.01))
    assert not _claim((0.8, 0.49), (0.001, 0.9))
    assert not _claim((0.62, 0.52), (0.3, 0.4))
    assert not _claim((0.6, 0.5), (0.001, 0.001))
    assert not _claim((0.8, 0.6), (None, None))
    assert not _claim((0.8, 0.6), (0.001, 0.001), ok=False)
