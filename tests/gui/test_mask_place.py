"""The Mask place: painted, built, measured and compared by hand, with its jobs done here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QSpinBox,
    QWidget,
)
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import MaskFile
from trimtab_gui import theme
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.plots.grid import Span
from trimtab_gui.selection import Selection
from trimtab_gui.views.mask.builders import BUILDERS
from trimtab_gui.views.mask.place import MaskPlace

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def place(
    workbench: MainWindow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qtbot: QtBot
) -> MaskPlace:
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    workbench.places.go("mask")
    place = workbench.screens.mask
    answer(workbench, "mask_shares")
    qtbot.waitUntil(lambda: place.kept.view.height() > 200)
    return place


def pending(window: MainWindow, name: str) -> Job:
    return next(job for job in window.desk.jobs.pending if job.name == name)


def answer(window: MainWindow, name: str) -> dict[str, object]:
    """Do a job that waits, in the worker's place."""
    job, jobs = pending(window, name), window.desk.jobs
    jobs._queue.remove(job)
    result = run_job(name, dict(job.params), Unattended())
    jobs.finished.emit(job, result, 0.1)
    return result


def masks(window: MainWindow) -> tuple[MaskEntry, ...]:
    return window.desk.recipe.finetuned[window.desk.active].masks


def centre(place: MaskPlace, row: int, column: int) -> QPoint:
    return place.kept.view.span_rect(Span(row, row, column, column)).center().toPoint()


def stroke(place: MaskPlace, qtbot: QtBot, *cells: tuple[int, int]) -> None:
    viewport = place.kept.view.viewport()
    qtbot.mousePress(viewport, LEFT, pos=centre(place, *cells[0]))
    for cell in cells[1:]:
        qtbot.mouseMove(viewport, centre(place, *cell))
    qtbot.mouseRelease(viewport, LEFT, pos=centre(place, *cells[-1]))


def painted(window: MainWindow, number: int = -1) -> set[tuple[int, str]]:
    rule = masks(window)[number].rule
    assert rule is not None
    assert rule.cells is not None
    return set(rule.cells)


def test_without_masks_everything_is_kept_and_nothing_taken(
    workbench: MainWindow, place: MaskPlace
) -> None:
    values = place.kept.view.values
    assert (values[~np.isnan(values)] == 1).all()
    assert place.stack.isVisibleTo(place)
    assert "No mask yet" in place.stack.note.text()
    assert not place.use.isEnabled()
    said = {key: value.text() for key, (value, _) in place.takes.values.items()}
    assert said == dict.fromkeys(("entries", "tau", "alignment", "output"), "—")
    assert place.takes.choose.isVisibleTo(place)
    assert not place.takes.values["output"][0].isVisibleTo(place)


