"""Selections that are joined with what is selected: by keys, by buttons, undone and kept apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab_gui.joining import SelectCommand, how_by_keys
from trimtab_gui.main_window import MainWindow
from trimtab_gui.plots.grid import Span
from trimtab_gui.selection import How, joined, selection_of
from trimtab_gui.views.inspect.how_row import HowRow

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
CTRL = Qt.KeyboardModifier.ControlModifier
SHIFT, ALT = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.AltModifier
Cells = tuple[int, int]


def brush(
    window: MainWindow, qtbot: QtBot, first: Cells, last: Cells,
    keys: Qt.KeyboardModifier = NONE,
) -> None:  # fmt: skip
    """Drag from one cell (row, column) to another, in several moves."""
    view = window.workbench.heatmap.view

    def middle(cell: Cells) -> QPoint:
        row, column = cell
        return view.span_rect(Span(row, row, column, column)).center().toPoint()

    start, end = middle(first), middle(last)
    qtbot.mousePress(view.viewport(), LEFT, keys, start)
    for share in (0.1, 0.5, 1.0):
        qtbot.mouseMove(view.viewport(), start + (end - start) * share)
    qtbot.mouseRelease(view.viewport(), LEFT, keys, end)
    QApplication.processEvents()


def selected(window: MainWindow) -> set[str]:
    figures = window.desk.figures
    assert figures is not None
    return {figures.grid.labels[g] for g in window.desk.selection.current.groups}


def cells(layers: str, modules: Iterable[str]) -> set[str]:
    return {f"L{layer} · {module}" for layer in layers for module in modules}


Groups = st.sets(st.integers(0, 9)).map(lambda found: tuple(sorted(found)))


@given(Groups.filter(bool), Groups, st.integers(0, 9))
def test_joining_is_what_sets_do(before: tuple[int, ...], other: tuple[int, ...], one: int) -> None:
    inside = {
        "replace": one in other,
        "union": one in before or one in other,
        "intersect": one in before and one in other,
        "difference": one in before and one not in other,
    }
    how: How
    for how in ("replace", "union", "intersect", "difference"):
        found = joined(before, other, how)
        assert (one in found) == inside[how]
        assert list(found) == sorted(found)
        assert joined((), other, how) == other  # there is nothing to join with


def test_ctrl_unites_while_the_hand_still_moves_and_is_one_step(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    history, view = workbench.desk.history, workbench.workbench.heatmap.view
    brush(workbench, qtbot, (0, 1), (1, 2))
    assert selected(workbench) == cells("01", "qk")
    assert history.count() == 0  # a plain selection is no step
    steps: list[int] = []
    workbench.desk.selection.changed.connect(lambda s, _: steps.append(len(s.groups)))
    brush(workbench, qtbot, (1, 2), (2, 4), CTRL)
    assert steps == sorted(steps)
    assert len(steps) > 1
    assert selected(workbench) == cells("01", "qk") | cells("123", "kv")
    assert len(view.selected_parts()) > 1
    assert history.count() == 1
    assert history.undoText() == "Union of selections"
    history.undo()
    assert selected(workbench) == cells("01", "qk")
    assert view.selected_parts() == [Span(0, 1, 1, 2)]
    history.redo()
    assert selected(workbench) == cells("01", "qk") | cells("123", "kv")
    assert not workbench.desk.project.dirty


def test_a_brush_that_shrinks_gives_back_what_it_no_longer_covers(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    view = workbench.workbench.heatmap.view
    brush(workbench, qtbot, (0, 1), (0, 1))
    places = [view.span_rect(Span(0, 0, c, c)).center().toPoint() for c in (3, 5, 4, 3)]
    qtbot.mousePress(view.viewport(), LEFT, CTRL, places[0])
    for place in places[1:]:
        qtbot.mouseMove(view.viewport(), place)
    qtbot.mouseRelease(view.viewport(), LEFT, CTRL, places[-1])
    QApplication.processEvents()
    assert selected(workbench) == cells("02", "q")


def test_a_brush_as_large_as_what_is_selected_around_it_still_counts(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    view = workbench.workbench.heatmap.view
    brush(workbench, qtbot, (0, 1), (0, 1))
    first, last = (view.span_rect(Span(0, 0, c, c)).center().toPoint() for c in (3, 1))
    qtbot.mousePress(view.viewport(), LEFT, CTRL, first)
    qtbot.mouseMove(view.viewport(), first + QPoint(6, 0))
    assert selected(workbench) == cells("02", "q")
    qtbot.mouseMove(view.viewport(), last)
    qtbot.mouseRelease(view.viewport(), LEFT, CTRL, last)
    QApplication.processEvents()
    assert selected(workbench) == cells("012", "q")


def test_keys_choose_intersection_and_difference(workbench: MainWindow, qtbot: QtBot) -> None:
    brush(workbench, qtbot, (0, 1), (3, 4))
    zoom = workbench.workbench.heatmap.view.view_range()
    brush(workbench, qtbot, (1, 3), (3, 6), CTRL | SHIFT)
    assert workbench.workbench.heatmap.view.view_range() == zoom  # Shift alone would pan
    assert selected(workbench) == cells("23", "kvo")
    brush(workbench, qtbot, (2, 3), (2, 3), CTRL | ALT)
    assert selected(workbench) == cells("23", "kvo") - cells("2", "v")
    assert workbench.desk.history.count() == 2
    brush(workbench, qtbot, (0, 1), (3, 6), CTRL | ALT)
    assert not workbench.desk.selection.current
    assert workbench.workbench.heatmap.view.selected_parts() == []
    workbench.desk.history.undo()
    assert selected(workbench) == cells("23", "kvo") - cells("2", "v")


def test_buttons_do_what_the_keys_do_and_a_key_outvotes_them(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    row = workbench.workbench.selection.how
    brush(workbench, qtbot, (0, 1), (0, 2))
    qtbot.mouseClick(row.buttons["union"], LEFT)
    assert row.says.text() == "Union"
    brush(workbench, qtbot, (1, 1), (1, 1))
    assert selected(workbench) == cells("01", "q") | cells("0", "k")
    brush(workbench, qtbot, (0, 1), (0, 1), CTRL | ALT)
    assert selected(workbench) == cells("1", "q") | cells("0", "k")
    qtbot.keyClick(row.buttons["replace"], Qt.Key.Key_Return)
    brush(workbench, qtbot, (2, 3), (2, 3))
    assert selected(workbench) == cells("2", "v")


def test_all_of_it_goes_without_a_mouse(workbench: MainWindow, qtbot: QtBot) -> None:
    view = workbench.workbench.heatmap.view
    row = workbench.workbench.selection.how
    for button in row.buttons.values():
        assert button.focusPolicy() & Qt.FocusPolicy.TabFocus
        assert button.accessibleName()
    view.set_cursor(int(view.grid.ids[0, 1]))
    qtbot.keyClick(view, Qt.Key.Key_Return)
    qtbot.keyClick(view, Qt.Key.Key_Right)
    qtbot.keyClick(view, Qt.Key.Key_Space, CTRL)
    assert selected(workbench) == cells("01", "q")
    qtbot.keyClick(row.buttons["difference"], Qt.Key.Key_Space)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert selected(workbench) == cells("0", "q")
    assert [workbench.desk.history.text(k) for k in range(2)] == [
        "Union of selections",
        "Difference of selections",
    ]
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    assert not workbench.desk.selection.current


def test_a_range_drawn_with_ctrl_joins_and_does_not_move_the_one_there_is(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    brush(workbench, qtbot, (0, 1), (0, 4))
    view = workbench.workbench.profile.view
    assert view.selection == (1, 4)
    height = round(view.plot_rect().top() + 4)
    x = [round(view.x_px(column + 0.5)) for column in (2, 3)]
    qtbot.mousePress(view.viewport(), LEFT, CTRL | ALT, QPoint(x[0], height))
    for at in (x[0] + 6, x[1]):
        qtbot.mouseMove(view.viewport(), QPoint(at, height))
    qtbot.mouseRelease(view.viewport(), LEFT, CTRL | ALT, QPoint(x[1], height))
    QApplication.processEvents()
    assert selected(workbench) == cells("03", "q")
    assert view.selection == (1, 4)  # from the first to the last column that has any
    workbench.desk.history.undo()
    assert selected(workbench) == cells("0123", "q")


def test_a_click_that_draws_no_range_leaves_the_selection(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    brush(workbench, qtbot, (0, 1), (0, 4))
    view = workbench.workbench.profile.view
    qtbot.mouseClick(view.viewport(), LEFT, CTRL, QPoint(round(view.x_px(2.5)), 60))
    QApplication.processEvents()
    assert selected(workbench) == cells("0123", "q")
    assert view.selection == (1, 4)
    assert workbench.desk.history.count() == 0


def test_what_takes_the_place_of_a_selection_or_begins_one_is_no_step(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    brush(workbench, qtbot, (0, 1), (0, 1), CTRL)
    assert selected(workbench) == cells("0", "q")
    popup = workbench.workbench.selection.open_rule()
    assert popup.select.text() == "Select"
    popup.modules["k"].click()
    popup.apply()
    assert selected(workbench) == cells("012345", "k")
    assert workbench.desk.history.count() == 0


def test_a_rule_joins_and_its_button_says_so(workbench: MainWindow, qtbot: QtBot) -> None:
    brush(workbench, qtbot, (0, 1), (1, 4))
    workbench.desk.selection.set_how("intersect")
    popup = workbench.workbench.selection.open_rule()
    assert popup.select.text() == "Keep what is selected and fits"
    popup.modules["k"].click()
    popup.apply()
    assert selected(workbench) == cells("0123", "k")
    popup = workbench.workbench.selection.open_rule()
    qtbot.keyClick(popup.how.buttons["union"], Qt.Key.Key_Space)
    assert popup.select.text() == "Add to the selection"
    popup.modules["up"].click()
    qtbot.keyClick(popup.last, Qt.Key.Key_Return)
    assert selected(workbench) == cells("0123", "k") | cells("012345", ["up"])
    workbench.desk.history.undo()
    workbench.desk.history.undo()
    assert selected(workbench) == cells("0123", "qk")


def test_a_step_means_nothing_to_another_lineup(workbench: MainWindow) -> None:
    desk, figures = workbench.desk, workbench.desk.figures
    assert figures is not None
    before, after = selection_of(figures.grid, (1,)), selection_of(figures.grid, (1, 2))
    for grid, works in ((replace(figures.grid), False), (figures.grid, True)):
        desk.selection.clear()
        command = SelectCommand(desk, grid, before, after, "union")
        command.redo()
        assert (desk.selection.current == after) == works
        command.undo()
        assert (desk.selection.current == before) == works


def test_the_keys_are_read_as_they_are_told(workbench: MainWindow) -> None:
    desk = workbench.desk
    assert how_by_keys(desk, NONE) == "replace"
    assert how_by_keys(desk, SHIFT | ALT) == "replace"
    assert how_by_keys(desk, CTRL) == "union"
    assert how_by_keys(desk, CTRL | SHIFT) == "intersect"
    assert how_by_keys(desk, CTRL | ALT) == "difference"
    desk.selection.set_how("difference")
    assert how_by_keys(desk, NONE) == "difference"
    assert how_by_keys(desk, CTRL) == "union"
    assert isinstance(workbench.workbench.selection.how, HowRow)
