"""`trimtab chat` on the demo's models: what it prints while they write, and what it takes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.cli import main
from trimtab.control import JobCancelled
from trimtab.demo.language import REFUSAL, evaluation_prompts
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.evaluation import chat

HARMFUL, OTHER = (row.prompt for row in evaluation_prompts("harmful")[:2])
ALIGNED = str(demo_paths()["aligned"])
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    chat.release()


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "demo.trim"
    whole = demo_recipe(0.0)
    whole.model_copy(update={"finetuned": whole.finetuned[:1]}).save(path)
    return str(path)


def test_each_role_of_a_recipe_answers_under_its_name(recipe: str, capsys: Out) -> None:
    assert main(["chat", recipe, "--prompt", HARMFUL]) == 0
    parts = [part.splitlines() for part in capsys.readouterr().out.strip().split("\n\n")]
    assert [part[0] for part in parts] == ["aligned:", "task-poisoned:", "merged:"]
    assert [part[1] == REFUSAL for part in parts] == [True, False, True]
    remarks = [part[2].split(" · ")[0].strip() for part in parts]
    assert remarks == ["refused (demo 1)", "complied (demo 1)", "refused (demo 1)"]


def test_what_is_written_so_far_is_not_written_twice(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.evaluation.targets_writing._PAUSE", 0.0)
    monkeypatch.setattr("trimtab.jobs.control.PROGRESS_PER_SECOND", 1_000_000)
    assert main(["chat", ALIGNED, "--prompt", HARMFUL]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1] == REFUSAL
    assert out.count(REFUSAL.split()[0]) == 1


def test_lines_of_the_standard_input_are_asked_each_for_itself(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{HARMFUL}\n\n  {OTHER}\n"))
    assert main(["chat", ALIGNED]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("> ")] == [
        f"> {HARMFUL}", f"> {OTHER}",
    ]  # fmt: skip
    assert out.count(REFUSAL) == 2


def test_json_has_a_line_for_each_prompt(capsys: Out) -> None:
    given = ["--prompt", HARMFUL, "--prompt", OTHER, "--max-new-tokens", "3"]
    assert main(["chat", "--json", ALIGNED, *given, "--system", "be kind"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["prompt"] for one in told] == [HARMFUL, OTHER]
    assert {one["answers"][0]["name"] for one in told} == {"aligned"}
    assert told[0]["answers"][0]["cut"]


def test_a_model_that_cannot_answer_is_told_beside_the_others(capsys: Out) -> None:
    assert main(["chat", ALIGNED, "/nowhere/at-all", "--prompt", HARMFUL]) == 1
    out = capsys.readouterr().out
    assert "at-all is not there" in out
    assert REFUSAL in out


def test_two_recipes_are_one_too_many(recipe: str, tmp_path: Path, capsys: Out) -> None:
    other = tmp_path / "other.trim"
    demo_recipe().save(other)
    assert main(["chat", recipe, str(other), "--prompt", HARMFUL]) == 1
    assert "one_recipe" in capsys.readouterr().err


def test_at_a_terminal_a_stop_ends_the_answer_and_not_the_chat(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stopped(name: str, params: dict[str, object], show: object) -> None:
        asked.append(params["conversation"])
        raise JobCancelled

    typed = io.StringIO("one\ntwo\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("trimtab.commands.chat.run_job", stopped)
    assert main(["chat", ALIGNED]) == 0
    assert len(asked) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert main(["chat", ALIGNED]) == 130
    assert len(asked) == 3