def test_a_drag_paints_what_it_passes_as_one_step(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    qtbot.mouseClick(place.cards["paint"], LEFT)
    # a fast hand: one event from the second to the fourth layer
    stroke(place, qtbot, (0, 2), (0, 4))
    assert painted(workbench) == {(1, "q"), (2, "q"), (3, "q")}
    assert masks(workbench)[0].op == "minus"
    assert workbench.desk.history.undoText() == "Paint to remove"
    view = place.kept.view
    assert view.values[view.grid.ids[0, 3]] == 0  # seen before anybody counted
    answer(workbench, "mask_shares")
    assert view.values[view.grid.ids[0, 3]] == 0
    assert view.values[view.grid.ids[1, 3]] == 1
    workbench.desk.history.undo()
    assert not masks(workbench)
    assert view.values[view.grid.ids[0, 3]] == 1  # known already


def test_a_cell_is_as_it_was_painted_last(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("paint")
    stroke(place, qtbot, (0, 2), (0, 3))
    answer(workbench, "mask_shares")
    place.builder.brush.switch.buttons["keep"].click()
    stroke(place, qtbot, (0, 3))
    assert [entry.op for entry in masks(workbench)] == ["or", "minus"]
    assert painted(workbench, 0) == {(2, "q")}
    assert painted(workbench, 1) == {(1, "q")}
    stroke(place, qtbot, (0, 2))
    assert [entry.op for entry in masks(workbench)] == ["or"]


def test_a_region_that_is_selected_is_painted_by_a_button(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("paint")
    place.builder.brush.switch.buttons[""].click()
    assert not place.builder.brush.remove.isEnabled()
    stroke(place, qtbot, (1, 1), (2, 2))
    assert not masks(workbench)
    qtbot.mouseClick(place.builder.brush.remove, LEFT)
    assert painted(workbench) == {(0, "k"), (1, "k"), (0, "v"), (1, "v")}


def test_the_keyboard_paints_the_cell_under_the_cursor(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("paint")
    view = place.kept.view
    view.set_cursor(int(view.grid.ids[2, 1]))
    qtbot.keyClick(view, Qt.Key.Key_Down)
    qtbot.keyClick(view, Qt.Key.Key_Space)
    assert painted(workbench) == {(0, "o")}


def test_a_selection_made_elsewhere_is_seen_here(workbench: MainWindow, place: MaskPlace) -> None:
    ids = place.kept.view.grid.ids
    workbench.desk.selection.select(Selection((int(ids[0, 2]),), (0, 0), (2, 2)))
    assert place.kept.view.selection == Span(0, 0, 2, 2)


def test_a_rule_removes_whole_layers_and_is_accounted_for(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("rule")
    first, last = (place.builder.form.controls[key] for key in ("first", "last"))
    assert isinstance(first, QSpinBox)
    assert isinstance(last, QSpinBox)
    first.setValue(2)
    last.setValue(1)
    qtbot.mouseClick(place.builder.button, LEFT)
    (entry,) = masks(workbench)
    assert (entry.title, entry.op) == ("Without layers 1–2", "minus")
    answer(workbench, "mask_shares")
    total = answer(workbench, "mask_account")["total"]
    assert isinstance(total, dict)
    values = place.takes.values
    assert values["tau"][0].text() == f"{100 * total['share_of_tau']:.1f} %"
    # chance that chooses over the model takes as much of everything
    assert values["tau"][1].text() == values["entries"][0].text()
    assert place.takes.choose.isVisibleTo(place)


def test_the_random_control_is_one_click_and_takes_the_same_energy(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("magnitude")
    qtbot.mouseClick(place.builder.button, LEFT)
    answer(workbench, "mask_build")
    (entry,) = masks(workbench)
    assert entry.title == "Largest 20 % of |τ|"
    assert MaskFile.open(Path(entry.path)).about.builder == "magnitude"
    answer(workbench, "mask_shares")
    answer(workbench, "mask_account")
    assert place.takes._aside.text() == "vs chance"
    place._masking.measurable = lambda: True  # these models have no tokenizer
    qtbot.mouseClick(place.takes.button, LEFT)
    assert not place.takes.button.isEnabled()
    result = answer(workbench, "mask_control")
    assert place.takes._aside.text() == "vs random control"
    tau, control = place.takes.values["tau"]
    assert abs(float(tau.text()[:-2]) - float(control.text()[:-2])) < 2
    # the control is measured as the stack is, in its place
    job = next(j for j in workbench.desk.jobs.pending if j.title.startswith("Measuring"))
    masked = job.params["recipe"]["finetuned"][0]["masks"]
    assert [m["path"] for m in masked] == [result["path"]]
    workbench.desk.jobs._queue.remove(job)
    measured = {key: {"value": 0.25, "n": 64, "hits": 16} for key in
                ("refusal_share", "task_accuracy")}  # fmt: skip
    workbench.desk.jobs.finished.emit(job, {"merged": measured}, 0.1)
    assert place.answers.control.text() == "25.0 %"


def test_another_stack_has_no_control_yet_and_the_first_ones_comes_back(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("random")
    place.builder.button.click()
    answer(workbench, "mask_shares")
    answer(workbench, "mask_account")
    place.takes.button.click()
    answer(workbench, "mask_control")
    place.builder.button.click()
    assert place._masking.control is None
    assert place.takes._aside.text() == ""
    workbench.desk.history.undo()
    assert place.takes._aside.text() == "vs random control"


def test_what_is_no_longer_wanted_is_given_up(workbench: MainWindow, place: MaskPlace) -> None:
    place.choose("random")
    place.builder.button.click()
    first = pending(workbench, "mask_shares")
    workbench.desk.history.undo()
    assert first not in workbench.desk.jobs.pending
    assert place._masking.shares is not None


def test_a_threshold_that_is_let_go_builds_a_mask_and_moved_again_changes_it(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("magnitude")
    answer(workbench, "mask_scores")
    plot = place.scores.view
    y, start = plot.height() // 2, round(plot.x_px(float(plot.edges[10])))
    qtbot.mousePress(plot, LEFT, pos=QPoint(start, y))
    there = round(plot.x_px(float(plot.edges[-8])))
    qtbot.mouseMove(plot, QPoint(there, y))
    assert plot.threshold is not None
    promised = plot.kept(plot.threshold)
    assert not place._building.running  # the hand has not let go
    qtbot.mouseRelease(plot, LEFT, pos=QPoint(there, y))
    answer(workbench, "mask_build")
    answer(workbench, "mask_shares")
    shares = place._masking.shares
    assert shares is not None
    assert shares.kept == pytest.approx(promised, abs=0.02)
    first = masks(workbench)
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    qtbot.keyClick(plot, Qt.Key.Key_Return)
    answer(workbench, "mask_build")
    assert len(masks(workbench)) == 1
    assert masks(workbench) != first
    assert workbench.desk.history.undoText() == f"Change {first[0].title}"


def test_data_that_a_builder_needs_is_told_before_it_can_begin(
    workbench: MainWindow, place: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    place.choose("antidote")
    assert not place.builder.button.isEnabled()
    assert "harmful prompts with harmful answers" in place.builder.note.text()
    prompts = place.builder.form.prompts("calibration")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    prompts.choose(bad)
    qtbot.waitUntil(lambda: prompts.error is not None)
    good = tmp_path / "pairs.jsonl"
    good.write_text('{"prompt": "a", "chosen": "no", "rejected": "yes"}\n' * 3)
    prompts.choose(good)
    qtbot.waitUntil(place.builder.button.isEnabled)
    assert "3 pairs" in prompts.says.text()
    qtbot.mouseClick(place.builder.button, LEFT)
    job = pending(workbench, "antidote")
    assert (job.params["alpha"], job.params["calibration"]) == (0.1, str(good))
    assert job.params["output"].endswith("math-antidote-1.mask.safetensors")
    assert not place.builder.form.isEnabled()


def test_a_builder_that_failed_says_why_and_can_begin_again(
    workbench: MainWindow, place: MaskPlace
) -> None:
    place.choose("magnitude")
    place.builder.button.click()
    job = pending(workbench, "mask_build")
    workbench.desk.jobs._queue.remove(job)
    error = UserError("cannot_write", "It could not be written.", "The disk is full.", "Make room.")
    workbench.desk.jobs.failed.emit(job, error)
    assert place.builder.note.text() == "It could not be written. The disk is full. Make room."
    assert place.builder.button.isEnabled()
    assert not masks(workbench)


def test_a_mask_for_other_models_is_not_added(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("magnitude")
    place.builder.button.click()
    job = pending(workbench, "mask_build")
    workbench.desk._on_lineup()
    assert job not in workbench.desk.jobs.pending
    assert not place._building.running


def test_the_primary_button_goes_on_to_merge(
    workbench: MainWindow, place: MaskPlace, qtbot: QtBot
) -> None:
    place.choose("random")
    place.builder.button.click()
    assert place.says.text() == "1 mask on math"
    qtbot.mouseClick(place.use, LEFT)
    assert workbench.places.current == "merge"
    assert workbench.workbench.masks.isVisibleTo(workbench.workbench)


def test_every_control_has_a_name_and_plots_are_told_in_words(
    workbench: MainWindow, place: MaskPlace
) -> None:
    for builder in BUILDERS:
        place.choose(builder.id)
        for widget in place.findChildren(QWidget):
            named = QAbstractButton | QComboBox | QSpinBox | QLineEdit
            inner = isinstance(widget.parentWidget(), QAbstractSpinBox | QComboBox)
            if isinstance(widget, named) and widget.isVisibleTo(place) and not inner:
                text = widget.text() if isinstance(widget, QAbstractButton) else ""
                assert widget.accessibleName() or text or widget.toolTip(), widget
        popup = place.builder.show_formula()
        said = " ".join(part.text() for part in popup.findChildren(QLabel))
        assert builder.needs in said
        popup.close()
    assert "cells are kept whole" in place.kept.view.accessibleDescription()


def test_colours_follow_the_theme(workbench: MainWindow, place: MaskPlace) -> None:
    dark = place.kept.view.pixels()[0, 1].tolist()
    workbench.set_theme("light")
    light = place.kept.view.pixels()[0, 1].tolist()
    kept = theme.current().finetuned
    assert light[:3] == [int(kept[k : k + 2], 16) for k in (1, 3, 5)]
    assert dark != light


def test_plots_give_their_numbers(workbench: MainWindow, place: MaskPlace, tmp_path: Path) -> None:
    place.choose("magnitude")
    answer(workbench, "mask_scores")
    place.scores.save(tmp_path / "scores.csv")
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert rows[0] == "low,high,entries"
    assert sum(float(row.split(",")[2]) for row in rows[1:]) == place.scores.view.counts.sum()


def test_the_directions_of_alignment_are_shown_before_and_after_the_masks(
    workbench: MainWindow, place: MaskPlace
) -> None:
    answer(workbench, "mask_overlap")
    assert [curve.key for curve in place.inside.view.curves] == ["chance", "tau"]
    chance, tau = place.inside.view.curves
    assert chance.low is not None
    assert chance.high is not None
    known = ~np.isnan(chance.low)
    assert (chance.low[known] <= chance.values[known]).all()
    place.choose("rule")
    place.builder.button.click()  # the first layer goes
    for name in ("mask_shares", "mask_account", "mask_overlap"):
        answer(workbench, name)
    kept = place.inside.view.curves[2]
    column = place.inside.view.columns.index("0")
    assert np.isnan(kept.values[column])  # of nothing there is no share
    np.testing.assert_allclose(kept.values[column + 1 :], tau.values[column + 1 :])


def start_learning(place: MaskPlace, tmp_path: Path, qtbot: QtBot) -> Job:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "no", "rejected": "yes"}\n' * 3)
    place.builder.form.prompts("pairs").choose(pairs)
    qtbot.waitUntil(place.builder.button.isEnabled)
    qtbot.mouseClick(place.builder.button, LEFT)
    return place._building._job  # type: ignore[return-value]


def write_log(place: MaskPlace, steps: int) -> Path:
    folder = place._building.learning._folder
    folder.mkdir(parents=True, exist_ok=True)
    histogram = [0.0] * 19 + [1.0]
    log = [
        {"step": k + 1, "loss": 1.0 - k / 10, "margin": k / 10, "preferred": 0.75,
         "histogram": histogram} for k in range(steps)
    ]  # fmt: skip
    (folder / "log.json").write_text(json.dumps({"steps": 150, "log": log}))
    return folder


def test_a_learning_is_watched_paused_and_gone_on_with(
    workbench: MainWindow, place: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    jobs, view = workbench.desk.jobs, place.builder.learning
    job = start_learning(place, tmp_path, qtbot)
    assert job.params["recipe"]["finetuned"][1]["ratio"] == 0  # the others take no part
    assert not view.enough.isEnabled()
    assert place.window().focusWidget() is view.pause  # the button that was pressed is gone
    write_log(place, 3)
    qtbot.waitUntil(lambda: view.steps.text() == "3 of 150 steps")
    assert view.loss.values == (1.0, 0.9, 0.8)
    assert view.now.text() == "75 % preferred"
    assert place.scores.state() == "ready"
    assert not place.scores.view.draggable  # a threshold of what still moves would be another's
    qtbot.mouseClick(view.pause, LEFT)
    assert job not in jobs.pending
    assert (view.pause.text(), view.now.text()) == ("Resume", "paused")
    qtbot.mouseClick(view.pause, LEFT)
    again = place._building._job
    assert again is not None
    assert again.params == {**job.params, "resume": True, "overwrite": True}
    assert view.pause.text() == "Pause"


def test_what_is_learned_so_far_is_taken_when_that_will_do(
    workbench: MainWindow, place: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    start_learning(place, tmp_path, qtbot)
    folder = write_log(place, 2)
    view = place.builder.learning
    qtbot.waitUntil(view.enough.isEnabled)
    qtbot.mouseClick(view.pause, LEFT)
    qtbot.mouseClick(view.enough, LEFT)
    assert (folder / "enough").exists()
    job = place._building._job
    assert job is not None
    assert job.params["resume"]


def test_a_mask_that_has_learned_nothing_is_told_and_one_that_has_is_rescaled(
    workbench: MainWindow, place: MaskPlace, tmp_path: Path, qtbot: QtBot
) -> None:
    job = start_learning(place, tmp_path, qtbot)
    write_log(place, 2)
    mask = tmp_path / "some.mask.safetensors"
    report = {
        "files": {"mask": str(mask), "logits": str(tmp_path / "some.logits.safetensors")},
        "undecided": 0.97, "informative": False, "settings": {"steps": 150}, "log": [],
        "energy": {"math": {"removed": 0.25, "control_removed": 0.3}},
        "preference": {key: {"share": 0.5} for key in ("no mask", "masked", "random control")},
    }  # fmt: skip
    workbench.desk.jobs._queue.remove(job)
    workbench.desk.jobs.finished.emit(job, report, 1.0)
    assert "learned nothing" in place.builder.note.text()
    assert "97.0 %" in place.builder.note.text()
    model = workbench.desk.recipe.finetuned[0]
    assert (model.masks[0].path, model.rescale) == (str(mask), True)
    workbench.desk.history.undo()
    assert not workbench.desk.recipe.finetuned[0].rescale


def test_models_that_cannot_answer_are_not_asked(workbench: MainWindow, place: MaskPlace) -> None:
    place.choose("random")
    place.builder.button.click()
    answer(workbench, "mask_shares")
    answer(workbench, "mask_account")
    place.takes.button.click()
    answer(workbench, "mask_control")
    assert not any(job.name == "preview" for job in workbench.desk.jobs.pending)
    assert place._masking.error is None
