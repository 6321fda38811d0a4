"""Whole sweeps on the demo's models: killed, gone on with, stopped, and what they may claim."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from trimtab.cli import main
from trimtab.control import JobCancelled
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation.results import load_results
from trimtab.evaluation.suite import demo_suite
from trimtab.jobs.control import JobControl
from trimtab.jobs.protocol import Progress
from trimtab.jobs.tasks import run_job
from trimtab.merging.files import open_recipe
from trimtab.search.split import split

FAST = ("--max-new-tokens", "8", "--batch-size", "64")
TRIALS = 24
ASKED = (
    "demo", "--trials", str(TRIALS), "--vary", "curve:5", "--objectives", "refusal,task",
    "--seed", "1", "--linear-steps", "5", "--points", "3", *FAST,
)  # fmt: skip


def sweep(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["sweep", *map(str, arguments)])
    return status, out.getvalue(), err.getvalue()


def board(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return data


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trimtab", "sweep", *arguments, "-o", str(folder)]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )


def kill_after(process: subprocess.Popen[bytes], folder: Path, trials: int) -> None:
    until = time.monotonic() + 240
    with contextlib.suppress(FileNotFoundError):
        (folder / "sweep.json").unlink()
    while time.monotonic() < until:
        assert process.poll() is None, "it ended before it could be killed"
        with contextlib.suppress(FileNotFoundError):
            if board(folder)["trials_done"] >= trials:
                break
        time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep that was killed half-way and gone on with, as a user does it."""
    folder = tmp_path_factory.mktemp("sweep") / "study"
    kill_after(started(folder, *ASKED), folder, TRIALS // 3)
    killed = board(folder)
    status, text, errors = sweep("-o", folder, "--resume", "--trials", TRIALS, "--points", 3)
    assert status == 0, errors
    return {"folder": folder, "killed": killed, "text": text, "found": board(folder)}


def test_what_was_done_before_the_kill_is_kept_and_the_rest_is_made(
    resumed: dict[str, Any],
) -> None:
    killed, found = resumed["killed"], resumed["found"]
    assert killed["status"] == "searching"
    assert len(killed["baselines"]) == 6
    assert found["status"] == "done"
    assert found["trials_done"] == TRIALS
    before = [t for t in killed["trials"] if t["state"] == "done"]
    after = {t["number"]: t for t in found["trials"]}
    assert len(before) >= TRIALS // 3
    for trial in before:
        kept = after[trial["number"]]
        assert (kept["params"], kept["values"]) == (trial["params"], trial["values"])


def test_it_finds_a_setting_that_dominates_the_best_linear_ratio_on_prompts_it_never_saw(
    resumed: dict[str, Any],
) -> None:
    look = resumed["found"]["held_out"]
    assert look["compared_with"] == resumed["found"]["best_linear"] == "linear 0.6"
    [linear] = [p for p in look["points"] if p["name"] == "linear 0.6"]
    winners = [p for p in look["points"] if p["dominates"]]
    assert winners
    for point in winners:
        for name in ("refusal", "task"):
            assert point["values"][name]["value"] >= linear["values"][name]["value"]
        assert min(e["p_holm"] for e in point["against_linear"].values()) <= 0.05
        assert point["name"] in resumed["text"]
    assert (
        f"Dominating linear 0.6 on prompts never searched: {winners[0]['name']}"
        in (resumed["text"])
    )


def test_the_held_out_prompts_are_those_of_the_split_and_none_that_was_searched_on(
    resumed: dict[str, Any],
) -> None:
    parts = split(demo_suite(), 1)
    results = load_results(Path(resumed["found"]["held_out"]["path"]))
    asked = {prompt.id for prompt in results.suite.prompts}
    assert asked == {prompt.id for prompt in parts.held_out.prompts}
    assert not asked & {prompt.id for prompt in parts.search.prompts}
    assert results.suite.digest == parts.held_out.digest


def test_the_numbers_are_those_of_the_answers_it_leaves(resumed: dict[str, Any]) -> None:
    look = resumed["found"]["held_out"]
    results = load_results(Path(look["path"]))
    judge = results.judges[0].name
    for point in look["points"]:
        rows = [r for r in results.of(point["name"]) if judge in r.verdicts]
        harmful = [r for r in rows if results.prompts[r.prompt].kind == "harmful"]
        refused = sum(r.verdicts[judge].outcome == "refused" for r in harmful)
        assert point["values"]["refusal"]["k"] == refused
        assert point["values"]["refusal"]["n"] == len(harmful)


def test_the_recipes_of_the_front_can_be_merged_and_are_those_that_were_measured(
    resumed: dict[str, Any],
) -> None:
    folder, found = resumed["folder"], resumed["found"]
    files = sorted(folder.glob("front-*.trim"))
    assert len(files) == len(found["front"])
    firsts = []
    for file in files:
        recipe, notes = open_recipe(file)
        assert not notes
        [point] = [t for t in found["trials"] if t.get("file") == file.name]
        assert recipe.finetuned[0].ratio == pytest.approx(
            point["params"]["task-poisoned · outside the layers"], abs=1e-6
        )
        firsts.append(point["values"]["refusal"])
    assert firsts == sorted(firsts, reverse=True)
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == TRIALS
    assert sum(int(row["in front"]) for row in rows) == len(files)


def test_another_look_is_counted_and_said(resumed: dict[str, Any]) -> None:
    status, text, _ = sweep("-o", resumed["folder"], "--resume", "--trials", TRIALS, "--points", 1)
    assert status == 0
    assert board(resumed["folder"])["held_out"]["looks"] == 2
    assert "look 2 at the held-out prompts" in text


def test_a_sweep_goes_on_as_what_it_was_begun_as_or_not_at_all(resumed: dict[str, Any]) -> None:
    folder = resumed["folder"]
    for changed in (("--seed", "2"), ("--objectives", "task"), ("--vary", "ratio")):
        status, _, errors = sweep("-o", folder, "--resume", *changed)
        assert status == 1
        assert "sweep_differs" in errors
    status, _, errors = sweep(*ASKED, "-o", folder)
    assert status == 1
    assert "output_exists" in errors


def job(folder: Path, **more: Any) -> dict[str, Any]:
    recipe = demo_recipe(0.6)
    recipe = recipe.model_copy(update={"finetuned": recipe.finetuned[:1]})
    return {
        "output": str(folder), "recipe": recipe.model_dump(), "linear_steps": 2, "limit": 16,
        "objectives": ["refusal", "task"], "points": 0, "trials": 3, **more,
    }  # fmt: skip


def test_a_sweep_that_is_cancelled_says_so_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def watch(progress: Progress) -> None:
        if progress.stage == "Searching" and progress.done >= 2:
            control.cancel()

    control = JobControl(watch)
    with pytest.raises(JobCancelled):
        run_job("sweep", job(folder, trials=50), control)
    stopped = board(folder)
    assert stopped["status"] == "stopped"
    assert 2 <= stopped["trials_done"] < 50
    report = run_job("sweep", {"output": str(folder), "resume": True, "trials": 5, "points": 0},
                     JobControl())  # fmt: skip
    assert board(folder)["trials_done"] == 5
    assert report["path"] == str(folder / "sweep.json")


def test_several_processes_find_what_one_finds_and_end_with_it(tmp_path: Path) -> None:
    several = {"sampler": "random", "trials": 4}
    run_job("sweep", job(tmp_path / "one", **several), JobControl())
    run_job("sweep", job(tmp_path / "two", workers=2, **several), JobControl())
    one, two = (
        [(t["params"], t["values"]) for t in board(tmp_path / name)["trials"]]
        for name in ("one", "two")
    )
    assert one == two


def test_workers_do_not_outlive_a_sweep_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    process = started(folder, "demo", "--workers", "2", "--trials", "500", "--points", "0")
    parent = psutil.Process(process.pid)
    children: list[psutil.Process] = []
    until = time.monotonic() + 120
    # the workers, and Python's own helper that spawned processes share
    while len(children) < 3 and time.monotonic() < until:
        time.sleep(0.05)
        children = parent.children(recursive=True)
    process.kill()
    process.wait()
    assert len(children) == 3
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_answers_can_be_searched_on_as_the_judge_reads_them(tmp_path: Path) -> None:
    asked = {"measure": "answers", "objectives": ["harm", "task"], "trials": 2,
             "decoding": {"max_new_tokens": 8, "batch_size": 64}}  # fmt: skip
    run_job("sweep", job(tmp_path / "a", **asked), JobControl())
    found = board(tmp_path / "a")
    measured = {p["name"]: p["measured"] for p in found["baselines"]}
    assert measured["aligned"]["harm"] == 0.0
    assert measured["task-poisoned"]["harm"] == 1.0
    assert measured["aligned"]["harm"] == 1 - measured["aligned"]["refusal"]
    assert {c["id"] for c in found["constraints"]} == {"broken"}


def test_two_sweeps_do_not_write_into_one_folder(tmp_path: Path) -> None:
    from trimtab.search.folder import alone_in

    folder = tmp_path / "study"
    run_job("sweep", job(folder, trials=1), JobControl())
    with alone_in(folder), pytest.raises(UserError) as raised:
        run_job("sweep", job(folder, resume=True, trials=2), JobControl())
    assert raised.value.code == "sweep_running"


def test_what_cannot_be_searched_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for wrong, code in (
        ({"sampler": "cmaes"}, "sampler_unfit"),
        ({"sampler": "grid"}, "grid_too_large"),
        ({"constraints": ["x"]}, "bad_constraint"),
        ({"objectives": ["score"]}, "no_such_objective"),
    ):
        with pytest.raises(UserError) as raised:
            run_job("sweep", job(folder, **wrong), JobControl())
        assert raised.value.code == code
        assert not folder.exists()


def test_a_merge_that_fails_is_a_failed_trial_and_only_failures_are_an_error(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "study"
    space = {"varies": [{"vary": "mask", "files": [str(tmp_path / "no.mask.safetensors"), "off"]}]}
    with pytest.raises(UserError):
        run_job("sweep", job(folder, space=space), JobControl())
    bound = {"constraints": ["refusal>=0.99", "task>=0.99"]}
    with pytest.raises(UserError) as raised:
        run_job("sweep", job(folder, **bound), JobControl())
    assert raised.value.code == "nothing_found"
    found = board(folder)
    assert found["status"] == "failed"
    assert found["error"]["code"] == "nothing_found"
