from __future__ import annotations

import time
from collections import Counter

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QLineEdit, QWidget
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab_gui.actions.fuzzy import score
from trimtab_gui.dialogs.palette import entries
from trimtab_gui.main_window import MainWindow

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


def test_no_shortcut_is_given_twice(window: MainWindow) -> None:
    shortcuts = Counter(a.shortcut.lower() for a in window.actions_ if a.shortcut)
    assert [key for key, n in shortcuts.items() if n > 1] == []


def test_each_action_has_a_title_a_menu_and_an_id_of_its_own(window: MainWindow) -> None:
    found = list(window.actions_)
    assert len({a.id for a in found}) == len(found)
    assert all(a.text and a.menu for a in found)


def test_what_cannot_be_done_is_off_and_says_why(window: MainWindow) -> None:
    for action in window.actions_:
        reason = action.enabled()
        assert window.actions_.qt(action.id).isEnabled() == (reason is None)
        if reason is not None:
            assert reason in window.actions_.qt(action.id).toolTip()
    assert window.actions_["merge"].enabled() == "Open models first."


def test_an_action_that_is_off_does_nothing(window: MainWindow) -> None:
    window.actions_.run("merge")
    assert window.desk.jobs.pending == ()


def test_a_few_letters_find_an_action(window: MainWindow) -> None:
    assert entries(window.actions_, "tdm")[0].id == "demo"
    assert entries(window.actions_, "merge")[0].text == "Merge and save" or any(
        e.id == "merge" for e in entries(window.actions_, "merge")[:2]
    )
    assert entries(window.actions_, "xyzzy") == []


def test_the_palette_lists_what_is_off_behind_the_rest_with_its_reason(
    window: MainWindow,
) -> None:
    listed = entries(window.actions_, "")
    off = [bool(e.reason) for e in listed]
    assert off == sorted(off)
    assert {e.id for e in listed} == {a.id for a in window.actions_} - {"palette"}


def test_the_palette_answers_a_key_within_50_ms(window: MainWindow, qtbot: QtBot) -> None:
    palette = window.show_palette()
    begun = time.perf_counter()
    for letter in "merge":
        qtbot.keyClick(palette.field, letter)
    assert (time.perf_counter() - begun) / 5 < 0.05
    palette.close()


def test_enter_in_the_palette_does_the_action(window: MainWindow, qtbot: QtBot) -> None:
    palette = window.show_palette()
    qtbot.keyClicks(palette.field, "light theme")
    assert palette.shown()[0].id == "theme-light"
    qtbot.keyClick(palette.field, Qt.Key.Key_Return)
    assert window.desk.session.get("theme") == "light"


def test_the_sheet_lists_every_shortcut(window: MainWindow) -> None:
    sheet = window.show_shortcuts()
    assert len(sheet.rows) == sum(bool(a.shortcut) for a in window.actions_)
    sheet.close()


def test_about_says_that_there_is_no_network(window: MainWindow) -> None:
    from PySide6.QtWidgets import QLabel

    sheet = window.show_about()
    assert any("no network" in label.text() for label in sheet.findChildren(QLabel))
    sheet.close()


@pytest.mark.parametrize("page", ["window", "workbench"])
def test_everything_that_takes_focus_has_a_name(page: str, request: pytest.FixtureRequest) -> None:
    shown: MainWindow = request.getfixturevalue(page)
    shown.show()
    nameless = []
    for widget in shown.findChildren(QWidget):
        if widget.focusPolicy() == Qt.FocusPolicy.NoFocus or not widget.isVisibleTo(shown):
            continue
        if widget.focusProxy() is not None:
            continue  # a viewport: the plot around it takes the focus and has the name
        text = widget.text() if isinstance(widget, QAbstractButton) else ""
        if not (widget.accessibleName() or text) and not isinstance(widget.parent(), QLineEdit):
            nameless.append(f"{widget!r} in {widget.parent()!r}")
    assert not nameless, "\n".join(nameless)


def test_fuzzy_prefers_the_start_of_words() -> None:
    first, second = score("sp", "Save project"), score("sp", "Inspect")
    assert first is not None
    assert second is not None
    assert first > second
    assert score("ps", "Save project") is None


def test_the_tab_key_goes_in_reading_order(workbench: MainWindow) -> None:
    bench = workbench.workbench
    order: list[QWidget] = []
    widget: QWidget = workbench
    while (widget := widget.nextInFocusChain()) is not workbench:
        order.append(widget)
    wanted: list[QWidget] = [
        *bench.lineup.cards,
        bench.heatmap.metric_box,
        bench.heatmap.vector_box,
        bench.heatmap.view,
        bench.profile.view,
        bench.method.method,
        *(slider.track for slider in bench.method.ratios),
        *(slider.track for slider in bench.method.parameters.values()),
        bench.method.fold,
        *(slider.track for slider in bench.method.modules.values()),
        bench.output.dtype,
        bench.output.folder,
        bench.output.button,
    ]
    places = [order.index(w) for w in wanted]
    assert places == sorted(places)


def test_the_tab_key_comes_round_to_everything(workbench: MainWindow, qtbot: QtBot) -> None:
    bench = workbench.workbench
    workbench.activateWindow()
    bench.method.method.setFocus()
    wanted: set[QWidget] = {
        *bench.lineup.cards,
        bench.heatmap.view,
        bench.profile.view,
        bench.method.method,
        bench.method.ratios[0].track,
        bench.output.button,
    }
    for _ in range(60):
        wanted.discard(QApplication.focusWidget())
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
    assert not wanted
