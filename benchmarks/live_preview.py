"""How long after a slider moved a gauge is painted that shows it: the real window and worker."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEvent, QEventLoop, QPoint, Qt, QTimer
from PySide6.QtGui import QPaintEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from trimtab.errors import UserError
from trimtab_gui import theme
from trimtab_gui.demo import demo_project
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session
from trimtab_gui.widgets import Gauge

LIMIT_MS = 150.0
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
            end = begun + pause_s
            clock.wait_until(lambda end=end: time.perf_counter() >= end)  # type: ignore[misc]
    clock.wait_until(lambda: not clock.waiting)
    QTest.mouseRelease(track, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[-1])


def percentiles(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "n": len(values)}


def measure(count: int, scratch: Path) -> dict[str, Any]:
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme.apply(app, "dark")
    begun = time.perf_counter()
    # what is kept between runs must not make this one quicker, nor this one the next
    os.environ["TRIMTAB_CACHE_DIR"] = str(scratch / "cache")
    window, clock = opened(scratch / "config")
    first = time.perf_counter() - begun
    report: dict[str, Any] = {"from_opening_to_gauge_s": round(first, 2)}
    for name, pause in (("step by step", None), ("60 moves a second", 1 / 60)):
        clock.latencies, clock.answers = [], []
        drag(window, clock, count, pause)
        parts = {
            part: percentiles([answer["milliseconds"][part] for answer in clock.answers])
            for part in ("plan", "merge", "measure", "all")
        }
        report[name] = {"ms": percentiles(clock.latencies), "worker_ms": parts}
    probes = clock.answers[-1]["probes"]
    report |= {"probes": [probes["harmful"], probes["task"]], "device": clock.answers[-1]["device"]}
    window.shut_down()
    window.deleteLater()
    app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=150, help="slider events of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-live-") as scratch:
        report = measure(asked.moves, Path(scratch))
    kinds = ("step by step", "60 moves a second")
    kept = all(report[kind]["ms"]["p95"] <= LIMIT_MS for kind in kinds)
    if asked.json:
        print(json.dumps({**report, "limit_ms": LIMIT_MS, "kept": kept}))
        return 0 if kept else 1
    harmful, task = report["probes"]
    print(
        f"demo lineup, {harmful} + {task} probes, {report['device']}, {os.cpu_count()} cores; "
        f"from opening to the first gauge {report['from_opening_to_gauge_s']} s"
    )
    for kind in kinds:
        ms, parts = report[kind]["ms"], report[kind]["worker_ms"]
        print(f"{kind:18} p50 {ms['p50']:6.1f} ms  p95 {ms['p95']:6.1f} ms  ({ms['n']} moves)")
        spent = "  ".join(f"{part} {value['p50']:.1f}" for part, value in parts.items())
        print(f"{'':18} in the worker, median ms: {spent}")
    print(f"limit for p95: {LIMIT_MS:g} ms, {'kept' if kept else 'missed'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
