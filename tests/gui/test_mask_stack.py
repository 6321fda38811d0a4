"""The mask stack beside the method: switched, joined, inverted, removed and added by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.control import Unattended
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import MaskEntry, Rule
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.merging.recipe import parse_recipe
from trimtab.project import edits
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.mask_stack import OPS, MaskStackPanel

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LAYERS = MaskEntry(rule=Rule(layers=(1, 2)), invert=True, name="Layers 1–2")
QUERIES = MaskEntry(rule=Rule(modules=("q",)), op="or", name="Queries")


def stacked(window: MainWindow, *entries: MaskEntry) -> MaskStackPanel:
    window.desk.edit(edits.set_masks(window.desk.recipe, 0, entries, "Masks"))
    return window.workbench.masks


def masks(window: MainWindow) -> tuple[MaskEntry, ...]:
    return window.desk.recipe.finetuned[window.desk.active].masks


def answer(window: MainWindow, job: Job) -> None:
    """Do a job here, in the worker's place."""
    jobs = window.desk.jobs
    jobs._queue.remove(job)
    jobs.finished.emit(job, run_job(job.name, dict(job.params), Unattended()), 0.1)


def write_mask(path: Path) -> Path:
    with MaskWriter(path, MaskAbout(builder="magnitude")) as writer:
        writer.bits("model.norm.weight", (8,), np.array([3], np.uint8))
        writer.finish()
    return path


def test_the_stack_is_seen_only_where_there_is_one(workbench: MainWindow) -> None:
    panel = workbench.workbench.masks
    assert not panel.isVisibleTo(workbench.workbench)
    stacked(workbench, LAYERS, QUERIES)
    assert panel.isVisibleTo(workbench.workbench)
    assert [row.title.text() for row in panel.rows] == ["not Layers 1–2", "Queries"]
    workbench.desk.history.undo()
    assert not panel.isVisibleTo(workbench.workbench)


def test_an_entry_is_switched_off_and_on_by_a_click(workbench: MainWindow, qtbot: QtBot) -> None:
    panel = stacked(workbench, LAYERS, QUERIES)
    qtbot.waitUntil(lambda: panel.rows[1].on.width() < 40)  # laid out
    qtbot.mouseClick(panel.rows[1].on, Qt.MouseButton.LeftButton)
    assert [entry.on for entry in masks(workbench)] == [True, False]
    assert workbench.desk.history.undoText() == "Switch Queries"
    workbench.desk.history.undo()
    assert masks(workbench) == (LAYERS, QUERIES)
    assert [row.on.isChecked() for row in panel.rows] == [True, True]


def test_an_entry_is_inverted_and_removed(workbench: MainWindow, qtbot: QtBot) -> None:
    panel = stacked(workbench, LAYERS, QUERIES)
    assert panel.rows[0].title.text() == f"not {LAYERS.name}"
    panel.rows[0].invert.trigger()
    assert not masks(workbench)[0].invert
    panel.rows[0].remove.trigger()
    assert masks(workbench) == (QUERIES,)
    assert len(panel.rows) == 1


@pytest.mark.parametrize("op", OPS)
def test_an_entry_joins_those_above_as_chosen_with_the_keyboard(
    workbench: MainWindow, qtbot: QtBot, op: str
) -> None:
    panel = stacked(workbench, LAYERS, QUERIES)
    box = panel.rows[1].op
    for _ in OPS:
        qtbot.keyClick(box, Qt.Key.Key_Up)
        box = panel.rows[1].op
    for _ in range(list(OPS).index(op)):  # type: ignore[arg-type]
        qtbot.keyClick(box, Qt.Key.Key_Down)
        box = panel.rows[1].op
    assert masks(workbench)[1].op == op


def test_a_mask_file_that_is_dropped_joins_the_stack(workbench: MainWindow, tmp_path: Path) -> None:
    path = write_mask(tmp_path / "some.mask.safetensors")
    workbench._dropped([path], None)
    assert [entry.path for entry in masks(workbench)] == [str(path)]
    again = parse_recipe(workbench.desk.recipe.to_yaml())
    assert again.finetuned[0].masks == masks(workbench)


def test_a_file_that_is_no_mask_is_refused_in_place(workbench: MainWindow, tmp_path: Path) -> None:
    path = tmp_path / "broken.mask.safetensors"
    path.write_bytes(b"no header")
    workbench._dropped([path], None)
    assert not masks(workbench)
    banner = workbench.banners.banner("mask")
    assert banner is not None
    assert "broken" in banner.text()


def test_every_control_of_an_entry_has_a_name(workbench: MainWindow) -> None:
    panel = stacked(workbench, LAYERS)
    row = panel.rows[0]
    for widget in (row.on, row.op, row.more):
        assert LAYERS.name in widget.accessibleName()
    assert all(action.text() for action in (row.invert, row.up, row.down, row.remove))


def test_entries_are_moved_by_keys_and_the_keyboard_stays_with_them(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    panel = stacked(workbench, LAYERS, QUERIES)
    assert not panel.rows[0].up.isEnabled()
    assert not panel.rows[1].down.isEnabled()
    panel.rows[0].on.setFocus()
    qtbot.keyClick(panel.rows[0].on, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert masks(workbench) == (QUERIES, LAYERS)
    assert panel.rows[1].on.hasFocus()
    qtbot.keyClick(panel.rows[1].on, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert masks(workbench) == (QUERIES, LAYERS)
    panel.rows[1].up.trigger()
    assert masks(workbench) == (LAYERS, QUERIES)
    workbench.desk.history.undo()
    assert masks(workbench) == (QUERIES, LAYERS)


def test_each_entry_tells_what_is_kept_down_to_it(workbench: MainWindow, qtbot: QtBot) -> None:
    off = QUERIES.model_copy(update={"on": False})
    panel = stacked(workbench, LAYERS, off)
    job = workbench.desk.jobs.pending[-1]
    assert job.name == "mask_shares"
    answer(workbench, job)
    # six layers of 7 matrices and a norm, 8 wide; embedding, head and the last norm
    layer, whole = 7 * 64 + 8, 6 * (7 * 64 + 8) + 2 * 64 + 8
    share = f"{100 * (whole - 2 * layer) / whole:.1f} %"
    assert [row.so_far.text() for row in panel.rows] == [share, "—"]
    assert panel._aside.text() == f"{share} kept"


def test_what_masks_move_is_said_to_be_unknown(workbench: MainWindow) -> None:
    stacked(workbench, LAYERS)
    assert workbench.desk.movement is None
    assert "Masks" in workbench.desk.movement_unknown
