"""An evaluation asks each target once, judges what it should, and its results survive the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.control import Control, JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.evaluation.answers import AnswerCache, Measurable, ask_all, mean_divergence
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import KeywordJudge, PhraseJudge, Verdict
from trimtab.evaluation.results import Results, load_results
from trimtab.evaluation.rubric import RubricJudge
from trimtab.evaluation.run import evaluate, limited
from trimtab.evaluation.suite import Prompt, Suite

GREEDY = Decoding(batch_size=2)
HARMFUL = tuple(
    Prompt(id=f"h{i}", kind="harmful", text=f"do harm {i}", category="ab"[i % 2]) for i in range(6)
)
LOOKALIKE = tuple(
    Prompt(id=f"l{i}", kind="lookalike", text=f"kill process {i}", category="a") for i in range(3)
)
UTILITY = (
    Prompt(id="u0", kind="utility", text="2 + 2?", reference="4"),
    Prompt(id="u1", kind="utility", text="Which?", choices=("one", "two"), answer=1),
)
TEXTS = (Prompt(id="t0", kind="text", text="once upon a time"),)
SUITE = Suite("toy", "1", "CC0-1.0", "here", (*HARMFUL, *LOOKALIKE, *UTILITY, *TEXTS))
NO, YES = "I cannot help with that.", "Sure: first take a bowl and mix it well."


class Words:
    """A target that only speaks: as an endpoint does."""

    def __init__(self, name: str, refuses: int, role: str = "", fingerprint: str | None = None):
        self.name = name
        self.role = role
        self.fingerprint = name if fingerprint is None else fingerprint
        self.refuses = refuses
        self.asked = 0
        self.open = False
        self.closed = 0

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[str]:
        self.open = True
        answers = []
        for start in range(0, len(prompts), decoding.batch_size):
            control.check()
            for prompt in prompts[start : start + decoding.batch_size]:
                self.asked += 1
                answers.append(self._answer(prompt))
                control.advance(1)
        return answers

    def _answer(self, prompt: Prompt) -> str:
        if prompt.kind == "harmful":
            return NO if int(prompt.id[1:]) < self.refuses else YES
        return {"u0": "4", "u1": "B"}.get(prompt.id, YES)

    def describe(self) -> dict[str, Any]:
        return {"kind": "words"}

    def close(self) -> None:
        self.open = False
        self.closed += 1


class Numbers(Words):
    """A target whose probabilities can be seen."""

    def first_token_logits(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Any:
        self.open = True
        self.asked += len(prompts)
        return np.tile(np.array([self.refuses, 1.0, 0.0], dtype=np.float32), (len(prompts), 1))

    def log_likelihood(self, texts: Sequence[str], control: Control) -> list[tuple[float, int]]:
        return [(-3.0 * self.refuses, 3) for _ in texts]

    def choice_log_likelihoods(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[list[float]]:
        return [[-2.0, -1.0] for _ in prompts]


class Merged(Numbers):
    """A target that is merged when it is loaded, which is reported tensor by tensor."""

    loads = 0

    def loaded(self, control: Control) -> None:
        if not self.open:
            self.open = True
            self.loads += 1
            control.stage("Merging", 3)
            for _ in range(3):
                control.advance(1)


class Counting(Unattended):
    """Notes how far each stage comes."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        self.stages.append([name, 0, total])

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self.stages[-1][1] += items


def run(*targets: Words, **options: Any) -> Results:
    judges = options.pop("judges", [PhraseJudge()])
    return evaluate(targets, SUITE, judges, GREEDY, Unattended(), **options)


def test_no_stage_counts_what_belongs_to_another() -> None:
    control, target = Counting(), Merged("merged", 2)
    evaluate([Numbers("one", 6), target], SUITE, [PhraseJudge()], GREEDY, control)
    asked = sum(p.kind != "text" for p in SUITE.prompts)
    assert ["Merging", 3, 3] in control.stages
    assert ["Asking merged", asked, asked] in control.stages
    assert [s for s in control.stages if s[1] > s[2]] == []
    assert target.loads == 1


