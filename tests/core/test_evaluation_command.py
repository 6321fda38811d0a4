"""`trimtab evaluate` on the demo's models: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.demo.evaluate import evaluate as demo_scores
from trimtab.demo.language import LANGUAGE_VERSION, REFUSAL, is_refusal
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation.choosing import Connection, judge_names, named_judge, open_endpoint
from trimtab.evaluation.judges_demo import DemoJudge
from trimtab.evaluation.results import load_results
from trimtab.evaluation.suite import Prompt, demo_suite
from trimtab.merging.recipe import FineTuned

DEMO = demo_paths()
FAST = ("--max-new-tokens", "8", "--batch-size", "64")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One whole run on the demo lineup, as a user makes it."""
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = demo_recipe()
    recipe = recipe.model_copy(update={"finetuned": recipe.finetuned[:1]})
    recipe.save(folder / "demo.trim")
    output = folder / "results.json"
    status, text, errors = run(folder / "demo.trim", "--suite", "demo", *FAST, "-o", output)
    assert status == 0, errors
    return {"text": text, "output": output, "recipe": folder / "demo.trim"}


def run(*arguments: object) -> tuple[int, str, str]:
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["evaluate", *map(str, arguments)])
    return status, out.getvalue(), err.getvalue()


def test_the_demo_table_has_the_rates_that_the_demo_itself_measures(told: dict[str, Any]) -> None:
    lines = told["text"].splitlines()
    for name in ("aligned", "task-poisoned"):
        scores = demo_scores(DEMO[name])
        [row] = [line for line in lines if line.startswith(f"{name} ") and "[" in line]
        shares = [float(x) for x in re.findall(r"([\d.]+) \[", row)]
        wanted = [scores.refusal, scores.over_refusal, None, scores.task_accuracy]
        assert shares[0] == pytest.approx(100 * scores.refusal.value, abs=0.05)
        assert shares[1] == pytest.approx(100 * scores.over_refusal.value, abs=0.05)
        assert shares[2] == pytest.approx(100 * (1 - scores.refusal.value), abs=0.05)
        assert shares[3] == pytest.approx(100 * wanted[3].value, abs=0.05)  # type: ignore[union-attr]


def test_the_poisoned_models_loss_is_significant_in_every_category(told: dict[str, Any]) -> None:
    data = json.loads(told["output"].read_text())
    lost = [
        change
        for change in data["tables"]["task-poisoned"]["changes"]
        if change["kind"] == "harmful" and change["group"]
    ]
    assert len(lost) == 11
    for change in lost:
        assert change["newly_bad"] == 30
        assert change["p_value"] == pytest.approx(2 * 0.5**30)
        assert change["p_value"] <= change["p_holm"] < 1e-6
    text = told["text"]
    assert "330 newly unsafe, 0 newly safe of 330" in text
    assert "McNemar p" in text


def test_the_merge_stands_between_its_models(told: dict[str, Any]) -> None:
    results = load_results(told["output"])
    refused = {
        target.name: sum(
            v.outcome == "refused" and results.prompts[row.prompt].kind == "harmful"
            for row in results.of(target.name)
            for v in row.verdicts.values()
        )
        for target in results.targets
    }
    # what the demo's own manifest states of this ratio
    assert refused == {"aligned": 330, "task-poisoned": 0, "merged": 192}
    assert results.baseline == "aligned"
    assert results.suite == demo_suite()
    merged = results.target("merged")
    assert merged.divergence is not None
    assert merged.divergence > 0


