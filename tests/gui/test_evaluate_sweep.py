from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from sweeps import point, sweep, text_of, write
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.merging.recipe import FineTuned
from trimtab.project.edits import set_ratio
from trimtab_gui.main_window import MainWindow
from trimtab_gui.sweeping import read_sweep

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


@pytest.fixture
def place(workbench: MainWindow, qtbot: QtBot) -> MainWindow:
    workbench.places.go("evaluate")
    workbench.evaluate.trade_offs.setCurrentWidget(workbench.evaluate.sweep)
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    return workbench


@pytest.fixture
def watched(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """A sweep of two trials that has ended; the first is on the front."""
    found = set_ratio(place.desk.recipe, 0, 0.25).after
    trials = [point(0, 0.8, 0.7, recipe=text_of(found), file="front-001.trim"), point(1, 0.5, 0.4)]
    write(tmp_path / "sweep", sweep(trials, front=[0], status="done"))
    place.screens.sweeping.watch(tmp_path / "sweep")
    qtbot.waitUntil(lambda: place.screens.sweeping.sweep is not None)
    return place


def test_a_sweep_starts_around_the_open_recipe_and_is_watched(
    place: MainWindow, qtbot: QtBot
) -> None:
    from trimtab.jobs.params import SweepParams

    card, sweeping = place.evaluate.sweep, place.screens.sweeping
    card.sampler.setCurrentIndex(card.sampler.findData("tpe"))
    assert card.state() == "empty"
    card.notice()[1].click()
    job = sweeping._job
    assert job is not None
    asked = SweepParams.model_validate(job.params)
    assert (asked.sampler, asked.trials, asked.suite, asked.judge) == ("tpe", 60, "core", "phrases")
    assert asked.recipe == place.desk.recipe
    assert card.state() == "loading"
    write(Path(asked.output), sweep([point(0, 0.8, 0.7)], front=[0]))
    qtbot.waitUntil(lambda: card.state() == "ready")
    place.desk.jobs.finished.emit(job, {}, 1.0)
    assert not sweeping.running


def test_a_sweep_can_be_ended(place: MainWindow, qtbot: QtBot) -> None:
    place.evaluate.sweep.start()
    assert place.screens.sweeping.obstacle() == "A sweep is under way."
    qtbot.mouseClick(place.evaluate.sweep.end, Qt.MouseButton.LeftButton)
    assert not place.screens.sweeping.running
    assert place.desk.jobs.pending == ()


def test_a_sweep_that_cannot_begin_says_why(place: MainWindow) -> None:
    place.evaluate.sweep.start()
    job = place.screens.sweeping._job
    place.desk.jobs.failed.emit(job, UserError("no_luck", "It failed.", "Because.", "Again."))
    assert place.evaluate.sweep.state() == "error"
    assert place.evaluate.sweep.notice()[0].startswith("It failed. Because.")


def test_the_two_cards_change_places(place: MainWindow) -> None:
    pages = place.evaluate.trade_offs
    place.evaluate.sweep.switched.emit()
    assert pages.currentWidget() is place.evaluate.trade
    place.evaluate.trade.switched.emit()
    assert pages.currentWidget() is place.evaluate.sweep


def test_a_sweep_is_drawn_as_it_grows_until_it_ends(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    folder, sweeping, card = tmp_path / "sweep", place.screens.sweeping, place.evaluate.sweep
    write(folder, sweep([], baselines=[], status="baselines"))
    sweeping.watch(folder)
    qtbot.waitUntil(lambda: sweeping.sweep is not None)
    assert card.state() == "loading"
    write(folder, sweep([point(0, 0.8, 0.7), point(1, 0.5, 0.4)], front=[0]))
    qtbot.waitUntil(lambda: card.state() == "ready")
    assert [(s.kind, s.x, s.y) for s in card.plot.spots] == [
        ("front", 80.0, 70.0), ("trial", 50.0, 40.0), ("baseline", 95.0, 10.0),
    ]  # fmt: skip
    assert sweeping._clock.isActive()
    write(folder, sweep([point(0, 0.8, 0.7)], front=[0], status="done"))
    qtbot.waitUntil(lambda: not sweeping._clock.isActive())
    assert len(card.plot.spots) == 2


def test_a_click_on_the_front_loads_its_recipe_as_a_step(watched: MainWindow, qtbot: QtBot) -> None:
    before = watched.desk.recipe
    plot = watched.evaluate.sweep.plot
    at = plot.place(80.0, 70.0).toPoint()
    qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=at)
    assert watched.desk.recipe.finetuned[0].ratio == 0.25
    assert watched.actions_["undo"].text == "Undo Load trial 0"
    watched.actions_.run("undo")
    assert watched.desk.recipe == before


def test_the_keys_load_a_recipe_too(watched: MainWindow, qtbot: QtBot) -> None:
    plot = watched.evaluate.sweep.plot
    qtbot.keyClick(plot, Qt.Key.Key_Right)
    qtbot.keyClick(plot, Qt.Key.Key_Return)
    assert watched.desk.recipe.finetuned[0].ratio == 0.25


def test_a_trial_without_a_recipe_is_only_looked_at(watched: MainWindow, qtbot: QtBot) -> None:
    before, plot = watched.desk.recipe, watched.evaluate.sweep.plot
    qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=plot.place(50.0, 40.0).toPoint())
    assert watched.desk.recipe is before


