"""A real window with a real worker that is killed in the middle of a merge."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from safetensors.numpy import save_file

from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab.project import Project
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session

LAYERS = 24
SIDE = 2048


@pytest.fixture
def window(qapp: QApplication, tmp_path: Path) -> Iterator[MainWindow]:
    theme.apply(qapp, "dark")
    window = MainWindow(Desk(Session(tmp_path / "config")))
    yield window
    window.shut_down()
    window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Two models of 200 MB: large enough that a kill comes before the end."""
    random = np.random.default_rng(3)
    block = random.normal(0, 1, (SIDE, SIDE)).astype(np.float16)
    for model, scale in (("aligned", 1.0), ("tuned", 1.125)):
        folder = tmp_path / model
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        tensors = {
            f"model.layers.{i}.mlp.up_proj.weight": np.roll(block, i) * np.float16(scale)
            for i in range(LAYERS)
        }
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Recipe(
        aligned=ModelRef(path=str(tmp_path / "aligned")),
        finetuned=(FineTuned(path=str(tmp_path / "tuned"), ratio=0.625),),
    )


def test_a_merge_whose_worker_was_killed_goes_on_and_equals_an_uninterrupted_one(
    window: MainWindow, recipe: Recipe, tmp_path: Path, qtbot: QtBot
) -> None:
    desk, merging = window.desk, window.merging
    desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: desk.figures is not None, timeout=60_000)
    output = tmp_path / "merged"
    merging.set_output(output)

    def kill(job: object, progress: object) -> None:
        desk.jobs.progress.disconnect(kill)
        os.kill(desk.jobs.worker_pid, signal.SIGKILL)

    desk.jobs.progress.connect(kill)
    with qtbot.waitSignal(desk.jobs.failed, timeout=60_000) as failed:
        merging.start()
    assert failed.args is not None
    assert failed.args[1].code == "worker_stopped"
    assert not output.exists()
    assert output.with_name("merged.partial").exists()
    assert desk.session.unfinished is not None

    banner = window.banners.banner("merge")
    assert banner is not None
    assert [b.text() for b in banner.buttons()] == ["Go on", "Discard"]
    with qtbot.waitSignal(desk.jobs.finished, timeout=60_000):
        banner.buttons()[0].click()
    assert output.exists()
    assert not output.with_name("merged.partial").exists()
    assert desk.session.unfinished is None

    whole = tmp_path / "whole"
    merging.set_output(whole)
    with qtbot.waitSignal(desk.jobs.finished, timeout=60_000):
        merging.start()
    name = "model.safetensors"
    assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_discarding_removes_what_an_interrupted_merge_had_written(
    window: MainWindow, recipe: Recipe, tmp_path: Path, qtbot: QtBot
) -> None:
    desk, merging = window.desk, window.merging
    desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: desk.figures is not None, timeout=60_000)
    merging.set_output(tmp_path / "merged")

    def kill(job: object, progress: object) -> None:
        desk.jobs.progress.disconnect(kill)
        os.kill(desk.jobs.worker_pid, signal.SIGKILL)

    desk.jobs.progress.connect(kill)
    with qtbot.waitSignal(desk.jobs.failed, timeout=60_000):
        merging.start()
    banner = window.banners.banner("merge")
    assert banner is not None
    with qtbot.waitSignal(desk.jobs.finished, timeout=60_000):
        banner.buttons()[1].click()
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "merged.partial").exists()
    assert window.banners.banner("merge") is None


def test_a_window_that_leaves_during_a_merge_lets_the_next_one_go_on(
    window: MainWindow, recipe: Recipe, tmp_path: Path, qtbot: QtBot
) -> None:
    window.desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: window.desk.figures is not None, timeout=60_000)
    output = tmp_path / "merged"
    window.merging.set_output(output)
    with qtbot.waitSignal(window.desk.jobs.progress, timeout=60_000):
        window.merging.start()
    window.shut_down()
    assert not output.exists()

    following = MainWindow(Desk(Session(tmp_path / "config")))
    try:
        following.merging.offer_unfinished()
        banner = following.banners.banner("merge")
        assert banner is not None
        with qtbot.waitSignal(following.desk.jobs.finished, timeout=60_000):
            banner.buttons()[0].click()
        assert (output / "model.safetensors").exists()
    finally:
        following.shut_down()
        following.deleteLater()
