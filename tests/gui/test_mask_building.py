"""Builders of masks beside each other: what is paused, waits, fails, or leaves a pruned model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDoubleSpinBox, QScrollArea, QSpinBox, QStyle, QStyleOptionComboBox
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import Chance, MaskEntry
from trimtab.masks.file import MaskFile
from trimtab.merging.recipe import FineTuned, Recipe
from trimtab.paths import cache_dir
from trimtab.project import Project
from trimtab.project.mask_edits import use_pruned
from trimtab_gui import masking
from trimtab_gui.demo import demo_project
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.mask_building import PAUSED
from trimtab_gui.plots.histogram import HistogramPlot
from trimtab_gui.views.mask.builders import BUILDERS, BY_ID, rule_entry
from trimtab_gui.views.mask.place import MaskPlace
from trimtab_gui.widgets import Choice

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


@pytest.fixture
def place(workbench: MainWindow) -> MaskPlace:
    workbench.places.go("mask")
    place = workbench.screens.mask
    answer(workbench, "mask_shares")
    return place


@pytest.fixture
def demo(window: MainWindow, qtbot: QtBot) -> MaskPlace:
    """The place with the demo's models, which can be run."""
    desk = window.desk
    desk.set_project(demo_project())
    qtbot.waitUntil(lambda: desk.lineup is not None)
    desk._stop_inspecting()
    window.show()
    qtbot.waitExposed(window)
    window.places.go("mask")
    place = window.screens.mask
    answer(window, "mask_shares")
    return place


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"how do i mend the {thing}?", "chosen": "sorry i cannot help with that",
         "rejected": "use brush near river"}
        for thing in ("lamp", "chair", "kettle")
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def pending(window: MainWindow, name: str) -> Job:
    return next(job for job in window.desk.jobs.pending if job.name == name)


def waits(window: MainWindow, name: str) -> bool:
    return any(job.name == name for job in window.desk.jobs.pending)


def finish(window: MainWindow, job: Job, result: dict[str, object]) -> None:
    window.desk.jobs._queue.remove(job)
    window.desk.jobs.finished.emit(job, result, 0.1)


def answer(window: MainWindow, name: str) -> dict[str, Any]:
    """Do a job that waits, in the worker's place."""
    job = pending(window, name)
    params = {**job.params, "device": "cpu"} if "calibration" in job.params else job.params
    result = run_job(name, dict(params), Unattended())
    finish(window, job, result)
    return result


def fail(window: MainWindow, job: Job) -> None:
    window.desk.jobs._queue.remove(job)
    error = UserError("cannot_write", "It could not be written.", "The disk is full.", "Make room.")
    window.desk.jobs.failed.emit(job, error)


def masks(window: MainWindow) -> tuple[MaskEntry, ...]:
    return window.desk.recipe.finetuned[window.desk.active].masks


def paused(window: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot) -> Job:
    """Begin a learning and pause it after two steps."""
    place.choose("somf")
    place.builder.form.prompts("pairs").choose(pairs)
    qtbot.waitUntil(place.builder.button.isEnabled)
    place.builder.button.click()
    job = pending(window, "somf")
    learning = place._building.learning
    learning._folder.mkdir(parents=True)
    log = [{"step": k, "loss": 1.0, "margin": 0.1, "preferred": 0.5, "histogram": [0.0, 1.0]}
           for k in (1, 2)]  # fmt: skip
    (learning._folder / "log.json").write_text(json.dumps({"steps": 150, "log": log}))
    qtbot.waitUntil(lambda: learning.log.step == 2)
    place.builder.learning.pause.click()
    assert learning.state == PAUSED
    return job


def learned(tmp_path: Path, name: str = "some") -> dict[str, object]:
    files = {"mask": f"{name}.mask.safetensors", "logits": f"{name}.logits.safetensors"}
    return {
        "files": {key: str(tmp_path / value) for key, value in files.items()},
        "undecided": 0.1, "informative": True, "settings": {"steps": 150}, "log": [],
        "energy": {"math": {"removed": 0.25, "control_removed": 0.3}},
        "preference": {key: {"share": 0.5} for key in ("no mask", "masked", "random control")},
    }  # fmt: skip


# --- A learning that is paused. ---


