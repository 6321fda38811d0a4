"""The Evaluate place, before anything is evaluated and after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluations import saved
from pytestqt.qtbot import QtBot

from trimtab_gui.main_window import MainWindow


@pytest.fixture
def place(workbench: MainWindow, qtbot: QtBot) -> MainWindow:
    """A window in the Evaluate place, before anything is evaluated."""
    workbench.places.go("evaluate")
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    return workbench


def finish(window: MainWindow, folder: Path, qtbot: QtBot, **changes: Any) -> None:
    """Let the evaluation that was started end, with the results in a file of a folder."""
    job = window.evaluating._job
    assert job is not None
    path = saved(folder, params=job.params, **changes)
    window.desk.jobs.finished.emit(job, {"path": str(path)}, 12.0)
    qtbot.waitUntil(lambda: window.evaluating._job is not job)
    qtbot.waitUntil(lambda: window.evaluating.comparison is not None)
    qtbot.waitUntil(lambda: not window.evaluating.asking or window.evaluating._job is not None)


@pytest.fixture
def filled(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The place after a run of three targets."""
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot)
    return place
