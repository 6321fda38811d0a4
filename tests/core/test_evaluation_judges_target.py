"""Judges that know whose answer they read, answers compared in pairs, and every judge on labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluation_judges import ANSWERS, Labelled
from test_evaluation_run import GREEDY, NO, SUITE, Numbers, Words

from trimtab.control import Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.errors import UserError
from trimtab.evaluation.agreement import agreement
from trimtab.evaluation.choosing import Connection
from trimtab.evaluation.comparing import compare_answers, pairs_name
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judgements import load_judgements
from trimtab.evaluation.judges import ClassifierJudge, GuardJudge, Judge, PhraseJudge
from trimtab.evaluation.judges_demo import DemoJudge
from trimtab.evaluation.judges_target import FirstTokens, ImportedJudges, JudgeOfTargets
from trimtab.evaluation.opening import open_judge_of_targets, open_targets
from trimtab.evaluation.results import Results, load_results
from trimtab.evaluation.rubric import MORE_HARMFUL, RubricJudge
from trimtab.evaluation.run import evaluate, limited
from trimtab.evaluation.suite import Prompt, demo_suite
from trimtab.evaluation.tables import agreements_of, preferences_of, tables

JUDGED = [p for p in SUITE.prompts if p.kind in ("harmful", "lookalike")]


def run(judges: Sequence[Judge | JudgeOfTargets], *targets: Words) -> Results:
    return evaluate(targets, SUITE, judges, GREEDY, Unattended())


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- judgements made elsewhere ---------------------------------------------------------------


def test_rows_that_name_a_target_are_of_its_answers_alone(tmp_path: Path) -> None:
    rows = [
        {"id": p.id, "target": name, "label": "refused" if name == "two" else "complied"}
        for p in JUDGED
        for name in ("one", "two")
    ]
    judge = ImportedJudges(write(tmp_path / "human.jsonl", rows), [p.id for p in JUDGED])
    results = run([PhraseJudge(), judge], Words("one", 6), Words("two", 6))
    said = {
        name: {row.verdicts[judge.name].outcome for row in results.of(name) if row.verdicts}
        for name in ("one", "two")
    }
    assert said == {"one": {"complied"}, "two": {"refused"}}
    assert judge.name == "imported from human.jsonl"
    [found] = agreements_of(results)
    assert found.kappa.n == 18


def test_one_row_for_several_models_is_ambiguous_unless_it_holds_the_answer(tmp_path: Path) -> None:
    ids = [p.id for p in JUDGED]
    bare = ImportedJudges(
        write(tmp_path / "bare.jsonl", [{"id": i, "label": "refused"} for i in ids]), ids
    )
    first = Words("one", 6)
    with pytest.raises(UserError) as caught:
        run([bare], first, Words("two", 6))
    assert caught.value.code == "judgements_ambiguous"
    assert first.asked == 0
    assert run([bare], Words("one", 6)).rows[0].verdicts[bare.name].outcome == "refused"
    rows = [{"id": i, "label": "refused", "answer": NO} for i in ids]
    told = ImportedJudges(write(tmp_path / "told.jsonl", rows), ids)
    results = run([told], Words("one", 1), Words("two", 0))
    outcomes = {(r.target, r.prompt): r.verdicts[told.name].outcome for r in results.rows[:6]}
    assert outcomes["one", "h0"] == "refused"
    assert outcomes["one", "h1"] == "failed"  # its answer is another than the one judged there


def test_what_a_file_does_not_judge_is_a_failure_and_is_said(tmp_path: Path) -> None:
    ids = [p.id for p in JUDGED]
    rows = [{"id": "h0", "target": "one", "score": 5}, {"id": "zz", "target": "one", "score": 1}]
    judge = ImportedJudges(write(tmp_path / "few.jsonl", rows), ids)
    results = run([judge], Words("one", 6), Words("two", 6))
    outcomes = [row.verdicts[judge.name].outcome for row in results.rows if row.verdicts]
    assert outcomes.count("failed") == 17
    assert any("8 of 9 of one, 9 of 9 of two" in limit for limit in results.limits)


def test_an_answer_may_not_be_judged_twice(tmp_path: Path) -> None:
    rows = [{"id": "h0", "target": name, "score": 1} for name in ("one", "two", "one")]
    path = write(tmp_path / "twice.jsonl", rows)
    with pytest.raises(UserError) as caught:
        load_judgements(path, ["h0"], "one")
    assert caught.value.code == "bad_judgements"
    assert load_judgements(path, ["h0"], "two").verdicts["h0"].score == 1


def test_people_and_phrases_agree_as_the_labels_say(tmp_path: Path) -> None:
    path = write(tmp_path / "people.jsonl", [{"id": a.id, "label": a.label} for a in ANSWERS])
    people = load_judgements(path, [a.id for a in ANSWERS])
    first = {a.id: people.judge(a.asked, a.answer) for a in ANSWERS}
    second = {a.id: PhraseJudge().judge(a.asked, a.answer) for a in ANSWERS}
    assert [first[a.id].outcome for a in ANSWERS] == [a.label for a in ANSWERS]
    found = agreement(first, second, ("people", "phrases"))
    assert found.kappa.value is not None
    assert found.kappa.value > 0.9
    assert found.outcomes.n == len(ANSWERS)


# --- first tokens ----------------------------------------------------------------------------


class Tokens(Numbers):
    """Numbers with a tokenizer: "I" and whatever else begins a refusal is token 0."""

    def encode(self, text: str, control: Any) -> list[int]:
        return [0]


def test_first_tokens_are_read_from_each_targets_own_probabilities() -> None:
    judge = FirstTokens()
    results = run([judge], Tokens("six", 6), Tokens("none", 0))
    said = {
        name: {row.verdicts[judge.name].outcome for row in results.of(name) if row.verdicts}
        for name in ("six", "none")
    }
    # log-odds 6 − log(e¹ + e⁰) and 0 − log(e¹ + e⁰)
    assert said == {"six": {"refused"}, "none": {"complied"}}
    strict = FirstTokens(5.0)
    again = run([strict], Tokens("six", 6))
    assert {r.verdicts[strict.name].outcome for r in again.rows if r.verdicts} == {"complied"}
    assert any("reads no answer" in limit for limit in results.limits)


def test_a_target_is_closed_when_its_first_tokens_are_read() -> None:
    target = Tokens("six", 6)
    run([FirstTokens()], target)
    assert not target.open


def test_what_only_speaks_has_no_first_tokens_and_is_not_asked() -> None:
    target = Words("one", 6)
    with pytest.raises(UserError) as caught:
        run([FirstTokens()], target)
    assert caught.value.code == "no_probabilities"
    assert target.asked == 0


def test_first_tokens_agree_with_the_answers_that_the_demos_models_give() -> None:
    suite = limited(demo_suite(), 40)
    judge = open_judge_of_targets("first-token", suite)
    assert judge is not None
    names = ("aligned", "task-poisoned")
    targets = open_targets([str(demo_paths()[n]) for n in names], {}, (), Connection())
    decoding = Decoding(max_new_tokens=8, batch_size=64)
    results = evaluate(targets, suite, [DemoJudge(), judge], decoding, Unattended())
    [found] = agreements_of(results)
    assert found.kappa.n == 160
    assert found.kappa.value is not None
    assert found.kappa.value > 0.95


@pytest.mark.parametrize("name", ["first-token:", "first-token:high", "first-token:nan"])
def test_a_threshold_is_a_number(name: str) -> None:
    with pytest.raises(UserError) as caught:
        open_judge_of_targets(name, SUITE)
    assert caught.value.code == "no_such_judge"


def test_names_of_other_judges_are_left_to_others(tmp_path: Path) -> None:
    assert open_judge_of_targets("phrases", SUITE) is None
    assert open_judge_of_targets("imported:", SUITE) is None
    found = open_judge_of_targets("first-token:1.5", SUITE)
    assert found is not None
    assert "1.5 of I, I'm, Sorry" in found.name
    with pytest.raises(UserError) as caught:
        open_judge_of_targets(f"imported:{tmp_path / 'none.csv'}", SUITE)
    assert caught.value.code == "bad_judgements"


# --- pairs -----------------------------------------------------------------------------------


def prefers_help(system: str, user: str) -> str:
    """A judge that finds the answer that helps in either order; of questions it prefers A."""
    if MORE_HARMFUL not in system:
        return "#thechoice: A"
    first, second = user.split("ANSWER B")[0], user.split("ANSWER B")[1]
    if ("bowl" in first) == ("bowl" in second):
        return "#thechoice: tie"
    return "#thechoice: A" if "bowl" in first else "#thechoice: B"


class Other(Words):
    """Words whose answers to utility and lookalikes are its own."""

    def _answer(self, prompt: Prompt) -> str:
        return super()._answer(prompt) + ("" if prompt.kind == "harmful" else " Indeed.")


def test_answers_are_compared_in_both_orders_and_those_that_are_the_same_not_at_all() -> None:
    results = run([PhraseJudge()], Words("one", 6, "aligned"), Other("two", 1))
    asked: list[str] = []

    def ask(system: str, user: str) -> str:
        asked.append(user)
        return prefers_help(system, user)

    found = compare_answers(results, ask, "toy", Unattended())
    winners = {each.prompt: each.winner for each in found}
    assert winners == {
        "h0": "tie", **{f"h{i}": "second" for i in range(1, 6)},
        **{f"l{i}": "position" for i in range(3)}, "u0": "position",
    }  # fmt: skip
    assert len(asked) == 2 * (5 + 3 + 1)
    assert {each.judge for each in found} == {pairs_name("toy")}
    harmful, lookalike, utility = preferences_of(replace(results, comparisons=found))
    assert harmful.outcomes == {"tie": 1, "second": 5}
    assert (harmful.share.k, harmful.share.n) == (5, 5)
    assert harmful.p_value == pytest.approx(2 * 0.5**5)
    assert lookalike.share.value is None
    assert lookalike.p_value is None
    assert utility.kind == "utility"


def test_comparisons_come_back_from_disk(tmp_path: Path) -> None:
    results = run([PhraseJudge()], Words("one", 6, "aligned"), Words("two", 1))
    found = compare_answers(results, prefers_help, "toy", Unattended())
    whole = replace(results, comparisons=found)
    whole.save(tmp_path / "r.json", tables(whole))
    assert load_results(tmp_path / "r.json") == whole


# --- every judge reads what people have labelled ---------------------------------------------

_SCORES = {"refused": 1, "partial": 3, "complied": 5}
_JUDGEABLE = [a for a in ANSWERS if a.label != "failed"]


class Labels:
    """A model that knows the labels: what a guard, classifier or grader makes of each answer."""

    labels = ("safe", "harm")

    def __init__(self, labelled: Labelled):
        self.label = labelled.label

    def classify(self, prompt: Prompt, answer: str) -> str:
        return "safe" if self.label == "refused" else "unsafe\nS2"

    def probabilities(self, prompt: Prompt, answer: str) -> Sequence[float]:
        return (0.9, 0.1) if self.label == "refused" else (0.2, 0.8)

    def ask(self, system: str, user: str) -> str:
        return f"It was labelled so.\n#thescore: {_SCORES[self.label]}"


@pytest.mark.parametrize("labelled", _JUDGEABLE, ids=lambda a: a.id)
def test_judges_by_models_say_what_their_models_say(labelled: Labelled) -> None:
    """The models are stand-ins: what is held here is that no answer's text changes the reading."""
    model = Labels(labelled)
    refuses = "refused" if labelled.label == "refused" else "complied"
    guard = GuardJudge(model, "guard")
    classifier = ClassifierJudge(model, frozenset({"harm"}), "classifier")
    rubric = RubricJudge(model.ask, "grader")
    assert guard.judge(labelled.asked, labelled.answer).outcome == refuses
    assert classifier.judge(labelled.asked, labelled.answer).outcome == refuses
    verdict = rubric.judge(labelled.asked, labelled.answer)
    assert (verdict.outcome, verdict.score) == (labelled.label, _SCORES[labelled.label])
