from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gui_lineups import recipe_of
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.project import Project
from trimtab_gui.main_window import MainWindow

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


def test_the_switch_is_there_once_something_is_open(workbench: MainWindow) -> None:
    assert workbench.top.places.isVisible()
    workbench.desk.set_project(Project())
    assert not workbench.top.places.isVisible()


def test_a_click_on_a_place_goes_there(workbench: MainWindow, qtbot: QtBot) -> None:
    for place in reversed(list(workbench.places)):
        qtbot.mouseClick(workbench.top.places.buttons[place.key], Qt.MouseButton.LeftButton)
        assert workbench.places.current == place.key
        assert workbench.pages.currentWidget() is place.page()
        assert workbench.top.places.buttons[place.key].isChecked()


def test_each_place_has_a_shortcut_and_stands_in_the_menu(workbench: MainWindow) -> None:
    for place in workbench.places:
        workbench.actions_.run(f"place-{place.key}")
        assert workbench.places.current == place.key
        assert workbench.actions_[f"place-{place.key}"].shortcut == place.shortcut
        assert place.shortcut.startswith("Ctrl+")


def test_the_arrow_keys_move_along_the_switch(workbench: MainWindow, qtbot: QtBot) -> None:
    keys = [place.key for place in workbench.places]
    buttons = workbench.top.places.buttons
    workbench.activateWindow()
    buttons[keys[0]].setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(buttons[keys[0]], Qt.Key.Key_Right)
    assert buttons[keys[1]].hasFocus()
    assert workbench.places.current == keys[1]


def test_the_window_opens_in_the_place_it_was_closed_in(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    first = make_window()
    first.desk.set_project(Project(recipe_of(lineup_paths)))
    first.places.go("merge")
    first.shut_down()
    second = make_window()
    assert second.places.current == "merge"
    assert second.top.places.buttons["merge"].isChecked()


@pytest.mark.parametrize("kept", ["nowhere", 3, None])
def test_a_place_that_is_no_more_is_forgotten(
    make_window: Callable[[], MainWindow], kept: object
) -> None:
    first = make_window()
    first.desk.session.set("place", kept)
    first.shut_down()
    assert make_window().places.current == "inspect"


def test_merging_gives_the_ratio_curve_the_larger_part_and_inspecting_the_heatmap(
    workbench: MainWindow,
) -> None:
    centre = workbench.workbench.centre
    workbench.places.go("inspect")
    heatmap, profile = centre.sizes()
    assert heatmap > profile
    workbench.places.go("merge")
    heatmap, profile = centre.sizes()
    assert profile > heatmap


def test_each_place_keeps_how_its_rows_were_divided(workbench: MainWindow) -> None:
    centre = workbench.workbench.centre
    workbench.places.go("merge")
    centre.setSizes([350, 420])
    divided = centre.sizes()
    workbench.places.go("inspect")
    assert centre.sizes() != divided
    workbench.places.go("merge")
    assert centre.sizes() == divided