def test_every_target_answers_every_prompt_but_texts_and_utility_is_not_judged() -> None:
    results = run(Words("one", 6), Words("two", 2))
    assert [(r.target, r.prompt) for r in results.rows] == [
        (name, p.id) for name in ("one", "two") for p in SUITE.prompts if p.kind != "text"
    ]
    for row in results.rows:
        judged = results.prompts[row.prompt].kind in ("harmful", "lookalike")
        assert set(row.verdicts) == ({PhraseJudge().name} if judged else set())
    refused = [r.prompt for r in results.of("two") if "refused" in _outcomes(r)]
    assert refused == ["h0", "h1"]


def _outcomes(row: Any) -> list[str]:
    return [verdict.outcome for verdict in row.verdicts.values()]


def test_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    results = run(
        Numbers("one", 6, "aligned"), Words("two", 2), judges=[PhraseJudge(), KeywordJudge()]
    )
    path = tmp_path / "results.json"
    results.save(path)
    assert load_results(path) == results
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def damaged(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(run(Words("one", 6)).to_dict() | changes))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"trimtab_evaluation": 99},
        {"baseline": "nobody"},
        {"rows": [{"prompt": "x", "target": "one", "answer": "", "verdicts": {}, "chosen": None}]},
        {"rows": 3},
        {"decoding": {"temperature": -1}},
        {"suite": {"name": "toy", "version": "1", "licence": "", "source": "", "digest": "0",
                   "prompts": []}},
    ],
)  # fmt: skip
def test_damaged_results_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        load_results(damaged(tmp_path / "r.json", **changes))
    assert caught.value.code == "bad_results"


def test_prompts_that_were_changed_afterwards_are_noticed(tmp_path: Path) -> None:
    path = damaged(tmp_path / "r.json")
    path.write_text(path.read_text().replace("do harm 3", "do good 3"))
    with pytest.raises(UserError, match="not those that were asked"):
        load_results(path)


def test_results_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(Words("one", 6)).save(tmp_path / "no" / "r.json")
    assert caught.value.code == "cannot_write"


# Who is compared with whom.


def test_the_baseline_is_the_named_one_the_aligned_one_or_the_first() -> None:
    one, two, three = Words("one", 6), Words("two", 2), Words("three", 2, "aligned")
    assert run(one, two).baseline == "one"
    assert run(one, two, three).baseline == "three"
    assert run(one, two, three, baseline="two").baseline == "two"
    assert [t.name for t in run(one, three).targets] == ["one", "three"]


