from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gui_lineups import recipe_of
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe
from trimtab.project import Project
from trimtab_gui import faults as faults_module
from trimtab_gui.faults import Faults
from trimtab_gui.main_window import MainWindow
from trimtab_gui.opening import add_models
from trimtab_gui.session import Session, UnfinishedMerge

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


def drop(window: MainWindow, paths: list[Path]) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    window.dropEvent(
        QDropEvent(
            QPointF(200, 200), Qt.DropAction.CopyAction, data,
            Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
        )
    )  # fmt: skip


def test_the_window_begins_with_the_welcome_page(window: MainWindow) -> None:
    assert window.pages.currentWidget() is window.welcome
    assert window.windowTitle() == "Trimtab[*]"


def test_three_folders_dropped_at_once_get_their_roles_guessed(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    drop(window, [lineup_paths["math"], lineup_paths["aligned"], lineup_paths["base"]])
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    recipe = window.desk.recipe
    assert recipe.base is not None
    assert recipe.aligned is not None
    assert Path(recipe.base.path).name == "base"
    assert Path(recipe.aligned.path).name == "aligned"
    assert [Path(m.path).name for m in recipe.finetuned] == ["math"]
    assert window.pages.currentWidget() is window.workbench
    assert len(window.workbench.lineup.cards) == 3


def test_two_drops_in_quick_succession_are_both_taken(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    window.documents.open_paths([lineup_paths["aligned"]], "aligned")
    window.documents.open_paths([lineup_paths["math"]], "finetuned")
    qtbot.waitUntil(lambda: window.desk.lineup is not None and not window.desk.background.busy)
    recipe = window.desk.recipe
    assert recipe.aligned is not None
    assert [Path(m.path).name for m in recipe.finetuned] == ["math"]


def test_a_model_dropped_on_a_slot_gets_that_role(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    window.welcome.slots["base"].dropped.emit([lineup_paths["math"]])
    qtbot.waitUntil(lambda: window.desk.recipe.base is not None)
    assert window.desk.recipe.aligned is None


def test_dropping_models_can_be_undone(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    drop(window, [lineup_paths["aligned"]])
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    window.actions_.run("undo")
    assert window.desk.empty
    assert window.pages.currentWidget() is window.welcome


@pytest.mark.parametrize("bad", ["empty", "missing", "text", "pickle", "truncated", "recipe"])
def test_bad_input_is_refused_in_place_with_the_error_s_own_words(
    window: MainWindow, tmp_path: Path, bad: str, qtbot: QtBot
) -> None:
    path = tmp_path / bad
    if bad == "empty":
        path.mkdir()
    elif bad == "text":
        path = path.with_suffix(".txt")
        path.write_text("hello")
    elif bad == "pickle":
        path = path.with_suffix(".bin")
        path.write_bytes(b"\x80\x04.")
    elif bad == "truncated":
        path = path.with_suffix(".safetensors")
        path.write_bytes((1000).to_bytes(8, "little") + b"{}")
    elif bad == "recipe":
        path = path.with_suffix(".trim")
        path.write_text("trimtab: 1\nmethud: linear\n")
    expected = error_of(path)
    drop(window, [path])
    qtbot.waitUntil(lambda: window.banners.banner("open") is not None)
    banner = window.banners.banner("open")
    assert banner is not None
    assert banner.kind() == "error"
    assert banner.text() == expected.what
    assert window.desk.empty


def error_of(path: Path) -> UserError:
    from trimtab.checkpoints import open_checkpoint
    from trimtab.merging.recipe import load_recipe

    opener: Callable[[Path], object] = load_recipe if path.suffix == ".trim" else open_checkpoint
    with pytest.raises(UserError) as caught:
        opener(path)
    return caught.value


def test_the_latest_of_two_lineups_wins(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    first = recipe_of(lineup_paths)
    second = first.model_copy(update={"finetuned": first.finetuned[:1]})
    window.desk.set_project(Project(first))
    window.desk.set_project(Project(second))
    qtbot.waitUntil(lambda: not window.desk.background.busy)
    assert window.desk.lineup is not None
    assert len(window.desk.lineup.finetuned) == 1


def test_saving_makes_the_document_clean_and_recent(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    workbench.workbench.method.ratios[0].track.setFocus()
    qtbot.keyClick(workbench.workbench.method.ratios[0].track, Qt.Key.Key_Right)
    assert workbench.isWindowModified()
    path = tmp_path / "a.trim"
    assert workbench.desk.save(path)
    assert not workbench.isWindowModified()
    assert workbench.desk.session.recent[0].path == path
    assert Project.load(path).recipe == workbench.desk.recipe


def test_a_recent_document_opens_with_a_click(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], tmp_path: Path,
    qtbot: QtBot,
) -> None:  # fmt: skip
    path = tmp_path / "work.trim"
    Project(recipe_of(lineup_paths)).save(path)
    Session(tmp_path / "config").opened(path)
    Session(tmp_path / "config").opened(tmp_path / "gone.trim")
    window = make_window()
    gone, here = window.welcome.recent_rows
    assert gone.recent.missing
    here.click()
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    assert window.desk.project.path == path


def test_unsaved_work_is_offered_after_a_crash(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], tmp_path: Path,
    qtbot: QtBot,
) -> None:  # fmt: skip
    first = make_window()
    first.desk._autosave.setInterval(10)
    first.documents.open_paths([lineup_paths["aligned"]])
    qtbot.waitUntil(lambda: Session(tmp_path / "config").recovered is not None)
    second = make_window()
    second.warm_up()
    banner = second.banners.banner("recovery")
    assert banner is not None
    banner.buttons()[0].click()
    assert second.desk.recipe == first.desk.recipe
    # what was recovered is not saved yet: leaving asks, and a second crash loses nothing
    assert second.isWindowModified()
    assert Session(tmp_path / "config").recovered is not None


def test_a_merge_left_unfinished_is_offered_at_the_next_start(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_of(lineup_paths)
    unfinished = UnfinishedMerge(recipe, tmp_path / "out", False)
    Session(tmp_path / "config").merge_started(unfinished)
    (tmp_path / "out.partial").mkdir()
    window = make_window()
    window.warm_up()
    banner = window.banners.banner("merge")
    assert banner is not None
    assert [b.text() for b in banner.buttons()] == ["Go on", "Discard"]
    banner.buttons()[0].click()
    job = window.desk.jobs.pending[-1]
    assert job.name == "merge"
    assert job.params["resume"] is True
    assert job.params["output"] == str(tmp_path / "out")


def test_an_unfinished_merge_of_which_nothing_is_left_is_told_but_not_offered(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], tmp_path: Path
) -> None:
    unfinished = UnfinishedMerge(recipe_of(lineup_paths), tmp_path / "out", False)
    Session(tmp_path / "config").merge_started(unfinished)
    window = make_window()
    window.warm_up()
    banner = window.banners.banner("merge")
    assert banner is not None
    assert banner.buttons() == []
    assert Session(tmp_path / "config").unfinished is None


@pytest.mark.expected_log("uncaught exception")
def test_an_exception_in_a_slot_becomes_a_banner_with_its_traceback(
    window: MainWindow, qtbot: QtBot
) -> None:
    faults = Faults(window.banners.show_notice, window)
    faults.install()
    try:
        assert faults_module.__name__
        error = ValueError("that should not be")
        sys.excepthook(ValueError, error, None)
        qtbot.waitUntil(lambda: window.banners.banner("fault") is not None)
    finally:
        faults.uninstall()
    banner = window.banners.banner("fault")
    assert banner is not None
    assert "that should not be" in banner.accessibleDescription()


def test_the_layout_comes_back(make_window: Callable[[], MainWindow], qtbot: QtBot) -> None:
    first = make_window()
    first.pages.setCurrentWidget(first.workbench)
    first.show()
    first.workbench.columns.setSizes([300, 800, 350])
    sizes = first.workbench.columns.sizes()
    first.shut_down()
    second = make_window()
    second.resize(first.size())
    second.pages.setCurrentWidget(second.workbench)
    second.show()
    assert second.workbench.columns.sizes() == pytest.approx(sizes, abs=2)


def test_copy_as_command_gives_what_the_command_line_takes(
    workbench: MainWindow, tmp_path: Path
) -> None:
    path = tmp_path / "a b.trim"
    assert workbench.desk.save(path)
    workbench.merging.set_output(tmp_path / "out")
    workbench.actions_.run("copy-command")
    text = QGuiApplication.clipboard().text()
    assert shlex.split(text) == ["trimtab", "merge", str(path), "-o", str(tmp_path / "out")]


def test_nan_in_the_weights_is_said(workbench: MainWindow) -> None:
    inspection = workbench.desk.project.inspection
    assert inspection is not None
    counts = inspection.non_finite.copy()
    counts[3, 2] = 5
    workbench.desk.project.set_inspection(replace(inspection, non_finite=counts))
    banner = workbench.banners.banner("finite")
    assert banner is not None
    assert "math (5)" in banner.accessibleDescription()


def test_the_demo_opens_its_lineup_and_says_that_it_is_toys(
    window: MainWindow, qtbot: QtBot
) -> None:
    window.welcome.demo_button.click()
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    lineup = window.desk.lineup
    assert lineup is not None
    assert lineup.errors == ()
    assert lineup.has_alignment
    assert "Toy models" in window.workbench._toys.text()
    assert not window.workbench._toys.isHidden()
    assert "demo" in window.windowTitle()


def test_closing_without_changes_asks_nothing_and_leaves_nothing(
    window: MainWindow, tmp_path: Path
) -> None:
    window.show()
    assert window.close()
    assert Session(tmp_path / "config").recovered is None


def test_a_window_larger_than_the_screen_fills_it_instead(window: MainWindow) -> None:
    room = window.screen().availableSize()
    window.resize(room.width() + 300, room.height() + 300)
    window.fit_screen()
    assert window.isMaximized()
    assert window.width() <= room.width()
    assert window.height() <= room.height()


def test_models_that_come_together_share_one_and_later_ones_wait_at_zero(
    lineup_paths: dict[str, Path],
) -> None:
    together = [lineup_paths["math"], lineup_paths["code"]]
    first = add_models(Recipe(), [lineup_paths["aligned"], *together]).after
    assert [m.ratio for m in first.finetuned] == [0.5, 0.5]
    alone = add_models(Recipe(), together[:1], "finetuned").after
    assert [m.ratio for m in alone.finetuned] == [1.0]
    later = add_models(alone, together[1:], "finetuned").after
    assert [m.ratio for m in later.finetuned] == [1.0, 0.0]