def test_a_sweep_of_other_models_is_not_loaded(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    other = place.desk.recipe.model_copy(update={"finetuned": (FineTuned(path="/elsewhere"),)})
    trials = [point(0, 0.8, 0.7, recipe=text_of(other))]
    write(tmp_path / "sweep", sweep(trials, front=[0], status="done"))
    sweeping = place.screens.sweeping
    sweeping.watch(tmp_path / "sweep")
    qtbot.waitUntil(lambda: sweeping.sweep is not None)
    before = place.desk.recipe
    assert sweeping.sweep is not None
    sweeping.load(sweeping.sweep.points[0])
    assert place.desk.recipe is before
    assert place.banners.banner("sweep") is not None


def test_the_trials_can_be_saved(watched: MainWindow, tmp_path: Path) -> None:
    for suffix in ("png", "svg", "csv"):
        watched.evaluate.sweep.save(tmp_path / f"sweep.{suffix}")
    assert "trial 0,front,80.0,70.0,1.0" in (tmp_path / "sweep.csv").read_text()
    assert "2 of 60 trials · done" in (tmp_path / "sweep.svg").read_text()


def test_the_second_objective_can_be_chosen(watched: MainWindow) -> None:
    card = watched.evaluate.sweep
    assert card.against.currentData() == "task"
    card.against.setCurrentIndex(card.against.findData("over_refusal"))
    card.against.activated.emit(card.against.currentIndex())
    assert [s.y for s in card.plot.spots] == [10.0, 10.0, 10.0]
    assert card.plot.y_label == "↓ over-refusal, percent"


def test_what_the_held_out_prompts_have_shown_is_said(tmp_path: Path) -> None:
    told = {"points": [{"trial": 0, "sentence": "Dominates linear 0.6."}]}
    write(tmp_path, sweep([point(0, 0.8, 0.7)], front=[0], status="done", held_out=told))
    assert read_sweep(tmp_path).points[0].held_out == "Dominates linear 0.6."


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"trimtab_sweep": 2}', '{"trimtab_sweep": 1}']
)
def test_a_folder_without_a_sweep_is_refused(
    place: MainWindow, tmp_path: Path, content: str | None, qtbot: QtBot
) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError):
        read_sweep(tmp_path)
    place.screens.sweeping.watch(tmp_path)
    qtbot.waitUntil(lambda: place.evaluate.sweep.state() == "error")
    assert not place.screens.sweeping._clock.isActive()


def test_a_sweep_that_failed_says_why(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> None:
    error = {"code": "x", "what": "It broke.", "why": "No memory.", "fix": "", "details": ""}
    write(tmp_path / "s", sweep([], baselines=[], status="failed", error=error))
    place.screens.sweeping.watch(tmp_path / "s")
    qtbot.waitUntil(lambda: place.evaluate.sweep.state() == "error")
    assert place.evaluate.sweep.notice()[0] == "It broke. No memory."
