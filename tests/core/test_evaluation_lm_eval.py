"""The lm-evaluation-harness runs its tasks in a process of its own, here a stand-in for it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_evaluation_command import FAST, refused, run

from trimtab.control import JobCancelled, Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation.lm_eval import (
    TaskNumber,
    arguments,
    find_harness,
    has_template,
    read_results,
    run_tasks,
)
from trimtab.evaluation.results import load_results

ALIGNED = demo_paths()["aligned"]

# What version 0.4.13 of the harness writes, cut to what is read.
RESULTS = {
    "results": {
        "arc_easy": {
            "name": "arc_easy",
            "alias": "arc_easy",
            "sample_len": 40,
            "acc,none": 0.25,
            "acc_stderr,none": 0.07,
            "acc_norm,none": 0.5,
            "acc_norm_stderr,none": "N/A",
        },
        "gsm8k": {"exact_match,strict-match": 0.1, "exact_match_stderr,strict-match": 0.01},
    },
    "versions": {"arc_easy": 1.0, "gsm8k": 3},
    "n-samples": {"arc_easy": {"original": 2376, "effective": 40}},
    "higher_is_better": {"arc_easy": {"acc": True, "acc_norm": True}},
    "lm_eval_version": "0.4.13",
}

_STAND_IN = """
import json, os, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("a word of the harness")
if "slow" in given["--tasks"]:
    pathlib.Path({started!r}).write_text(str(os.getpid()))
    time.sleep(60)
if "broken" in given["--tasks"]:
    sys.exit("no such task: broken")
place = pathlib.Path(given["--output_path"], "model")
place.mkdir(parents=True)
model = dict(part.split("=", 1) for part in given["--model_args"].split(","))
weights = sorted(p.name for p in pathlib.Path(model["pretrained"]).glob("*.safetensors"))
assert weights and os.environ["HF_HUB_OFFLINE"] == "1", (weights, dict(os.environ))
pathlib.Path({told!r}).open("a").write(json.dumps(sys.argv[1:]) + "\\n")
place.joinpath("results_2026-01-01.json").write_text({results!r})
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called lm_eval that writes what it was told, and results."""
    package = tmp_path / "packages" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = _STAND_IN.format(
        started=str(tmp_path / "started"),
        told=str(tmp_path / "told"),
        results=json.dumps(RESULTS),
    )
    (package / "__main__.py").write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return tmp_path


def test_numbers_come_with_their_errors_and_what_is_no_number_stays_away(harness: Path) -> None:
    found = run_tasks("aligned", ALIGNED, ["arc_easy", "gsm8k"], Unattended())
    assert found == (
        TaskNumber("aligned", "arc_easy", "acc", "none", 0.25, 0.07, True, 40, "1.0", "0.4.13"),
        TaskNumber("aligned", "arc_easy", "acc_norm", "none", 0.5, None, True, 40, "1.0", "0.4.13"),
        TaskNumber(
            "aligned", "gsm8k", "exact_match", "strict-match", 0.1, 0.01, None, None, "3", "0.4.13"
        ),
    )


def test_the_harness_is_told_everything_that_decides() -> None:
    told = arguments(
        Path("/models/m"), ["a", "b"], Path("/out"), device="cuda:0", dtype="auto", batch_size=4,
        seed=7, limit=11, include="/mine", template=True,
    )  # fmt: skip
    given = dict(zip(told[:-1:2], told[1::2], strict=True))
    assert given == {
        "--model": "hf",
        "--model_args": "pretrained=/models/m,dtype=auto,trust_remote_code=False",
        "--tasks": "a,b", "--device": "cuda:0", "--batch_size": "4", "--seed": "7",
        "--output_path": "/out", "--limit": "11", "--include_path": "/mine",
    }  # fmt: skip
    assert told[-1] == "--apply_chat_template"
    assert "--limit" not in arguments(Path("/m"), ["a"], Path("/out"))


@pytest.mark.parametrize("tasks", [[""], ["--confirm_run_unsafe_code"], ["a,b"]])
def test_what_is_no_name_of_a_task_is_refused(tasks: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        arguments(Path("/m"), tasks, Path("/out"))
    assert caught.value.code == "bad_tasks"


def test_a_folder_that_the_harness_would_take_for_options_is_refused() -> None:
    with pytest.raises(UserError):
        arguments(Path("/m,trust_remote_code=True"), ["a"], Path("/out"))


def test_what_the_harness_says_when_it_fails_is_passed_on(harness: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_tasks("aligned", ALIGNED, ["broken"], Unattended())
    assert caught.value.code == "lm_eval_failed"
    assert "no such task: broken" in caught.value.why
    assert "a word of the harness" in caught.value.details


class Impatient(Unattended):
    """Gives up as soon as the harness has begun."""

    def __init__(self, started: Path):
        self.started = started

    def check(self) -> None:
        if self.started.exists() and self.started.read_text():
            raise JobCancelled


def test_a_harness_that_nobody_waits_for_is_ended(
    harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.evaluation.lm_eval._GRACE", 30.0)
    started = harness / "started"
    begun = time.monotonic()
    with pytest.raises(JobCancelled):
        run_tasks("aligned", ALIGNED, ["slow"], Impatient(started))
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_harness_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError) as caught:
        find_harness()
    assert caught.value.code == "no_lm_eval"
    assert "trimtab[lm-eval]" in caught.value.fix


def test_a_harness_of_another_python_is_found_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tool = tmp_path / "lm_eval"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_harness() == (str(tool),)


@pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', '{"results": {"a": 1}}'])
def test_results_of_another_form_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "results_1.json").write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_results(tmp_path, "m"))
    assert caught.value.code == "lm_eval_failed"
    with pytest.raises(UserError):
        list(read_results(tmp_path / "none", "m"))


def test_a_chat_template_is_found_where_models_keep_it(tmp_path: Path) -> None:
    assert has_template(ALIGNED)
    assert not has_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert has_template(tmp_path)


def test_the_command_runs_tasks_on_models_and_on_merges_that_are_not_saved(harness: Path) -> None:
    whole = demo_recipe()
    recipe = whole.model_copy(update={"finetuned": whole.finetuned[:1]})
    recipe.save(harness / "a.trim")
    output = harness / "results.json"
    status, text, errors = run(
        harness / "a.trim", "--roles", "aligned,merged", "--suite", "demo", "--limit", "3", *FAST,
        "--lm-eval", "arc_easy, gsm8k", "-o", output,
    )  # fmt: skip
    assert status == 0, errors
    assert "lm-evaluation-harness 0.4.13" in text
    assert "0.25 ± 0.07" in text
    assert {number.target for number in load_results(output).tasks} == {"aligned", "merged"}
    told: list[Any] = [json.loads(line) for line in (harness / "told").read_text().splitlines()]
    models = [Path(t[3].split(",")[0].removeprefix("pretrained=")) for t in told]
    assert models[0] == ALIGNED
    assert not models[1].exists()  # it was saved for the harness alone
    assert all("--apply_chat_template" in t and "arc_easy,gsm8k" in t for t in told)


def test_a_missing_harness_is_said_before_any_model_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("trimtab.evaluation.lm_eval.importlib.util.find_spec", lambda name: None)
    given = (ALIGNED, "--suite", "demo", "--limit", "2", "--lm-eval", "arc_easy")
    assert refused(*given) == "[no_lm_eval]"