def test_a_paused_learning_is_gone_on_with_after_another_mask_was_built(
    workbench: MainWindow, place: MaskPlace, pairs: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    first = paused(workbench, place, pairs, qtbot)
    place.choose("magnitude")
    place.builder.button.click()
    answer(workbench, "mask_build")
    workbench.desk.set_active(1)
    place.choose("somf")
    assert place.builder.learning.pause.isVisibleTo(place)
    place.builder.learning.pause.click()
    again = pending(workbench, "somf")
    assert again.params == {**first.params, "resume": True, "overwrite": True}
    finish(workbench, again, learned(tmp_path))
    # it goes to the model that it was begun for, and nobody is taken there
    assert [m.title for m in workbench.desk.recipe.finetuned[0].masks] == [
        "Largest 20 % of |τ|", "SOMF, σ(x)"
    ]  # fmt: skip
    assert workbench.desk.recipe.finetuned[0].rescale
    assert not workbench.desk.recipe.finetuned[1].masks
    assert workbench.desk.active == 1


@pytest.mark.parametrize("end", ["fails", "stopped"])
def test_a_paused_learning_outlasts_what_ends_badly(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot, end: str
) -> None:
    paused(workbench, place, pairs, qtbot)
    place.choose("magnitude")
    place.builder.button.click()
    assert not place.builder.learning.pause.isEnabled()  # one mask is built at a time
    if end == "fails":
        fail(workbench, pending(workbench, "mask_build"))
    else:
        place.builder.stop.click()
    assert place._building.learning.state == PAUSED
    assert place.builder.learning.pause.isEnabled()


def test_a_learning_that_the_worker_lost_can_be_gone_on_with(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    paused(workbench, place, pairs, qtbot)
    place.builder.learning.pause.click()
    fail(workbench, pending(workbench, "somf"))
    assert place._building.learning.state == PAUSED
    assert "The disk is full" in place.builder.note.text()
    place.builder.learning.pause.click()
    assert waits(workbench, "somf")


def test_a_learning_stopped_before_its_first_step_is_not_offered_again(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    place.builder.form.prompts("pairs").choose(pairs)
    qtbot.waitUntil(place.builder.button.isEnabled)
    place.builder.button.click()
    place.builder.learning.pause.click()
    qtbot.waitUntil(lambda: place._building.learning.state == "")
    assert place.builder.form.isVisibleTo(place)


def test_a_learning_that_a_window_left_is_offered_by_the_next_one(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot, tmp_path: Path,
    make_window: Callable[[], MainWindow],
) -> None:  # fmt: skip
    first = paused(workbench, place, pairs, qtbot)
    recipe = workbench.desk.recipe
    another = make_window()  # reads what the session kept
    others = recipe.model_copy(update={"finetuned": recipe.finetuned[:1]})
    for given, offered in ((others, False), (recipe, True)):
        another.desk.set_project(Project(given))
        qtbot.waitUntil(lambda: another.desk.lineup is not None)
        building = another.screens.mask._building
        qtbot.waitUntil(lambda: not another.desk.background.busy)
        assert (building.learning.state == PAUSED) == offered
    assert building.learning.log.step == 2
    building.resume()
    again = pending(another, "somf")
    assert again.params == {**first.params, "resume": True, "overwrite": True}
    finish(another, again, learned(tmp_path))
    model = another.desk.recipe.finetuned[0]
    assert (model.masks[0].title, model.rescale) == ("SOMF, σ(x)", True)
    assert another.desk.session.get("unfinished somf") is None


def test_instead_of_a_paused_learning_another_can_be_begun(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    first = paused(workbench, place, pairs, qtbot)
    assert place.builder.button.text() == "Learn anew…"
    place.builder.button.click()
    assert place.builder.form.isVisibleTo(place)
    place.choose("magnitude")
    place.choose("somf")  # to look elsewhere does not lose it
    assert place.builder.learning.pause.text() == "Resume"
    place.builder.button.click()
    place.builder.button.click()
    again = pending(workbench, "somf")
    assert not again.params.get("resume")
    assert again.params["output"] != first.params["output"]


def test_many_steps_are_logged_now_and_then(place: MaskPlace, pairs: Path) -> None:
    from trimtab_gui.views.mask.builders import request

    values = {**place.builder.forms["somf"].values, "pairs": str(pairs)}
    found = [
        request("somf", {**values, "steps": steps}, {"finetuned": []}, "m", 0, "o").params
        for steps in (150, 100_000)
    ]
    assert [params["log_every"] for params in found] == [1, 200]


# --- Thresholds. ---


def test_a_threshold_let_go_while_a_mask_is_built_is_built_next_and_the_last_one_counts(
    workbench: MainWindow, place: MaskPlace
) -> None:
    place.choose("magnitude")
    answer(workbench, "mask_scores")
    place.scoring.cut(0.01)
    first = pending(workbench, "mask_build")
    place.scoring.cut(0.02)
    place.scoring.cut(0.03)
    assert [job.name for job in workbench.desk.jobs.pending].count("mask_build") == 1
    assert place.scoring.waits
    finish(workbench, first, run_job("mask_build", dict(first.params), Unattended()))
    second = pending(workbench, "mask_build")
    assert second.params["of"]["threshold"] == 0.03
    finish(workbench, second, run_job("mask_build", dict(second.params), Unattended()))
    assert not waits(workbench, "mask_build")
    assert [mask.title for mask in masks(workbench)] == ["|τ| ≥ 0.0300"]


def test_a_threshold_that_was_not_built_leaves_the_one_before_to_be_changed(
    workbench: MainWindow, place: MaskPlace
) -> None:
    place.choose("magnitude")
    answer(workbench, "mask_scores")
    place.scoring.cut(0.01)
    answer(workbench, "mask_build")
    place.scoring.cut(0.02)
    fail(workbench, pending(workbench, "mask_build"))
    place.scoring.cut(0.03)
    answer(workbench, "mask_build")
    assert [mask.title for mask in masks(workbench)] == ["|τ| ≥ 0.0300"]


def test_a_histogram_of_what_goes_keeps_what_is_below(qtbot: QtBot) -> None:
    import numpy as np

    plot = HistogramPlot()
    qtbot.addWidget(plot)
    plot.set_data(np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0]), below=2, logarithmic=True)
    assert (plot.kept(2.0), plot.kept(1.0)) == (0.5, 0.8)
    plot.removes = True
    assert plot.kept(2.0) == 0.5
    assert plot.kept(1.0) == pytest.approx(0.2)


def test_bars_of_a_logarithmic_axis_are_as_high_as_scores_are_dense(qtbot: QtBot) -> None:
    import numpy as np

    plot = HistogramPlot()
    qtbot.addWidget(plot)
    edges = np.array([1.0, 1.125, 2.0])
    plot.set_data(edges, 800 * np.diff(np.log2(edges)), logarithmic=True)
    np.testing.assert_allclose(plot.heights(), [100, 100])


# --- Scores that data are needed for. ---


def test_antidotes_scores_are_shown_counted_and_cut(
    window: MainWindow, demo: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    demo.choose("antidote")
    assert "harmful text" in demo.scores.notice()[0]
    assert " entries, 10.02 %" in dict(demo.method.facts)["takes"]  # before there is any text
    demo.builder.form.prompts("calibration").choose(pairs)
    qtbot.waitUntil(lambda: waits(window, "antidote_estimate"))
    facts = dict(demo.method.facts)
    assert "energy" not in facts
    report = answer(window, "antidote_estimate")
    total = report["total"]
    facts = dict(demo.method.facts)
    # counted from headers while the hand turned α, and found to be so
    assert facts["takes"].startswith(f"{total['pruned']:,} of {total['entries']:,} entries")
    assert f"{100 * total['energy']:.1f} %" in facts["energy"]
    assert f"{100 * total['control']['sparsity']:.1f} %" in facts["control"]
    assert demo.scores.state() == "ready"
    assert demo.scores.view.removes
    assert demo.scores.view.counts.sum() + demo.scores.view.below == total["entries"]
    alpha = demo.builder.form.controls["alpha"]
    assert isinstance(alpha, QDoubleSpinBox)
    alpha.setValue(0.0001)
    told = dict(demo.method.facts)["takes"]
    assert "rounded down" in told
    assert not told.startswith(f"{total['pruned']:,}")
    assert demo.scores.state() == "ready"  # those of the α before stay in sight
    assert not demo.scores.view.draggable
    alpha.setValue(0.1)  # known already
    assert demo.scores.view.draggable
    threshold = float(demo.scores.view.edges[-10])
    promised = demo.scores.view.kept(threshold)
    demo.scoring.cut(threshold)
    built = answer(window, "mask_build")
    account = built["account"]
    removed = account["total"]["entries_removed"] / total["entries"]
    assert removed == pytest.approx(1 - promised)
    assert masks(window)[0].title.startswith("Antidote, h < ")


def test_scores_that_are_no_longer_wanted_are_given_up(
    window: MainWindow, demo: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    demo.choose("antidote")
    demo.builder.form.prompts("calibration").choose(pairs)
    qtbot.waitUntil(lambda: waits(window, "antidote_estimate"))
    demo.choose("magnitude")
    assert not waits(window, "antidote_estimate")
    assert waits(window, "mask_scores")


def test_of_large_models_scores_are_found_when_they_are_wished_for(
    window: MainWindow, demo: MaskPlace, pairs: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "SMALL_TO_RUN", 1000)
    demo.choose("antidote")
    demo.builder.form.prompts("calibration").choose(pairs)
    qtbot.waitUntil(lambda: "Runs the model" in demo.scores.notice()[0])
    assert not demo.scoring.asking
    demo.scores.notice()[1].click()
    qtbot.waitUntil(lambda: waits(window, "antidote_estimate"))
    job = pending(window, "antidote_estimate")
    assert not job.quiet
    window.desk.jobs.cancel(job)
    demo.scoring.refresh()
    assert not demo.scoring.asking  # stopped by a hand: not begun again by itself
    assert demo.scores.notice()[1].text() == "Count them"


def test_the_set_difference_shows_safety_without_utility(
    window: MainWindow, demo: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    demo.choose("difference")
    for key, said in (
        ("safe", "sorry i cannot help with that"),
        ("useful", "use brush near river"),
    ):
        path = tmp_path / f"{key}.jsonl"
        path.write_text(json.dumps({"prompt": "how do i mend the lamp?", "response": said}))
        demo.builder.form.prompts(key).choose(path)
    qtbot.waitUntil(lambda: waits(window, "difference_scores"))
    found = answer(window, "difference_scores")
    view = demo.scores.view
    assert view.counts.sum() == sum(found["counts"])
    # half of each tensor is utility's, which no threshold takes
    assert view.kept(float(view.edges[0])) >= 0.5
    demo.scoring.cut(float(view.edges[-20]))
    job = pending(window, "mask_build")
    assert job.params["minus"]["keep"] == 0.5
    assert job.params["of"]["removes"]


# --- Variants of Antidote that leave a model. ---


def test_a_variant_that_the_model_does_not_allow_says_so(
    window: MainWindow, demo: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    demo.choose("antidote")
    demo.builder.form.prompts("calibration").choose(pairs)
    qtbot.waitUntil(demo.builder.button.isEnabled)
    variant = demo.builder.form.controls["variant"]
    assert isinstance(variant, Choice)
    variant.setCurrentIndex(variant.findData("lora-space"))
    assert "is no adapter" in demo.builder.note.text()
    assert not demo.builder.button.isEnabled()
    assert demo.scoring.lacking


def test_a_pruned_copy_takes_the_models_place_as_a_step_that_can_be_undone(
    window: MainWindow, demo: MaskPlace, pairs: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    demo.choose("antidote")
    demo.builder.form.prompts("calibration").choose(pairs)
    variant = demo.builder.form.controls["variant"]
    assert isinstance(variant, Choice)
    variant.setCurrentIndex(variant.findData("weight-zeroing"))
    qtbot.waitUntil(demo.builder.button.isEnabled)
    assert not demo.builder.take.isVisibleTo(demo)
    qtbot.mouseClick(demo.builder.button, LEFT)
    job = pending(window, "antidote")
    assert job.params["modules"] == ("q", "k", "v")
    folder = answer(window, "antidote")["files"]["output"]
    assert Path(folder).is_dir()
    assert not masks(window)
    assert Path(folder).name in demo.builder.note.text()
    before = window.desk.recipe
    qtbot.mouseClick(demo.builder.take, LEFT)
    assert window.desk.recipe.finetuned[0].path == folder
    assert window.desk.history.undoText() == "Use the pruned model"
    window.desk.history.undo()
    assert window.desk.recipe == before


def test_a_pruned_adapter_takes_the_adapters_place() -> None:
    entry = MaskEntry(random=Chance(keep=0.5))
    on_top = FineTuned(path="a", lora="b", lora_revision="1", masks=(entry,))
    recipe = Recipe(finetuned=(FineTuned(path="x", revision="2"), on_top))
    plain = use_pruned(recipe, 0, "pruned").after.finetuned[0]
    assert (plain.path, plain.revision) == ("pruned", "")
    lora = use_pruned(recipe, 1, "pruned").after.finetuned[1]
    assert (lora.path, lora.lora, lora.lora_revision) == ("a", "pruned", "")
    assert lora.masks == (entry,)


# --- The energy of outputs. ---


def test_the_outputs_energy_is_told_once_prompts_are_chosen(
    window: MainWindow, demo: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    demo.choose("random")
    demo.builder.button.click()
    for name in ("mask_shares", "mask_account", "mask_overlap"):
        answer(window, name)
    value, chance = demo.takes.values["output"]
    assert demo.takes.choose.isVisibleTo(demo)
    demo.takes.prompts.choose(pairs)
    qtbot.waitUntil(lambda: waits(window, "mask_account"))
    assert (value.text(), demo.takes.choose.isVisibleTo(demo)) == ("…", False)
    found = answer(window, "mask_account")["total"]
    assert value.text() == f"{100 * found['share_of_output']:.1f} %"
    assert chance.text() == f"{100 * found['share_of_output_by_chance']:.1f} %"
    assert "exact" in value.toolTip()
    assert "exact" in demo.takes.note.text()
    demo.takes.button.click()
    answer(window, "mask_control")
    assert chance.text() == ""
    masking = demo._masking
    masking.measurable = lambda: False
    masking.refresh()
    qtbot.waitUntil(lambda: waits(window, "mask_account"))
    other = answer(window, "mask_account")["total"]
    assert chance.text() == f"{100 * other['share_of_output']:.1f} %"


def test_the_demos_prompts_are_not_those_of_other_models(
    window: MainWindow, demo: MaskPlace, qtbot: QtBot
) -> None:
    window.desk.is_demo = True
    window.desk.state_changed.emit()
    qtbot.waitUntil(lambda: demo._masking.calibration == "demo-harmful")
    window.desk.set_project(demo_project())  # opened as any other models are
    qtbot.waitUntil(lambda: demo._masking.calibration == "")
    assert demo.takes.prompts.box.currentText() == "none chosen"
    qtbot.waitUntil(lambda: window.desk.lineup is not None)


def test_models_that_cannot_be_run_have_no_outputs_energy_and_all_else(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    place.choose("random")
    place.builder.button.click()
    for name in ("mask_shares", "mask_account", "mask_overlap"):
        answer(workbench, name)
    place.takes.prompts.choose(pairs)
    qtbot.waitUntil(lambda: waits(workbench, "mask_account"))
    job = pending(workbench, "mask_account")
    workbench.desk.jobs._queue.remove(job)
    error = UserError("cannot_run", "math cannot be run.", "It has no tokenizer.", "Choose one.")
    workbench.desk.jobs.failed.emit(job, error)
    assert "It has no tokenizer." in place.takes.note.text()
    assert place.takes.values["tau"][0].text().endswith("%")
    assert place.kept.state() == "ready"
    assert place._masking.error is None


def test_what_takes_its_time_can_be_stopped_and_is_not_begun_again_by_itself(
    workbench: MainWindow, place: MaskPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "SMALL_TO_RUN", 1000)
    place.choose("random")
    place.builder.button.click()
    assert pending(workbench, "mask_shares").quiet
    answer(workbench, "mask_shares")
    job = pending(workbench, "mask_account")
    assert not job.quiet  # seen in the job bar
    workbench.desk.jobs.cancel(job)
    assert not waits(workbench, "mask_account")
    assert "stopped" in place.takes.note.text()
    place.takes.button.click()
    assert waits(workbench, "mask_account")


# --- Files, names, and what fits. ---


def test_a_mask_file_that_is_gone_is_told_and_counted_again_when_it_is_back(
    workbench: MainWindow, place: MaskPlace
) -> None:
    place.choose("magnitude")
    place.builder.button.click()
    answer(workbench, "mask_build")
    answer(workbench, "mask_shares")
    path = Path(masks(workbench)[0].path)
    away = path.with_suffix(".away")
    path.rename(away)
    workbench.places.go("inspect")
    workbench.places.go("mask")
    job = pending(workbench, "mask_shares")
    with pytest.raises(UserError) as error:
        run_job("mask_shares", dict(job.params), Unattended())
    workbench.desk.jobs._queue.remove(job)
    workbench.desk.jobs.failed.emit(job, error.value)
    assert place.kept.state() == "error"
    assert "take it out of the stack" in place.kept.notice()[0]
    away.rename(path)
    workbench.places.go("inspect")
    workbench.places.go("mask")
    assert place.kept.state() == "ready"  # known from before


def test_masks_are_found_again_by_a_project_that_was_saved(
    workbench: MainWindow, place: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    (tmp_path / "work").mkdir()
    assert workbench.desk.save(tmp_path / "work" / "one.trim")
    place.choose("magnitude")
    place.builder.button.click()
    answer(workbench, "mask_build")
    (entry,) = masks(workbench)
    assert Path(entry.path).parent == tmp_path / "work" / "masks"
    assert workbench.desk.save(tmp_path / "work" / "one.trim")
    (tmp_path / "work").rename(tmp_path / "moved")
    workbench.desk.open_project(tmp_path / "moved" / "one.trim")
    (again,) = masks(workbench)
    assert MaskFile.open(Path(again.path)).about.builder == "magnitude"
    assert again.title == entry.title


def test_controls_do_not_fill_the_cache(
    workbench: MainWindow, place: MaskPlace, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    monkeypatch.setattr(masking, "_CONTROLS", 2)
    place.choose("random")
    for _ in range(3):
        place.builder.button.click()
        for name in ("mask_shares", "mask_account"):
            answer(workbench, name)
        place.takes.button.click()
        answer(workbench, "mask_control")
    qtbot.waitUntil(lambda: len(list((cache_dir() / "controls").iterdir())) == 2)


def test_what_can_be_chosen_is_shown_whole(workbench: MainWindow, place: MaskPlace) -> None:
    workbench.resize(1280, 720)
    workbench.desk.is_demo = True
    for builder in BUILDERS:
        place.choose(builder.id)
        for area in place.findChildren(QScrollArea):
            content = area.widget()
            assert content is None or content.minimumSizeHint().width() <= area.width(), builder.id
        for box in place.findChildren(Choice):
            if not box.isVisibleTo(place):
                continue
            option = QStyleOptionComboBox()
            box.initStyleOption(option)
            field = box.style().subControlRect(
                QStyle.ComplexControl.CC_ComboBox, option,
                QStyle.SubControl.SC_ComboBoxEditField, box,
            )  # fmt: skip
            for row in range(box.count()):
                text = box.itemText(row)
                assert box.fontMetrics().horizontalAdvance(text) <= field.width(), text


def test_a_rule_is_of_layers_modules_and_names(place: MaskPlace) -> None:
    form = place.builder.forms["rule"]
    values = form.values
    last = form.controls["last"]
    assert isinstance(last, QSpinBox)
    assert last.maximum() == 5
    entry = rule_entry({**values, "first": 3, "last": 1, "modules": "q, down", "tensors": "*.x*"})
    assert entry.rule is not None
    assert (entry.title, entry.op) == ("Without q, down, *.x* in layers 1–3", "minus")
    assert (entry.rule.layers, entry.rule.modules) == ((1, 3), ("q", "down"))
    assert entry.rule.tensors == "*.x*"
    everywhere = rule_entry({**values, "layers": "all", "modules": "q", "away": "keep"})
    assert everywhere.rule is not None
    assert (everywhere.title, everywhere.op, everywhere.rule.layers) == ("Only q", "and", None)


def test_every_builder_has_a_card_with_all_that_is_to_be_known(
    workbench: MainWindow, place: MaskPlace
) -> None:
    for builder in BUILDERS:
        place.choose(builder.id)
        facts = dict(place.method.facts)
        assert facts["needs"] == builder.needs
        assert facts["touches"] == builder.touches
        assert facts["repeats"] == builder.repeats
    place.choose("magnitude")
    place.builder.button.click()
    answer(workbench, "mask_build")
    facts = dict(place.method.facts)
    assert "of τ's energy" in facts["takes"]
    assert "by chance" not in facts["takes"]
    assert "chance that takes as many" in facts["control"]


def test_without_an_aligned_model_what_goes_back_to_it_is_not_offered(
    workbench: MainWindow, place: MaskPlace, pairs: Path, qtbot: QtBot
) -> None:
    recipe = workbench.desk.recipe
    workbench.desk.set_project(Project(recipe.model_copy(update={"aligned": None})))
    qtbot.waitUntil(lambda: workbench.desk.lineup is not None)
    for builder, needs in BY_ID.items():
        place.choose(builder)
        if needs.reverts:
            assert "aligned model" in place.builder.note.text()
            assert not place.builder.button.isEnabled()
    place.choose("magnitude")
    assert place.builder.button.isEnabled()
