"""Moves a slider of the real window and notes when a gauge is painted that shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEvent, QEventLoop, QPoint, Qt, QTimer
from PySide6.QtGui import QPaintEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from measuring import percentiles
from trimtab.errors import UserError
from trimtab_gui import theme
from trimtab_gui.demo import demo_project
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session
from trimtab_gui.widgets import Gauge

SIZE = (1480, 920)
_PATIENCE_S = 120.0


class Clock:
    """Notes when the slider was moved, and when a gauge has been painted that shows it."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        self._open: list[tuple[float, float]] = []
        self.latencies: list[float] = []
        self.answers: list[dict[str, Any]] = []
        self._failures: list[str] = []
        window.desk.jobs.finished.connect(self._finished)
        window.desk.jobs.failed.connect(self._failed)

    def _finished(self, job: Job, result: dict[str, Any]) -> None:
        if job.name == "preview":
            self.answers.append(result)

    def _failed(self, job: Job, error: UserError) -> None:
        self._failures.append(f"{job.name}: {error}")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the window work until the condition holds; leaves where a job fails."""
        end = time.monotonic() + _PATIENCE_S
        loop, look = QEventLoop(), QTimer()
        # the loop sleeps between events, as that of a window does: polling would take a core
        look.timeout.connect(lambda: loop.quit() if condition() or self._failures else None)
        look.start(2)
        while not condition():
            if self._failures or time.monotonic() > end:
                raise SystemExit(" ".join(self._failures) or "the window did not answer")
            loop.exec()

    def moved(self, begun: float) -> None:
        """Note that the slider was moved at `begun`, by an event that is worked off by now."""
        self._open.append((begun, self._window.desk.recipe.finetuned[0].ratio))

    @property
    def waiting(self) -> bool:
        """Whether a move is not shown yet."""
        return bool(self._open)

    def painted(self) -> None:
        """Note that the gauge has been painted."""
        answer = self._window.workbench.pages.live.answer
        if answer is None:
            return
        ratio, now = answer.recipe.finetuned[0].ratio, time.perf_counter()
        shown = [i for i, (_, wanted) in enumerate(self._open) if wanted == ratio]
        if shown:
            # what came before was overtaken: a later place is shown instead of its own
            done, self._open = self._open[: shown[-1] + 1], self._open[shown[-1] + 1 :]
            self.latencies += [1000 * (now - begun) for begun, _ in done]


def watch(window: MainWindow) -> Clock:
    """Return a clock that is told of every painting of the window's refusal gauge."""
    clock = Clock(window)
    gauge = window.workbench.preview.refusal
    paint = Gauge.paintEvent

    def painted(self: Gauge, event: QPaintEvent) -> None:
        paint(self, event)
        if self is gauge:
            clock.painted()

    # Qt looks the method up in the class, so that is where it has to be replaced
    Gauge.paintEvent = painted  # type: ignore[method-assign]
    # a gauge whose number stays the same would not be painted again
    window.workbench.pages.live.changed.connect(gauge.update)
    return clock


def opened(config: Path) -> tuple[MainWindow, Clock]:
    desk = Desk(Session(config))
    window = MainWindow(desk)
    # before anything is painted: what Qt calls is looked up at the first time
    clock = watch(window)
    window.resize(*SIZE)
    window.show()
    desk.set_project(demo_project())
    clock.wait_until(lambda: desk.figures is not None)
    live = window.workbench.pages.live
    clock.wait_until(lambda: live.state == "ready" and desk.jobs.current is None)
    return window, clock


def positions(window: MainWindow, count: int) -> list[QPoint]:
    track = window.workbench.method.ratios[0].track
    phase = np.linspace(0, 6 * np.pi, count)
    xs = track.width() / 2 + 0.4 * track.width() * np.sin(phase)
    return [QPoint(round(x), track.height() // 2) for x in xs]


def _is_past(moment: float) -> bool:
    return time.perf_counter() >= moment


def drag(window: MainWindow, clock: Clock, count: int, pause_s: float | None) -> None:
    """Move the slider `count` times: every `pause_s`, or each time when the last was painted."""
    track = window.workbench.method.ratios[0].track
    places = positions(window, count)
    QTest.mousePress(track, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[0])
    clock.wait_until(lambda: window.desk.jobs.current is None and not window.desk.jobs.pending)
    for place in places:
        before = window.desk.recipe
        begun = time.perf_counter()
        QTest.mouseMove(track, place)
        if window.desk.recipe is not before:
            clock.moved(begun)
        if pause_s is None:
            clock.wait_until(lambda: not clock.waiting)
        else:
            clock.wait_until(partial(_is_past, begun + pause_s))
    clock.wait_until(lambda: not clock.waiting)
    QTest.mouseRelease(track, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[-1])


def parts_of(answers: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    parts = ("plan", "merge", "measure", "all")
    return {part: percentiles([a["milliseconds"][part] for a in answers]) for part in parts}


def measure(count: int, scratch: Path) -> dict[str, Any]:
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme.apply(app, "dark")
    begun = time.perf_counter()
    # what is kept between runs must not make this one quicker, nor this one the next
    os.environ["TRIMTAB_CACHE_DIR"] = str(scratch / "cache")
    window, clock = opened(scratch / "config")
    first = time.perf_counter() - begun
    kinds: dict[str, Any] = {}
    for name, pause in (("step by step", None), ("60 moves a second", 1 / 60)):
        clock.latencies, clock.answers = [], []
        drag(window, clock, count, pause)
        kinds[name] = {"ms": percentiles(clock.latencies), "worker_ms": parts_of(clock.answers)}
    probes, device = clock.answers[-1]["probes"], clock.answers[-1]["device"]
    window.shut_down()
    window.deleteLater()
    app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    return {
        "lineup": "demo lineup",
        "first": "from opening to the first gauge",
        "first_s": round(first, 2),
        "kinds": kinds,
        "probes": [probes["harmful"], probes["task"]],
        "device": device,
    }