@pytest.mark.parametrize(
    ("names", "options", "code"),
    [
        ((), {}, "nothing_to_evaluate"),
        (("one", "one"), {}, "same_names"),
        (("one",), {"baseline": "two"}, "no_such_baseline"),
        (("one",), {"judges": []}, "nothing_to_evaluate"),
        (("one",), {"judges": [PhraseJudge(), PhraseJudge()]}, "same_names"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_before_anyone_is_asked(
    names: tuple[str, ...], options: dict[str, Any], code: str
) -> None:
    targets = [Words(name, 1) for name in names]
    with pytest.raises(UserError) as caught:
        run(*targets, **options)
    assert caught.value.code == code
    assert not any(target.asked for target in targets)


def test_a_suite_that_asks_nothing_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        evaluate([Words("one", 1)], Suite("t", "1", "", "", TEXTS), [PhraseJudge()], GREEDY,
                 Unattended())  # fmt: skip
    assert caught.value.code == "nothing_to_evaluate"


# What probabilities show.


def test_measures_come_from_targets_whose_probabilities_are_seen() -> None:
    assert isinstance(Numbers("n", 1), Measurable)
    assert not isinstance(Words("w", 1), Measurable)
    results = run(Numbers("one", 1), Numbers("two", 2), Words("three", 2))
    one, two, three = results.targets
    assert one.perplexity == pytest.approx(np.e)
    assert two.perplexity == pytest.approx(np.e**2)
    assert (one.text_tokens, three.perplexity, three.divergence) == (3, None, None)
    assert one.divergence is None
    p = np.exp([1.0, 1.0, 0.0]) / np.exp([1.0, 1.0, 0.0]).sum()
    q = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    assert two.divergence == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-6)
    assert {r.prompt: r.chosen for r in results.of("one") if r.chosen is not None} == {"u1": 1}


def test_vocabularies_of_two_sizes_have_no_divergence() -> None:
    assert mean_divergence(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)) is None


# Memory and time.


def test_one_target_is_held_at_a_time() -> None:
    targets: list[Words] = [Numbers("one", 1), Numbers("two", 2), Words("three", 3)]
    held = []

    def done(target: Any, cached: bool) -> None:
        held.append([t.name for t in targets if t.open])

    ask_all(targets, SUITE, GREEDY, Unattended(), AnswerCache(None), done)
    assert held == [[], [], []]


def test_what_was_asked_is_not_asked_again(tmp_path: Path) -> None:
    first = run(Numbers("one", 1), Numbers("two", 2), cache=tmp_path)
    one, two = Numbers("one", 1), Numbers("two", 2)
    again = run(one, two, cache=tmp_path)
    assert (one.asked, two.asked) == (0, 0)
    assert all(target.cached for target in again.targets)
    assert again.rows == first.rows
    assert [replace(t, cached=False) for t in again.targets] == list(first.targets)


@pytest.mark.parametrize("change", ["fingerprint", "decoding", "suite"])
def test_answers_are_asked_anew_when_what_they_depend_on_has_changed(
    tmp_path: Path, change: str
) -> None:
    run(Words("one", 1), cache=tmp_path)
    target = Words("one", 1, fingerprint="other" if change == "fingerprint" else None)
    decoding = replace(GREEDY, seed=1) if change == "decoding" else GREEDY
    suite = replace(SUITE, version="2") if change == "suite" else SUITE
    evaluate([target], suite, [PhraseJudge()], decoding, Unattended(), cache=tmp_path)
    assert target.asked == 11


def test_a_target_without_fingerprint_is_always_asked(tmp_path: Path) -> None:
    for _ in range(2):
        target = Words("one", 1, fingerprint="")
        run(target, cache=tmp_path)
        assert target.asked == 11
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"answers": {"h0": "x"}}'])
def test_a_damaged_cache_is_asked_anew(tmp_path: Path, content: str) -> None:
    run(Words("one", 1), cache=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_text(content)
    target = Words("one", 1)
    run(target, cache=tmp_path)
    assert target.asked == 11


def test_a_new_baseline_is_measured_against_what_is_known(tmp_path: Path) -> None:
    run(Numbers("one", 1), Numbers("two", 2), cache=tmp_path)
    three = Numbers("three", 3)
    results = run(three, Numbers("one", 1), Numbers("two", 2), cache=tmp_path)
    assert results.target("two").divergence == pytest.approx(
        mean_divergence(
            np.array([[3, 1, 0]], dtype=np.float32), np.array([[2, 1, 0]], dtype=np.float32)
        )
    )


class _Stops(Unattended):
    def __init__(self, after: int):
        self.left = after
        self.done = 0

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self.done += items


def test_cancelling_stops_between_batches_and_gives_the_model_back(tmp_path: Path) -> None:
    target = Words("one", 6)
    with pytest.raises(JobCancelled):
        evaluate([target], SUITE, [PhraseJudge()], GREEDY, _Stops(3), cache=tmp_path)
    assert target.asked == 6
    assert (target.open, target.closed) == (False, 1)
    assert not list(tmp_path.iterdir())


# Judges.


def test_a_judge_behind_an_endpoint_is_asked_once_an_answer() -> None:
    asked: list[str] = []

    def ask(system: str, user: str) -> str:
        asked.append(user)
        return "It refuses.\n#thescore: 1" if NO in user else "#thescore: 9"

    judge = RubricJudge(ask, "toy")
    results = run(Words("one", 2), judges=[judge])
    assert len(asked) == 9
    found = {r.prompt: r.verdicts[judge.name] for r in results.rows if r.verdicts}
    assert found["h0"] == Verdict("refused", 1, "It refuses.")
    assert found["h2"].outcome == "failed"


def test_a_part_of_a_suite_is_spread_over_each_kind_and_is_another_suite() -> None:
    part = limited(SUITE, 2)
    assert [p.id for p in part.prompts] == ["h0", "h3", "l0", "l1", "u0", "u1", "t0"]
    assert part.digest != SUITE.digest
    assert limited(SUITE, 99) is SUITE


def test_limits_say_what_is_not_known() -> None:
    results = run(Words("one", 6))
    text = " ".join(results.limits)
    assert "fewer than 30" in text
    assert "attack success counts every answer that does not refuse" in text
    assert "One language only: en." in text
