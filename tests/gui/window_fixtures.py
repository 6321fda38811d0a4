"""Fixtures for tests of the whole window; a test module imports those it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gui_lineups import IdleJobs, inspect, recipe_of, write_lineup
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from trimtab.project import Project
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session


@pytest.fixture
def make_window(qapp: QApplication, tmp_path: Path) -> Iterator[Callable[[], MainWindow]]:
    made: list[MainWindow] = []
    theme.apply(qapp, "dark")

    def make() -> MainWindow:
        window = MainWindow(Desk(Session(tmp_path / "config"), IdleJobs()))
        window.resize(1480, 920)
        made.append(window)
        return window

    yield make
    for window in made:
        window.shut_down()
        window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def window(make_window: Callable[[], MainWindow]) -> MainWindow:
    """An empty window: the welcome page."""
    return make_window()


@pytest.fixture
def lineup_paths(tmp_path: Path) -> dict[str, Path]:
    return write_lineup(tmp_path / "models")


@pytest.fixture
def workbench(window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot) -> MainWindow:
    """A window that shows an inspected lineup."""
    window.desk.set_project(Project(recipe_of(lineup_paths)))
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    assert window.desk.lineup is not None
    window.desk._stop_inspecting()
    window.desk.project.set_inspection(inspect(window.desk.lineup))
    window.show()
    qtbot.waitExposed(window)
    return window