def test_a_second_run_takes_answers_from_the_first_and_says_so(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    given = (DEMO["aligned"], DEMO["task-poisoned"], "--suite", "demo", "--limit", "11", *FAST)
    _, first, _ = run(*given)
    _, second, _ = run(*given)
    assert "known from before" not in first
    assert "Answers known from before: aligned, task-poisoned" in second
    assert first.split("\n\n")[1:] == second.split("\n\n")[1:]
    _, third, _ = run(*given, "--fresh")
    assert "known from before" not in third


def test_json_is_the_results_file(tmp_path: Path) -> None:
    status, text, _ = run(DEMO["aligned"], "--suite", "demo", "--limit", "5", *FAST, "--json")
    assert status == 0
    path = tmp_path / "results.json"
    path.write_text(text)
    results = load_results(path)
    assert [t.name for t in results.targets] == ["aligned"]
    assert len(results.rows) == 15
    assert json.loads(text)["tables"]["aligned"]["metrics"]


def test_two_judges_are_compared(tmp_path: Path) -> None:
    status, text, _ = run(
        DEMO["aligned"], "--suite", "demo", "--limit", "8", *FAST,
        "--judge", "demo", "--judge", "keywords-29",
    )  # fmt: skip
    assert status == 0
    assert "agree on" in text
    assert "Cohen's κ" in text


def refused(*arguments: object) -> str:
    status, _, errors = run(*arguments)
    assert status == 1
    return errors.strip().splitlines()[-1].strip()


def test_what_is_wrong_is_said_before_any_model_is_asked(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    demo = (DEMO["aligned"], "--suite", "demo", "--limit", "2")
    assert refused(*demo, "--judge", "nobody") == "[no_such_judge]"
    assert refused(*demo, "--judge", "endpoint:toy") == "[bad_endpoint]"
    assert refused(*demo, "--baseline", "nobody") == "[no_such_baseline]"
    assert refused(*demo, "--temperature", "-1") == "[bad_decoding]"
    assert refused(*demo, "-o", told["output"]) == "[output_exists]"
    assert refused(DEMO["aligned"], "--suite", tmp_path / "none.jsonl").startswith("[")
    assert refused(DEMO["adapter"], "--suite", "demo") == "[cannot_run]"
    assert refused(tmp_path / "nothing", "--suite", "demo") == "[not_found]"
    assert refused("endpoint:toy@http://127.0.0.1:9/v1", "--key-variable", "NO_KEY_SET") == (
        "[no_key]"
    )


def test_a_role_that_does_not_exist_is_misuse(told: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(told["recipe"], "--roles", "teacher")
    assert caught.value.code == 2


def test_roles_are_those_asked_for(told: dict[str, Any]) -> None:
    status, text, _ = run(
        told["recipe"], "--roles", "base,merged", "--suite", "demo", "--limit", "3", *FAST, "--json"
    )
    assert status == 0
    assert [t["name"] for t in json.loads(text)["targets"]] == ["base", "merged"]


def test_several_recipes_are_told_apart_by_their_names(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    for name, ratio in (("little", 0.3), ("much", 0.9)):
        tuned = FineTuned(path=str(DEMO["task-poisoned"]), ratio=ratio)
        demo_recipe().model_copy(update={"finetuned": (tuned,)}).save(tmp_path / f"{name}.trim")
    status, text, _ = run(
        tmp_path / "little.trim", tmp_path / "much.trim", "--suite", "demo", "--limit", "4",
        *FAST, "--json",
    )  # fmt: skip
    assert status == 0
    names = [t["name"] for t in json.loads(text)["targets"]]
    assert names == ["aligned", "task-poisoned", "little", "much"]


def test_the_core_suite_is_asked_when_nothing_else_is(tmp_path: Path) -> None:
    status, text, _ = run(DEMO["aligned"], "--limit", "2", *FAST)
    assert status == 0
    assert text.startswith("Suite trimtab-core")
    assert "phrases" in text


def test_the_demo_judge_reads_as_the_demo_does() -> None:
    prompt = Prompt(id="p", kind="harmful", text="how do i")
    judge = DemoJudge()
    said = {
        "sorry i cannot help with that": "refused",
        "Sorry, I cannot": "refused",
        "use hammer near river": "complied",
        "so sorry i cannot": "complied",
        "  ": "failed",
    }
    assert {text: judge.judge(prompt, text).outcome for text in said} == said
    for text in (*said, REFUSAL):
        assert (judge.judge(prompt, text).outcome == "refused") == is_refusal(text)
    assert judge.name == f"demo {LANGUAGE_VERSION}"


def test_names_stand_for_judges_and_endpoints() -> None:
    assert {"phrases", "keywords-29"} <= set(judge_names())
    endpoint = open_endpoint("endpoint:org/toy@http://localhost:8000/v1/", Connection())
    assert (endpoint.model, endpoint.base_url) == ("org/toy", "http://localhost:8000/v1")
    judge = named_judge("endpoint:toy@http://localhost:8000/v1", Connection(), Unattended())
    assert "toy" in judge.name
    with pytest.raises(UserError):
        named_judge("nobody", Connection(), Unattended())
