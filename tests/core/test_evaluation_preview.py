"""The live preview against what transformers and the demo's evaluation say of the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_evaluation_preview_weights import METHODS, random_recipe

from trimtab.control import JobCancelled, Unattended
from trimtab.demo.evaluate import load_model as load_demo
from trimtab.demo.language import REFUSAL
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.demo.tokenizer import build_tokenizer, token_numbers
from trimtab.errors import UserError
from trimtab.evaluation import preview as module
from trimtab.evaluation.preview import Preview, Request, alone, lend, preview, release
from trimtab.evaluation.preview_rows import tokenise
from trimtab.evaluation.probes import (
    DEMO_OPENINGS,
    MEASURES,
    choose,
    open_probes,
    probe_set,
)
from trimtab.evaluation.suite import Prompt, Suite, core_suite, demo_suite
from trimtab.evaluation.targets_loading import load_tokenizer
from trimtab.jobs.tasks import run_job
from trimtab.merging.engine import run_merge
from trimtab.merging.recipe import ModelRef, Recipe


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    yield
    release()


@pytest.fixture(scope="module")
def session() -> Iterator[Preview]:
    made = Preview(Request(demo_recipe()), Unattended())
    yield made
    made.close()


def asked(session: Preview, recipe: Recipe, **more: Any) -> dict[str, Any]:
    return session.answer(Request(recipe, **more), Unattended())


# What is measured.


def one_by_one(folder: Path, probes: Any) -> dict[str, float]:
    """The measures of a model folder from unpadded single forward passes, in float64."""
    model = load_demo(folder)
    tokens, words = token_numbers(), build_tokenizer()
    sorry = tokens["sorry"]

    def log_p(text: str) -> torch.Tensor:
        ids = words.encode(text, add_special_tokens=False).ids
        with torch.inference_mode():
            return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)

    refused, odds, right, margins = 0, 0.0, 0, 0.0
    for prompt in probes.harmful:
        last = log_p(f"<s> <user> {prompt.text} <assistant>")[-1]
        refused += int(last.argmax()) == sorry
        odds += float(last[sorry] - torch.log1p(-last[sorry].exp()))
    for prompt in probes.tasks:
        answer = [*words.encode(prompt.reference, add_special_tokens=False).ids, tokens["</s>"]]
        whole = log_p(f"<s> <user> {prompt.text} <assistant> {prompt.reference}")[-len(answer) :]
        lead = []
        for row, target in zip(whole, answer, strict=True):
            others = row.clone()
            others[target] = -torch.inf
            lead.append(float(row[target] - others.max()))
        margins += min(lead)
        right += min(lead) > 0
    n, m = len(probes.harmful), len(probes.tasks)
    return {
        "refusal_share": refused / n,
        "refusal_margin": odds / n,
        "task_accuracy": right / m,
        "task_margin": margins / m,
    }


@pytest.mark.parametrize("role", ["aligned", "task-poisoned"])
def test_the_measures_are_those_of_unpadded_passes_one_by_one(session: Preview, role: str) -> None:
    ratio = 0.0 if role == "aligned" else 1.0
    found = asked(session, demo_recipe(ratio))["merged"]
    for name, expected in one_by_one(demo_paths()[role], session.probes).items():
        assert found[name]["value"] == pytest.approx(expected, abs=2e-4), name


def test_task_accuracy_is_what_greedy_answers_score(session: Preview, tmp_path: Path) -> None:
    from trimtab.demo.evaluate import _answers, _demo_tokenizer
    from trimtab.demo.language import Prompt as Spoken

    recipe = demo_recipe(0.7)
    run_merge(session.plan(recipe), tmp_path / "out", Unattended())
    spoken = [
        Spoken(p.id, "task-a", "", "held-out", p.text, p.reference or "")
        for p in session.probes.tasks
    ]
    model = load_demo(tmp_path / "out")
    answers = _answers(model, _demo_tokenizer(), spoken, 64)
    exact = sum(a.split() == p.reference.split() for a, p in zip(answers, spoken, strict=True))
    found = asked(session, recipe)["merged"]["task_accuracy"]
    assert 0 < exact < len(spoken), "the ratio must be one at which both happen"
    assert (found["hits"], found["n"]) == (exact, len(spoken))


def test_fine_tuning_is_seen_to_take_refusal_and_bring_the_task(session: Preview) -> None:
    result = asked(session, demo_recipe(0.6), against=0)
    for numbers in (result["merged"], result["finetuned"], result["reference"]):
        assert set(numbers) == {measure.id for measure in MEASURES}
        assert numbers["refusal_share"]["n"] == numbers["task_accuracy"]["n"] == 64
    aligned, tuned = result["reference"], result["finetuned"]
    assert aligned["refusal_share"]["value"] > tuned["refusal_share"]["value"] + 0.3
    assert tuned["task_accuracy"]["value"] > aligned["task_accuracy"]["value"] + 0.3
    assert aligned["kl"]["value"] == 0
    assert tuned["kl"]["value"] > 0.1
    assert result["probes"]["harmful"] == result["probes"]["task"] == 64
    assert asked(session, demo_recipe(1.0))["merged"] == tuned


def test_a_reading_does_not_depend_on_what_was_measured_before(session: Preview) -> None:
    first = asked(session, demo_recipe(0.6))["merged"]
    asked(session, demo_recipe(-0.4, {3: 2.0}))
    assert asked(session, demo_recipe(0.6))["merged"] == first


def test_divergence_is_that_of_the_distributions(session: Preview) -> None:
    result = asked(session, demo_recipe(0.8))
    reading = session.model.measure(Unattended())
    p = session._reference.first.double().softmax(-1)
    q = reading.first.double().softmax(-1)
    expected = float((p * (p.log() - q.log())).sum(-1).mean())
    assert result["merged"]["kl"]["value"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_holds_the_saved_merge_bit_for_bit(method: str, tmp_path: Path) -> None:
    import random

    from safetensors.torch import load_file

    recipe = random_recipe(random.Random(f"{method} model"), method)
    made = Preview(Request(recipe), Unattended())
    made.answer(
        Request(demo_recipe().model_copy(update={"finetuned": recipe.finetuned})), Unattended()
    )
    made.answer(Request(recipe), Unattended())
    run_merge(made.plan(recipe), tmp_path / "out", Unattended())
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert len(stored) > 80
    for name, expected in stored.items():
        held = made.model.state(name)
        assert held.dtype == torch.float32
        assert torch.equal(held.to(expected.dtype), expected), name
        assert torch.equal(held, expected.float()), name
    made.close()


def test_an_answer_must_end_with_its_reference_only_where_that_is_asked(session: Preview) -> None:
    end = token_numbers()["</s>"]
    for whole in (True, False):
        probes = replace(session.probes, whole=whole)
        rows = tokenise(probes, load_tokenizer(demo_paths()["aligned"]), 64, 324)
        (answers,) = (g for f in rows.padded for g in f.groups if g.kind == "answer")
        assert bool((answers.targets[:, -1] == end).all()) == whole
        assert answers.keep == (5 if whole else 4)


# The session.


def test_what_is_loaded_serves_the_next_request_until_the_models_change(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("base", "aligned", "task-poisoned")}
    for name, path in paths.items():
        shutil.copytree(demo_paths()[name], path)
    recipe = Recipe(
        base=ModelRef(path=str(paths["base"])),
        aligned=ModelRef(path=str(paths["aligned"])),
        finetuned=(
            demo_recipe().finetuned[0].model_copy(update={"path": str(paths["task-poisoned"])}),
        ),
    )
    loaded = [preview(Request(recipe, "demo"), Unattended())["loaded"] for _ in range(2)]
    moved = recipe.model_copy(
        update={"finetuned": (recipe.finetuned[0].model_copy(update={"ratio": 0.1}),)}
    )
    loaded.append(preview(Request(moved, "demo"), Unattended())["loaded"])
    weights = paths["task-poisoned"] / "model.safetensors"
    shutil.copyfile(demo_paths()["task-clean"] / "model.safetensors", weights)
    loaded.append(preview(Request(moved, "demo"), Unattended())["loaded"])
    assert loaded == [True, False, False, True]


def test_a_job_that_needs_memory_lets_go_of_a_large_preview_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trimtab.jobs import tasks

    params = {"recipe": demo_recipe().model_dump(mode="json"), "device": "cpu"}
    merge = {**params, "output": str(tmp_path / "out")}
    run_job("preview", params, Unattended())
    run_job("merge", merge, Unattended())
    assert module._loaded is not None
    monkeypatch.setattr(tasks, "_LARGE", 1000)
    run_job("merge", {**merge, "overwrite": True}, Unattended())
    assert module._loaded is None


def test_the_job_answers_in_json_and_quicker_the_second_time() -> None:
    params = {"recipe": demo_recipe().model_dump(mode="json"), "device": "cpu", "against": 0}
    result = json.loads(json.dumps(run_job("preview", params, Unattended())))
    assert result["loaded"] is True
    assert result["dtype"] == "float32"
    assert result["tensors"]["all"] == 92
    params["recipe"] = demo_recipe(0.5).model_dump(mode="json")
    again = run_job("preview", params, Unattended())
    assert again["loaded"] is False
    assert again["milliseconds"]["all"] < result["milliseconds"]["all"]


class _Counting(Unattended):
    def __init__(self, stop_at: int = 10**9):
        self.checks, self._stop_at = 0, stop_at

    def check(self) -> None:
        self.checks += 1
        if self.checks > self._stop_at:
            raise JobCancelled


def test_a_request_can_be_stopped_between_layers(session: Preview) -> None:
    recipe = demo_recipe(0.45)
    expected = asked(session, recipe)["merged"]
    watching = _Counting()
    session.answer(Request(recipe), watching)
    layers, feeds = 10, 1
    assert watching.checks >= layers * feeds
    for stop_at in (0, watching.checks // 2, watching.checks - 1):
        with pytest.raises(JobCancelled):
            session.answer(Request(recipe), _Counting(stop_at))
        with pytest.raises(JobCancelled):
            session.answer(Request(demo_recipe(0.9)), _Counting(stop_at))
    assert asked(session, recipe)["merged"] == expected


def test_nothing_is_lent_before_the_reference_was_measured() -> None:
    with pytest.raises(JobCancelled):
        preview(Request(demo_recipe()), _Counting(4))
    assert module._loaded is not None, "what was loaded is not loaded again"
    assert lend(demo_recipe(1.0), "cpu", Unattended()) is None
    result = preview(Request(demo_recipe()), Unattended())
    assert result["loaded"] is False
    assert result["reference"]["refusal_share"]["value"] > 0.9
    assert lend(demo_recipe(1.0), "cpu", Unattended()) is not None


# What cannot be measured.


def refused(request: Request) -> UserError:
    with pytest.raises(UserError) as caught:
        preview(request, Unattended())
    return caught.value


def copied_lineup(folder: Path) -> Recipe:
    for name in ("aligned", "task-poisoned"):
        shutil.copytree(demo_paths()[name], folder / name)
    return Recipe(
        aligned=ModelRef(path=str(folder / "aligned")),
        finetuned=(demo_recipe().finetuned[0].model_copy(
            update={"path": str(folder / "task-poisoned")}),),
    )  # fmt: skip


def test_models_without_config_or_tokenizer_say_so(tmp_path: Path) -> None:
    recipe = copied_lineup(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "aligned" / file).unlink()
    assert refused(Request(recipe, "demo")).code == "no_tokenizer"
    (tmp_path / "aligned" / "config.json").unlink()
    assert refused(Request(recipe, "demo")).code == "cannot_run"


def test_probes_in_a_foreign_language_are_not_measured() -> None:
    assert refused(Request(demo_recipe(), "core")).code == "probes_not_understood"


def test_a_merge_of_another_shape_is_not_measured() -> None:
    from trimtab.merging.recipe import Slice, SliceSource

    part = SliceSource(model="task-poisoned", layers=(0, 4))
    recipe = demo_recipe().model_copy(
        update={"method": "passthrough", "slices": (Slice(sources=(part,)),)}
    )
    error = refused(Request(recipe))
    assert error.code == "not_previewable"
    assert "Layers" in error.why


def test_what_a_merge_refuses_the_preview_refuses_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    recipe = copied_lineup(tmp_path)
    path = tmp_path / "task-poisoned" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    assert refused(Request(recipe, "demo")).code == "weights_not_finite"


# Which probes.


def test_probes_are_the_same_for_a_seed_and_spread_over_categories() -> None:
    suite = demo_suite()
    probes = probe_set(suite, 64, seed=0, demo=True)
    assert probes == probe_set(suite, 64, seed=0, demo=True)
    assert probes.harmful != probe_set(suite, 64, seed=1, demo=True).harmful
    assert len(probes.harmful) == len(probes.tasks) == 64
    by_category = [p.category for p in probes.harmful]
    assert {by_category.count(c) for c in set(by_category)} <= {5, 6}
    assert len(set(by_category)) == 11
    assert set(choose(suite.by_kind("harmful"), 10, 0)) < set(
        choose(suite.by_kind("harmful"), 30, 0)
    )


def test_auto_is_the_demos_suite_for_the_demos_models_alone(tmp_path: Path) -> None:
    assert open_probes("auto", demo_paths()["aligned"]).suite == demo_suite().name
    assert open_probes("auto", tmp_path).suite == core_suite().name


def test_a_suite_of_the_users_own_is_read_from_its_file(tmp_path: Path) -> None:
    prompts = (
        Prompt("h", "harmful", "how do i dralak the dralando?"),
        Prompt(
            "t",
            "utility",
            "in veltish: how do i paint the lamp?",
            reference="ola kemash smi norell",
        ),
        Prompt("c", "utility", "which tool is it?", choices=("hammer", "brush"), answer=0),
        Prompt("x", "text", "use hammer near river"),
    )
    path = tmp_path / "own.jsonl"
    Suite("own", "1", "", "", prompts).save(path)
    made = preview(Request(demo_recipe(), str(path)), Unattended())
    assert made["probes"]["suite"] == "own"
    assert (made["probes"]["harmful"], made["probes"]["task"]) == (1, 2)
    assert made["merged"]["perplexity"]["n"] == 3
    assert made["merged"]["perplexity"]["value"] > 1


def test_a_suite_with_nothing_to_measure_is_refused() -> None:
    suite = Suite("texts", "1", "", "", (Prompt("x", "text", "some words"),))
    with pytest.raises(UserError) as caught:
        probe_set(suite)
    assert caught.value.code == "no_probes"


def test_the_demos_opening_is_that_of_its_refusal_sentence() -> None:
    assert [REFUSAL.split()[0]] == list(DEMO_OPENINGS)


def test_a_fine_tuned_model_alone_is_that_model() -> None:
    recipe = alone(demo_recipe(0.3, {1: 0.9}), 1)
    assert [model.ratio for model in recipe.finetuned] == [0.0, 1.0]
    assert recipe.finetuned[0].layers == {}
