from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.jobs.params import MergeParams, PlanParams
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import UnfinishedMerge

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

GPU = {"kind": "cuda", "index": 0, "name": "NVIDIA H200", "total_bytes": 139 * 10**9,
       "free_bytes": 97 * 10**9}  # fmt: skip


def pick(box: object, index: int, qtbot: QtBot) -> None:
    from PySide6.QtWidgets import QComboBox

    assert isinstance(box, QComboBox)
    box.setFocus()
    qtbot.keyClick(box, Qt.Key.Key_Home)
    for _ in range(index):
        qtbot.keyClick(box, Qt.Key.Key_Down)


def test_shards_device_and_memory_are_chosen_and_told(workbench: MainWindow, qtbot: QtBot) -> None:
    desk, output = workbench.desk, workbench.workbench.output
    desk.devices = [GPU, *desk.devices]
    desk.devices_changed.emit()
    assert output._options.isHidden()
    qtbot.mouseClick(output.more, Qt.MouseButton.LeftButton)
    popup = output.show_options()
    pick(popup.shards, 3, qtbot)
    assert desk.recipe.output.shard_size == 5 * 10**9
    pick(popup.device, 1, qtbot)
    assert workbench.merging.device == "cuda:0"
    pick(popup.memory, 2, qtbot)
    assert workbench.merging.memory == 2 * 10**9
    popup.close()
    assert output._options.text() == "shards of 5 GB · on cuda:0 · within 2 GB of memory"
    workbench.actions_.run("undo")
    assert desk.recipe.output.shard_size != 5 * 10**9, "the shard size belongs to the recipe"
    assert workbench.merging.device == "cuda:0", "the device does not"


def test_jobs_are_told_device_and_memory(workbench: MainWindow) -> None:
    merging, jobs = workbench.merging, workbench.desk.jobs
    merging.start()
    params = dict(jobs.pending[-1].params)
    assert params["device"] == "auto"
    MergeParams.model_validate(params)
    merging.set_device("cpu")
    merging.set_memory(10**9)
    assert merging.job_params == {"device": "cpu", "memory": 10**9}
    PlanParams.model_validate({"recipe": params["recipe"], **merging.job_params})
    merging._end()
    left = UnfinishedMerge(workbench.desk.recipe, merging.output, False)
    merging.resume(left)
    params = dict(jobs.pending[-1].params)
    assert (params["resume"], params["device"], params["memory"]) == (True, "cpu", 10**9)
    MergeParams.model_validate(params)


def test_device_and_memory_are_remembered_and_a_lost_device_is_not_asked_for(
    make_window: Callable[[], MainWindow],
) -> None:
    first = make_window()
    first.desk.devices = [GPU, *first.desk.devices]
    first.merging.set_device("cuda:0")
    first.merging.set_memory(4 * 10**9)
    second = make_window()
    assert second.merging.memory == 4 * 10**9
    assert second.merging.device == "auto"
    second.desk.devices = [GPU, *second.desk.devices]
    assert second.merging.device == "cuda:0"


def test_the_command_tells_device_and_memory(workbench: MainWindow, tmp_path: Path) -> None:
    workbench.desk.save(tmp_path / "p.trim")
    workbench.merging.set_device("cpu")
    workbench.merging.set_memory(2 * 10**9)
    workbench.actions_.run("copy-command")
    command = QGuiApplication.clipboard().text()
    assert command.startswith("trimtab merge ")
    assert command.endswith("--device cpu --memory 2GB")
