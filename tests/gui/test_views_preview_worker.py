"""The live preview with its real worker, on the demo's models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from trimtab.project.edits import set_ratio
from trimtab_gui import theme
from trimtab_gui.demo import demo_project
from trimtab_gui.desk import Desk
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session

WAIT_MS = 90_000


@pytest.fixture
def window(qapp: QApplication, tmp_path: Path) -> Iterator[MainWindow]:
    theme.apply(qapp, "dark")
    window = MainWindow(Desk(Session(tmp_path / "config")))
    window.resize(1480, 920)
    yield window
    window.shut_down()
    window.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def test_gauges_follow_the_hand_and_show_what_the_last_recipe_comes_to(
    window: MainWindow, qtbot: QtBot
) -> None:
    desk, bench = window.desk, window.workbench
    live = bench.pages.live
    shown: list[float] = []
    live.changed.connect(lambda: shown.append(bench.preview.refusal.value() or 0.0))
    window.show()
    desk.set_project(demo_project())
    desk.edit(set_ratio(desk.recipe, 0, 0.0))
    qtbot.waitUntil(lambda: live.state == "ready", timeout=WAIT_MS)

    def settled() -> bool:
        return live.answer is not None and live.answer.recipe == desk.recipe

    qtbot.waitUntil(settled, timeout=WAIT_MS)
    aligned = bench.preview.refusal.value()
    assert aligned is not None
    assert aligned > 90
    shown.clear()
    track = bench.method.ratios[0].track
    start = QPoint(round(track.handle_x()), track.height() // 2)
    QTest.mousePress(track, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    # to where the refusal is gone
    end = round(track.width() * 0.7)
    for x in range(start.x(), end, 4):
        QTest.mouseMove(track, QPoint(x, start.y()))
        qtbot.wait(16)
    QTest.mouseRelease(
        track, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(end, start.y())
    )
    seen = len(set(shown))
    qtbot.waitUntil(settled, timeout=WAIT_MS)
    assert seen > 3, "the gauge moved while the hand did"
    ratio = desk.recipe.finetuned[0].ratio
    assert ratio > 0.9
    refusal, answer = bench.preview.refusal.value(), live.answer
    assert refusal is not None
    assert answer is not None
    assert refusal < aligned - 30
    assert answer.finetuned is not None
    assert answer.finetuned["refusal_share"].n == 64
