"""Safe and useful activations in the overlap view: asked for, drawn beside chance, kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from inspect_data import activations_result
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab_gui import activations_found
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.inspect.activation_curves import ACTIVATIONS, LENGTH, TURN
from trimtab_gui.views.inspect.overlap import OverlapCard

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def card(workbench: MainWindow, monkeypatch: pytest.MonkeyPatch) -> OverlapCard:
    """The card over models that are too large to be measured without a question."""
    monkeypatch.setattr(activations_found, "LIGHT", 0)
    cards = workbench.workbench.over_layers
    cards.tabs["profile"].buttons["overlap"].click()
    return cards.overlap


def choose(card: OverlapCard, kind: str) -> None:
    card.measure.setCurrentIndex(card.measure.findData(kind))


def choose_prompts(card: OverlapCard, folder: Path, qtbot: QtBot, count: int = 40) -> None:
    for prompts, name in ((card.strip.safe, "refusals"), (card.strip.useful, "benign")):
        path = folder / f"{name}.jsonl"
        lines = [json.dumps({"prompt": f"ask {k}", "answer": name}) for k in range(count)]
        path.write_text("\n".join(lines))
        prompts.choose(path)
        qtbot.waitUntil(lambda prompts=prompts, path=path: prompts.path == str(path))


def pending(window: MainWindow) -> Job:
    jobs = window.desk.jobs.pending
    return next(job for job in reversed(jobs) if job.name == "activation_subspaces")


def finish(window: MainWindow, path: Path) -> None:
    job = pending(window)
    window.desk.jobs._queue.remove(job)
    window.desk.jobs.finished.emit(job, {"path": str(path), "cached": False}, 1.0)


@pytest.fixture
def measured(workbench: MainWindow, card: OverlapCard, tmp_path: Path, qtbot: QtBot) -> OverlapCard:
    choose(card, ACTIVATIONS)
    choose_prompts(card, tmp_path, qtbot)
    qtbot.mouseClick(card.notice()[1], Qt.MouseButton.LeftButton)
    assert workbench.desk.lineup is not None
    finish(workbench, activations_result(tmp_path / "found.json", workbench.desk.lineup))
    qtbot.waitUntil(lambda: card.state() == "ready")
    return card


def test_what_is_needed_is_said_before_and_what_it_costs(
    workbench: MainWindow, card: OverlapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    assert card.strip.isHidden()
    choose(card, ACTIVATIONS)
    assert not card.strip.isHidden()
    assert "harmful prompts with refusals" in card.notice()[0]
    assert not card.strip.start_button.isEnabled()
    choose_prompts(card, tmp_path, qtbot)
    assert "of weights" in card.notice()[0]
    assert card.strip.said.text().startswith("40 examples of each · ")
    qtbot.mouseClick(card.strip.start_button, Qt.MouseButton.LeftButton)
    job = pending(workbench)
    assert job.params["safe"] == str(tmp_path / "refusals.jsonl")
    assert job.params["useful"] == str(tmp_path / "benign.jsonl")
    assert job.params["limit"] == 128
    assert card.state() == "loading"
    qtbot.mouseClick(card.strip.stop_button, Qt.MouseButton.LeftButton)
    assert card.state() == "empty"
    choose(card, "overlap")
    assert card.strip.isHidden()
    assert card.notice()[1].text() == "Compute the spectra"


def test_light_models_are_measured_once_and_without_a_question(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    card = workbench.workbench.over_layers.overlap
    choose_prompts(card, tmp_path, qtbot)
    assert not [j for j in workbench.desk.jobs.pending if j.name == "activation_subspaces"]
    choose(card, TURN)
    assert workbench.desk.lineup is not None
    finish(workbench, activations_result(tmp_path / "found.json", workbench.desk.lineup))
    qtbot.waitUntil(lambda: card.state() == "ready")
    choose(card, LENGTH)
    assert not [j for j in workbench.desk.jobs.pending if j.name == "activation_subspaces"]


def test_the_overlap_stands_between_its_floor_and_its_ceiling(measured: OverlapCard) -> None:
    view = measured.view
    chance, relabelled, mso = view.curves
    column = view.columns.index("2")
    assert mso.label == "aligned"
    assert mso.color_role == "aligned"
    assert mso.values[column] == pytest.approx(0.4)
    assert chance.values[column] == pytest.approx(0.1)
    assert chance.low is not None
    assert chance.high is not None
    assert (chance.low[column], chance.high[column]) == pytest.approx((0.075, 0.1225))
    assert relabelled.low is not None
    assert relabelled.low[column] == pytest.approx(0.85)
    assert np.isnan(mso.values[view.columns.index("in")])
    assert "in 6 of 6 layers below" in view.accessibleDescription()
    assert "ours" in measured._formula[4]
    assert measured.strip.said.text() == "40 examples of each · 800 tokens of answers · fedcba98"
    headers, rows = view.csv_table()
    assert "relabelled low" in headers
    assert len(rows) == len(view.columns)


def test_lengths_stand_beside_chance_and_turns_beside_random_directions(
    measured: OverlapCard,
) -> None:
    choose(measured, LENGTH)
    view = measured.view
    column = view.columns.index("1")
    by = {curve.key: curve for curve in view.curves}
    assert by["math"].values[column] == pytest.approx(0.6)
    assert by["chance math"].values[column] == pytest.approx(0.05)
    assert by["chance math"].dashed
    assert "within chance everywhere: base" in view.accessibleDescription()
    assert "never written" in measured._formula[1]
    choose(measured, TURN)
    by = {curve.key: curve for curve in view.curves}
    assert set(by) == {"chance", "base", "math", "code"}
    assert by["code"].index == 1
    assert by["math"].values[column] == pytest.approx(0.69)
    assert by["chance"].high is not None
    assert by["chance"].high[column] == pytest.approx(0.2)
    assert not view.from_zero
    assert "turned most in base" in view.accessibleDescription()
    choose(measured, ACTIVATIONS)
    assert view.from_zero


def test_other_prompts_are_another_measurement(
    workbench: MainWindow, measured: OverlapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    (tmp_path / "other").mkdir()
    choose_prompts(measured, tmp_path / "other", qtbot)
    assert measured.state() == "empty"
    choose_prompts(measured, tmp_path, qtbot)
    assert measured.state() == "ready"
    workbench.desk.lineup_changed.emit()
    assert workbench.workbench.looking.activations.known is None


def test_what_fails_is_said_with_what_helps(
    workbench: MainWindow, card: OverlapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    choose(card, ACTIVATIONS)
    choose_prompts(card, tmp_path, qtbot)
    qtbot.mouseClick(card.strip.start_button, Qt.MouseButton.LeftButton)
    job = pending(workbench)
    workbench.desk.jobs._queue.remove(job)
    error = UserError("no_chat_template", "The model has no chat template.", "Why.", "Do.")
    workbench.desk.jobs.failed.emit(job, error)
    assert card.state() == "error"
    assert "no chat template" in card.notice()[0]
    qtbot.mouseClick(card.notice()[1], Qt.MouseButton.LeftButton)
    (tmp_path / "bad.json").write_text('{"about": 3}')
    finish(workbench, tmp_path / "bad.json")
    qtbot.waitUntil(lambda: card.state() == "error" and "cannot be read" in card.notice()[0])
