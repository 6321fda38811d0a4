"""Several suites at once: choosing them, asking one after another, results kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import N, saved
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.main_window import MainWindow
from trimtab_gui.plots.coverage import CoverageMatrix

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


@pytest.fixture
def place(workbench: MainWindow, qtbot: QtBot) -> MainWindow:
    """A window in the Evaluate place, before anything is evaluated."""
    workbench.places.go("evaluate")
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    return workbench


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A suite of two prompts."""
    path = tmp_path / "own.jsonl"
    row = {"id": "a", "kind": "harmful", "text": "Do it.", "category": "Fraud", "language": "de"}
    rows = [{"name": "own", "version": "1"}, row, {**row, "id": "b", "text": "Do that."}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def drop(target: QWidget, *paths: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    target.dropEvent(
        QDropEvent(QPointF(20, 20), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
                   Qt.KeyboardModifier.NoModifier)
    )  # fmt: skip


def add(window: MainWindow, path: Path, qtbot: QtBot) -> None:
    drop(window.evaluate.suites, path)
    qtbot.waitUntil(lambda: not window.evaluating.suites.loading)


def finish_one(window: MainWindow, folder: Path, qtbot: QtBot) -> None:
    """Let the suite that is asked come to its end."""
    evaluating = window.evaluating
    job, suite = evaluating._job, evaluating.asking
    assert job is not None
    path = saved(folder, params=job.params)
    window.desk.jobs._queue.remove(job)
    window.desk.jobs.finished.emit(job, {"path": str(path)}, 1.0)
    qtbot.waitUntil(lambda: evaluating.asking != suite)
    qtbot.waitUntil(lambda: evaluating.comparison is not None)


# Choosing.


def test_a_file_that_is_dropped_is_asked_beside_the_others(
    place: MainWindow, own: Path, qtbot: QtBot
) -> None:
    before = sum(place.evaluating.counts.values())
    add(place, own, qtbot)
    rows = place.evaluate.suites.rows
    assert [(r.box.text(), r.box.isChecked(), r.number.text()) for r in rows.values()] == [
        ("Trimtab core", True, str(before)), ("Demo language", False, ""),
        ("own.jsonl", True, "2"),
    ]  # fmt: skip
    assert sum(place.evaluating.counts.values()) == before + 2
    assert place.evaluate.run.says.text() == f"{before + 2} prompts each, on cpu"


def test_a_suite_is_switched_off_and_taken_off_the_list(
    place: MainWindow, own: Path, qtbot: QtBot
) -> None:
    add(place, own, qtbot)
    rows = place.evaluate.suites.rows
    assert not rows["core"].drop.isVisible()
    qtbot.mouseClick(
        rows["core"].box, Qt.MouseButton.LeftButton, pos=rows["core"].box.rect().center() / 10
    )
    assert place.evaluating.suites.chosen == [str(own)]
    assert place.evaluating.suite_name == str(own)
    assert place.evaluate.run.says.text().startswith("2 prompts each")
    qtbot.mouseClick(rows[str(own)].drop, Qt.MouseButton.LeftButton)
    assert list(rows) == ["core", "demo"]
    assert place.evaluate.run.says.text() == "Choose a suite of prompts."
    assert place.evaluate.coverage.state() == "empty"


def test_the_limit_is_one_of_each_suite(place: MainWindow, own: Path, qtbot: QtBot) -> None:
    add(place, own, qtbot)
    place.evaluating.suites.set_limit(1)
    assert place.evaluating.suites.counts_of(str(own)) == {"harmful": 1}
    assert place.evaluating.counts == {"harmful": 2, "lookalike": 1, "utility": 1, "text": 1}
    says = place.evaluate.suites.says.text().replace("\N{NO-BREAK SPACE}", " ")
    assert says == "2 harmful · 1 lookalikes · 1 questions · 1 texts"
    touched = [row for row in place.evaluating.coverage.counts if any(n for n in row)]
    assert sum(row[0] or 0 for row in touched) == 2


def test_a_file_that_holds_no_prompts_is_refused_in_place(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("no json\n")
    add(place, path, qtbot)
    suites, topic = place.evaluating.suites, f"suite {path}"
    assert suites.error is not None
    assert place.banners.banner(topic) is not None
    assert suites.error.what in place.evaluate.suites.says.text()
    assert not place.evaluate.run.button.isEnabled()
    suites.switch(str(path), False)
    assert place.banners.banner(topic) is None
    assert place.evaluate.run.button.isEnabled()


def test_a_file_that_was_mended_is_read_when_it_is_ticked_again(
    place: MainWindow, own: Path, qtbot: QtBot
) -> None:
    text = own.read_text()
    own.write_text("no json\n")
    add(place, own, qtbot)
    assert place.evaluating.suites.error is not None
    own.write_text(text)
    place.evaluating.suites.switch(str(own), False)
    place.evaluating.suites.switch(str(own), True)
    qtbot.waitUntil(lambda: str(own) in place.evaluating.suites.read)
    assert place.evaluating.suites.error is None


# Asking.


def test_each_suite_is_a_job_and_what_is_asked_is_fixed_at_the_start(
    place: MainWindow, own: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    add(place, own, qtbot)
    evaluating = place.evaluating
    place.actions_.run("evaluate")
    first = evaluating._job
    assert first is not None
    assert (first.params["suite"], first.title) == ("core", "Evaluating on Trimtab core")
    assert not any(row.box.isEnabled() for row in place.evaluate.suites.rows.values())
    evaluating.choose_judge("keywords-29")
    finish_one(place, tmp_path, qtbot)
    second = evaluating._job
    assert second is not None
    assert second.params == {**first.params, "suite": str(own)}
    assert second.title == "Evaluating on own.jsonl"
    finish_one(place, tmp_path, qtbot)
    assert not evaluating.running
    assert list(evaluating.found) == ["core", str(own)]


@pytest.fixture
def two(place: MainWindow, own: Path, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The place after two suites were asked."""
    add(place, own, qtbot)
    place.actions_.run("evaluate")
    finish_one(place, tmp_path, qtbot)
    finish_one(place, tmp_path, qtbot)
    return place


def test_results_of_each_suite_are_kept_apart(two: MainWindow, qtbot: QtBot) -> None:
    evaluating, panel = two.evaluating, two.evaluate.suites
    names = [panel.shown.itemText(i) for i in range(panel.shown.count())]
    assert names == ["Trimtab core", "own.jsonl"]
    assert evaluating.shown == "core"
    assert two.evaluate.dots._subtitle.text() == "Trimtab core"
    first = evaluating.facts
    panel.shown.setCurrentIndex(1)
    panel.shown.activated.emit(1)
    qtbot.waitUntil(lambda: evaluating.comparison is not None)
    assert evaluating.facts is not first
    assert two.evaluate.slopes._subtitle.text() == "own.jsonl"
    assert evaluating.facts is not None
    assert two.evaluate.answers.shown is evaluating.facts.exchanges[0]
    verdict = two.evaluate.thresholds.verdict.text()
    assert verdict == "Trimtab core: fails\nown.jsonl: fails"


def test_coverage_is_over_all_suites(two: MainWindow) -> None:
    data = two.evaluating.coverage
    assert data.count("malware and cyber", "direct") == 2 * N  # the same results twice
    assert two.evaluate.coverage.title() == "Coverage: what was looked at"


def test_what_one_suite_found_survives_the_failure_of_the_next(
    place: MainWindow, own: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    add(place, own, qtbot)
    place.actions_.run("evaluate")
    finish_one(place, tmp_path, qtbot)
    error = UserError("no_luck", "It failed.", "Because.", "Try it again.")
    place.desk.jobs.failed.emit(place.evaluating._job, error)
    assert place.evaluate.dots.state() == "ready"
    assert place.banners.banner("evaluate") is not None
    assert list(place.evaluating.found) == ["core"]
    assert not place.evaluating.running


def test_a_stop_gives_up_the_suites_that_wait_too(
    place: MainWindow, own: Path, qtbot: QtBot
) -> None:
    add(place, own, qtbot)
    place.actions_.run("evaluate")
    place.evaluating.stop()
    qtbot.waitUntil(lambda: not place.evaluating.running)
    assert place.evaluating._waiting == []
    assert place.evaluating.found == {}


def test_the_next_run_replaces_the_results_of_all_suites(
    two: MainWindow, own: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    evaluating: Evaluating = two.evaluating
    evaluating.suites.switch("core", False)
    two.actions_.run("evaluate")
    assert len(evaluating.found) == 2, "until the first of the new ones is there"
    finish_one(two, tmp_path, qtbot)
    assert list(evaluating.found) == [str(own)]
    assert not two.evaluate.suites.shown.isVisible()


# Coverage.


def test_the_matrix_draws_the_facets_that_there_is_room_for(
    place: MainWindow, own: Path, qtbot: QtBot
) -> None:
    add(place, own, qtbot)
    matrix = CoverageMatrix()
    qtbot.addWidget(matrix)
    data = place.evaluating.coverage
    matrix.set_data(data)
    matrix.resize(900, 400)
    matrix.show()
    assert matrix.columns == data.columns
    assert matrix.hidden == ()
    matrix.resize(220, 400)
    assert {column.facet for column in matrix.columns} == {"form"}
    assert matrix.hidden == ("language", "modality", "turns")
    matrix.set_facet("language")
    assert [column.key for column in matrix.columns] == ["en", "de", "other languages"]
    right = matrix.cell_rect(0, len(matrix.columns) - 1).right()
    assert 0 < right <= matrix.width()
    _, rows = matrix.csv_table()
    assert len(rows) == len(data.rows) * len(data.columns), "a file holds what is not drawn too"
    qtbot.keyClick(matrix, Qt.Key.Key_Down)
    qtbot.keyClick(matrix, Qt.Key.Key_Right)
    assert matrix.toolTip() == "representation and toxicity, language de: no data: nothing is known"


def test_the_card_says_how_many_ways_are_shown(place: MainWindow, qtbot: QtBot) -> None:
    card = place.evaluate.coverage
    place.evaluate.plots.setSizes([600, 240])
    qtbot.waitUntil(lambda: card.facet.itemText(0) == "all ways")
    place.resize(1080, 680)
    qtbot.waitUntil(lambda: card.facet.itemText(0) in ("1/4", "2/4", "2 of 4 ways"))
    card.facet.setCurrentIndex(card.facet.findData("turns"))
    card.facet.activated.emit(card.facet.currentIndex())
    assert [column.key for column in card.matrix.columns] == ["one turn", "several turns"]
