"""A chat: the models of a recipe answer side by side, and are heard while they write."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.control import JobCancelled
from trimtab.demo.language import REFUSAL, evaluation_prompts
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation import chat, preview
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.endpoint import Endpoint
from trimtab.evaluation.merged_target import MergedTarget
from trimtab.evaluation.targets import LocalTarget
from trimtab.jobs.control import JobControl
from trimtab.jobs.protocol import Progress
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe

HARMFUL = evaluation_prompts("harmful")[0].prompt


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    chat.release()
    preview.release()


def recipe_of(ratio: float = 0.9) -> Recipe:
    whole = demo_recipe(ratio)
    return whole.model_copy(update={"finetuned": whole.finetuned[:1]})


def ask(recipe: Recipe | None, control: JobControl | None = None, **more: Any) -> dict[str, Any]:
    params = {
        "recipe": None if recipe is None else recipe.model_dump(mode="json"),
        "conversation": [{"role": "user", "content": HARMFUL}],
        "max_new_tokens": 12,
        "device": "cpu",
        **more,
    }
    return run_job("chat", params, control or JobControl())


def test_each_role_answers_and_the_demos_judge_reads_it() -> None:
    found = ask(recipe_of(0.0))
    told = [(a["role"], a["name"], a["verdict"]["outcome"]) for a in found["answers"]]
    assert told == [
        ("aligned", "aligned", "refused"),
        ("finetuned", "task-poisoned", "complied"),
        ("merged", "merged", "refused"),
    ]
    assert found["answers"][0]["text"] == REFUSAL
    assert found["judge"] == "demo 1"
    assert found["decoding_sentence"].startswith("greedy, up to 12 tokens")
    assert not any(answer["cut"] for answer in found["answers"])


def test_an_answer_that_ran_out_of_tokens_is_told_from_one_that_ended() -> None:
    found = ask(recipe_of(), roles=["aligned"], max_new_tokens=2)
    assert (found["answers"][0]["tokens"], found["answers"][0]["cut"]) == (2, True)


def test_what_has_been_written_so_far_is_heard_under_the_models_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trimtab.evaluation.targets_writing._PAUSE", 0.0)
    monkeypatch.setattr("trimtab.jobs.control.PROGRESS_PER_SECOND", 1_000_000)
    heard: list[Progress] = []
    found = ask(recipe_of(), JobControl(heard.append))
    for answer in found["answers"]:
        said = [p.text for p in heard if p.stage == answer["name"] and p.text]
        assert said[-1] == answer["text"]
        assert len(set(said)) >= 4
        for shorter, longer in pairwise(said):
            assert longer.startswith(shorter)


def test_each_answer_is_handed_over_when_it_has_ended() -> None:
    heard: list[Progress] = []
    found = ask(recipe_of(), JobControl(heard.append))
    parts = [p.part for p in heard if p.part is not None]
    assert parts == [{"answer": a, "judge": "demo 1"} for a in found["answers"]]
    first = next(i for i, p in enumerate(heard) if p.part is not None)
    assert any(p.stage.startswith("Loading") for p in heard[first:]), "before the next is loaded"


def test_models_answer_without_a_recipe_and_beside_one() -> None:
    paths = demo_paths()
    alone = ask(None, models=[str(paths["aligned"]), str(paths["base"])])
    assert [a["name"] for a in alone["answers"]] == ["aligned", "base"]
    assert alone["judge"] == "demo 1"
    beside = ask(recipe_of(), roles=["aligned"], models=[str(paths["base"]), "/not/there"])
    assert [a["name"] for a in beside["answers"]] == ["aligned", "base", "/not/there"]
    assert beside["answers"][1]["text"] == alone["answers"][1]["text"]
    assert "error" in beside["answers"][2]


def test_somebody_must_be_there_to_answer() -> None:
    with pytest.raises(UserError) as caught:
        ask(None)
    assert caught.value.code == "nobody_asked"


def test_a_model_behind_an_endpoint_answers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def speak(self: Endpoint, conversation: Any, decoding: Any, control: Any) -> str:
        asked.append((self.model, self.timeout, list(conversation)))
        return "I cannot help with that."

    monkeypatch.setattr(Endpoint, "chat", speak)
    found = ask(None, models=["endpoint:toy@http://localhost:1/v1"], timeout=7.0)
    assert asked == [("toy", 7.0, [{"role": "user", "content": HARMFUL}])]
    [answer] = found["answers"]
    assert (answer["name"], answer["verdict"]["outcome"]) == ("toy", "refused")
    assert found["judge"].startswith("phrases")


def test_an_answer_is_heard_at_most_thirty_times_a_second() -> None:
    heard: list[Progress] = []
    control = JobControl(heard.append)
    control.stage("aligned", 1)
    for i in range(1000):
        control.say("x" * i)
    control.advance(1)
    assert len(heard) <= 3
    assert heard[-1].text == "x" * 999


def test_it_stops_between_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.evaluation.targets_writing._PAUSE", 0.0)
    monkeypatch.setattr("trimtab.jobs.control.PROGRESS_PER_SECOND", 1_000_000)
    seen: list[str] = []

    def stop(progress: Progress) -> None:
        if progress.text:
            seen.append(progress.text)
            control.cancel()

    control = JobControl(stop)
    with pytest.raises(JobCancelled):
        ask(recipe_of(), control)
    assert len(seen) == 1


def test_models_stay_loaded_and_those_that_are_not_asked_any_more_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[str] = []
    whole = LocalTarget.loaded

    def counted(self: LocalTarget, control: Any) -> Any:
        if self._loaded is None:
            loads.append(self.name)
        return whole(self, control)

    monkeypatch.setattr(LocalTarget, "loaded", counted)
    ask(recipe_of(0.5))
    assert sorted(loads) == ["aligned", "merged", "task-poisoned"]
    ask(recipe_of(0.5))
    assert len(loads) == 3
    ask(recipe_of(0.7))  # another merge, the same models
    assert loads[3:] == ["merged"]
    assert len(chat._loaded) == 3
    chat.release(1 << 40)
    assert len(chat._loaded) == 3  # not that many bytes
    chat.release()
    assert not chat._loaded


def test_the_preview_lends_its_model_and_its_weights_are_the_merges_bits() -> None:
    recipe = recipe_of(0.37)
    run_job("preview", {"recipe": recipe_of(0.9).model_dump(), "device": "cpu"}, JobControl())
    found = ask(recipe, roles=["merged"])
    assert not chat._loaded
    lent = preview.lend(recipe, "cpu", JobControl())
    assert lent is not None
    own = MergedTarget(recipe)
    state = own.loaded(JobControl()).model.state_dict()
    for name, tensor in lent[0].state_dict().items():
        assert torch.equal(tensor, state[name]), name
    preview.release()
    assert ask(recipe, roles=["merged"])["answers"][0]["text"] == found["answers"][0]["text"]
    assert preview.lend(recipe, "cpu", JobControl()) is None


def test_a_preview_of_other_models_lends_nothing() -> None:
    run_job("preview", {"recipe": recipe_of().model_dump(), "device": "cpu"}, JobControl())
    assert preview.lend(demo_recipe(), "cpu", JobControl()) is None


def test_a_model_that_cannot_answer_says_so_beside_the_answers_of_the_others(
    tmp_path: Path,
) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    for file in demo_paths()["aligned"].iterdir():
        if "template" not in file.name:
            (silent / file.name).symlink_to(file)
    config = silent / "tokenizer_config.json"
    text = config.read_text()
    config.unlink()
    config.write_text(text.replace('"chat_template"', '"no_template"'))
    whole = recipe_of()
    recipe = whole.model_copy(update={"base": ModelRef(path=str(silent))})
    found = ask(recipe, roles=["base", "aligned"])["answers"]
    assert found[0]["error"]["code"] == "no_chat_template"
    assert "text" not in found[0]
    assert found[1]["text"].startswith("sorry")


def test_a_role_that_the_recipe_has_not_is_an_error_of_its_own() -> None:
    whole = recipe_of()
    recipe = Recipe(aligned=whole.aligned, finetuned=(FineTuned(path=whole.finetuned[0].path),))
    found = ask(recipe, roles=["base", "aligned"])["answers"]
    assert found[0]["error"]["code"] == "no_such_role"
    assert found[1]["text"].startswith("sorry")


@pytest.mark.parametrize("last", [("user", "  "), ("assistant", "sorry")])
def test_there_must_be_something_to_answer(last: tuple[str, str]) -> None:
    said = [{"role": "user", "content": "hello"}, {"role": last[0], "content": last[1]}]
    with pytest.raises(UserError) as caught:
        ask(recipe_of(), conversation=said)
    assert caught.value.code == "nothing_asked"


def test_models_go_where_memory_becomes_short_and_what_never_fits_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(recipe_of(), roles=["aligned", "finetuned"])
    size = next(iter(chat._loaded.values())).nbytes
    monkeypatch.setattr(chat, "_free", lambda device: int(1.5 * size))
    ask(recipe_of(), roles=["aligned", "finetuned"])
    assert len(chat._loaded) == 2  # they were there already
    chat.release()
    ask(recipe_of(), roles=["aligned", "finetuned"])
    assert len(chat._loaded) == 1
    chat.release()
    monkeypatch.setattr(chat, "_free", lambda device: size // 2)
    found = ask(recipe_of(), roles=["aligned"])
    assert found["answers"][0]["error"]["code"] == "chat_too_large"


def test_an_answer_is_the_one_that_an_evaluation_would_get() -> None:
    from trimtab.evaluation.suite import Prompt

    recipe = recipe_of(0.8)
    said = ask(recipe, roles=["merged"])["answers"][0]["text"]
    alone = MergedTarget(recipe).generate(
        [Prompt("p", "harmful", HARMFUL)], Decoding(max_new_tokens=12), JobControl()
    )
    assert [said] == alone
