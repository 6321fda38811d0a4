"""The decision log in the window: choosing it, adding to it, and noticing what was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from evaluations import saved
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.evaluation.decisions import decide, read_decisions
from trimtab.evaluation.thresholds import Thresholds
from trimtab.jobs.tasks import run_job
from trimtab.project import Project
from trimtab_gui.deciding import Deciding
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.evaluate.decisions_sheet import DecisionsSheet

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


@pytest.fixture
def place(workbench: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The Evaluate place of a saved project, before anything is evaluated."""
    assert workbench.desk.save(tmp_path / "work.trim")
    workbench.places.go("evaluate")
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    return workbench


@pytest.fixture
def filled(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The place after a run of three targets."""
    place.actions_.run("evaluate")
    job = place.evaluating._job
    assert job is not None
    path = saved(tmp_path, params=job.params)
    place.desk.jobs._queue.remove(job)
    place.desk.jobs.finished.emit(job, {"path": str(path)}, 12.0)
    qtbot.waitUntil(lambda: place.evaluating.comparison is not None)
    return place


def open_sheet(window: MainWindow, qtbot: QtBot) -> DecisionsSheet:
    sheet = window.evaluate.show_decisions()
    qtbot.waitUntil(lambda: not window.evaluate.deciding.reading)
    return sheet


def choose(window: MainWindow, log: Path, qtbot: QtBot) -> Deciding:
    deciding = window.evaluate.deciding
    deciding.choose(log)
    qtbot.waitUntil(lambda: not deciding.reading)
    return deciding


def work(window: MainWindow, qtbot: QtBot) -> None:
    """Do the decisions that wait, in the worker's place."""
    jobs = window.desk.jobs
    for job in [job for job in jobs.pending if job.name == "decide"]:
        jobs._queue.remove(job)
        try:
            result = run_job("decide", dict(job.params), Unattended())
        except UserError as error:
            jobs.failed.emit(job, error)
        else:
            jobs.finished.emit(job, result, 0.1)
    qtbot.waitUntil(lambda: not window.evaluate.deciding.reading)


def earlier(log: Path, folder: Path, *notes: str) -> None:
    """Write decisions of somebody else's into a log."""
    results = folder / "other.json"
    results.write_text("{}")
    for note in notes:
        decide(log, results, who="Bo", evaluation="x", thresholds=Thresholds(),
               verdicts={"merged": "pass"}, choice="deferred", note=note)  # fmt: skip


def test_a_decision_is_added_and_shown_above_the_earlier_ones(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    log = tmp_path / "log.jsonl"
    earlier(log, tmp_path, "first", "second")
    sheet = open_sheet(filled, qtbot)
    choose(filled, log, qtbot)
    assert sheet.chain.text().startswith("2 decisions; the chain of hashes is whole")
    sheet.who.setText("Ada")
    sheet.choice.setCurrentIndex(sheet.choice.findData("rejected"))
    qtbot.keyClicks(sheet.note, "over-refuses")
    qtbot.mouseClick(sheet.record, Qt.MouseButton.LeftButton)
    work(filled, qtbot)
    found = read_decisions(log)
    assert [d.note for d in found] == ["first", "second", "over-refuses"]
    assert (found[-1].who, found[-1].choice) == ("Ada", "rejected")
    assert found[-1].verdicts == {"aligned": "fail", "math": "fail", "merged": "fail"}
    assert str(found[-1].thresholds.bounds[0]) == "attack_success <= 0.05"
    assert "over-refuses" in sheet.rows[0].accessibleName()
    assert len(sheet.rows) == 3
    assert sheet.note.text() == ""
    sheet.close()


def test_verdicts_stand_by_target_and_bound(filled: MainWindow, qtbot: QtBot) -> None:
    sheet = open_sheet(filled, qtbot)
    table = sheet.verdicts.itemAt(0).widget()
    grid = table.layout()
    row = [grid.itemAtPosition(3, column).widget().text() for column in range(5)]
    assert row == ["merged", "43.3 % ✗", "20.0 % ✗ ?", "80.0 % ✓ ?", "fail"]
    assert sheet.before.text().endswith("before anything was asked.")
    sheet.close()


@pytest.mark.parametrize("how", ["changed", "taken out"])
def test_a_log_that_was_rewritten_is_noticed_and_not_added_to(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot, how: str
) -> None:
    log = tmp_path / "log.jsonl"
    earlier(log, tmp_path, "first", "second", "third")
    lines = log.read_text().splitlines()
    lines = lines[1:] if how == "taken out" else [lines[0].replace("first", "fi"), *lines[1:]]
    log.write_text("\n".join(lines) + "\n")
    sheet = open_sheet(filled, qtbot)
    deciding = choose(filled, log, qtbot)
    number = 1 if how == "taken out" else 2
    assert sheet.chain.text().startswith(f"Line {number} of log.jsonl is not what was written")
    assert sheet.chain.property("tone") == "danger"
    sheet.who.setText("Ada")
    assert not sheet.record.isEnabled()
    assert not deciding.record("accepted", "Ada", "")
    assert sheet.rows == []
    sheet.close()


def test_a_log_that_is_changed_meanwhile_refuses_the_line(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    log = tmp_path / "log.jsonl"
    earlier(log, tmp_path, "first", "second")
    sheet = open_sheet(filled, qtbot)
    choose(filled, log, qtbot)
    sheet.who.setText("Ada")
    log.write_text(log.read_text().replace("first", "fi"))
    sheet.decide()
    work(filled, qtbot)
    assert sheet.says.property("tone") == "danger"
    assert "is not what was written there" in sheet.says.text()
    assert not sheet.record.isEnabled()
    sheet.close()


def test_what_keeps_a_decision_from_being_recorded_is_said(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    sheet = open_sheet(place, qtbot)
    assert sheet.says.text().startswith("Nothing is evaluated yet")
    assert not sheet.record.isEnabled()
    place.actions_.run("evaluate")
    job = place.evaluating._job
    assert job is not None
    path = saved(tmp_path, params=job.params)
    place.desk.jobs.finished.emit(job, {"path": str(path)}, 12.0)
    qtbot.waitUntil(lambda: not place.evaluating.running)
    assert sheet.says.text() == "Choose where the log is kept."
    choose(place, tmp_path / "log.jsonl", qtbot)
    sheet.who.clear()
    assert sheet.says.text() == "Say who decides."
    sheet.who.setText("Ada")
    assert sheet.record.isEnabled()
    sheet.close()


def test_the_log_is_chosen_once_and_comes_back_with_the_project(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "elsewhere" / "decided"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(log), ""))
    sheet = open_sheet(filled, qtbot)
    assert filled.evaluate.deciding.proposed == tmp_path / "work.decisions.jsonl"
    qtbot.mouseClick(sheet.begin_button, Qt.MouseButton.LeftButton)
    chosen = log.with_name("decided.decisions.jsonl")
    assert filled.evaluate.deciding.log == chosen
    sheet.close()
    deciding = filled.evaluate.deciding
    filled.desk.set_project(Project())
    assert deciding.log is None
    filled.desk.open_project(tmp_path / "work.trim")
    assert deciding.log == chosen


def test_a_log_chosen_before_the_project_has_a_name_is_remembered_when_it_has(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    workbench.places.go("evaluate")
    deciding = choose(workbench, tmp_path / "log.jsonl", qtbot)
    assert workbench.desk.save(tmp_path / "later.trim")
    workbench.desk.set_project(Project())
    assert deciding.log is None
    workbench.desk.open_project(tmp_path / "later.trim")
    assert deciding.log == tmp_path / "log.jsonl"
    qtbot.waitUntil(lambda: not workbench.desk.background.busy)


def test_a_log_beside_the_project_is_found_wherever_both_are(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    assert place.evaluate.deciding.log is None
    earlier(tmp_path / "work.decisions.jsonl", tmp_path, "first")
    sheet = open_sheet(place, qtbot)
    assert sheet.file.text().endswith("work.decisions.jsonl")
    assert len(sheet.rows) == 1
    sheet.close()


def test_it_is_told_where_the_results_have_become_others(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    log = tmp_path / "log.jsonl"
    earlier(log, tmp_path, "first")
    deciding = choose(filled, log, qtbot)
    assert [entry.results for entry in deciding.entries] == ["same"]
    (tmp_path / "other.json").write_text("{} ")
    deciding.read()
    qtbot.waitUntil(lambda: not deciding.reading)
    assert [entry.results for entry in deciding.entries] == ["changed"]
    (tmp_path / "other.json").unlink()
    deciding.read()
    qtbot.waitUntil(lambda: not deciding.reading)
    assert [entry.results for entry in deciding.entries] == ["gone"]


def test_who_decided_last_is_proposed_next(
    filled: MainWindow, tmp_path: Path, qtbot: QtBot, make_window: Callable[[], MainWindow]
) -> None:
    deciding = choose(filled, tmp_path / "log.jsonl", qtbot)
    assert deciding.record("noted", " Ada ", "")
    assert deciding.recording
    work(filled, qtbot)
    assert not deciding.recording
    assert deciding.who == "Ada"


@pytest.mark.parametrize("by", ["link", "palette"])
def test_the_log_is_opened_from_the_thresholds_and_the_palette(
    filled: MainWindow, qtbot: QtBot, by: str
) -> None:
    if by == "link":
        qtbot.mouseClick(filled.evaluate.thresholds.log, Qt.MouseButton.LeftButton)
    else:
        filled.places.go("inspect")
        filled.actions_.run("decisions")
    (sheet,) = filled.evaluate.findChildren(DecisionsSheet)
    assert sheet.isVisible()
    nameless = [
        widget for widget in (sheet.who, sheet.note, sheet.choice) if not widget.accessibleName()
    ]
    assert nameless == []
    qtbot.waitUntil(lambda: not filled.evaluate.deciding.reading)
    sheet.close()
