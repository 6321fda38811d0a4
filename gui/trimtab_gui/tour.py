"""Walks through the demo by itself and takes pictures of the real window on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.demo.recipe import DEMO_CURVE
from trimtab.errors import UserError
from trimtab.jobs.protocol import Progress
from trimtab.project.edits import set_layer_ratios, set_ratio
from trimtab_gui.figures import Figures
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.selection import Selection

SIZE = (1480, 920)
_SETTLE_MS = 250
_LIMIT_MS = 120_000


class Tour(QObject):
    """`finished(code)` comes once: 0 when every picture was taken and the merge was saved."""

    finished = Signal(int)

    def __init__(self, window: MainWindow, folder: Path, output: Path) -> None:
        super().__init__(window)
        self._window = window
        self._folder = folder.absolute()
        self._output = output.absolute()
        self._over = False
        self._limit = QTimer(self)
        self._limit.setSingleShot(True)
        self._limit.timeout.connect(lambda: self._fail("the tour took too long"))
        window.desk.jobs.failed.connect(self._job_failed)

    def start(self) -> None:
        """Begin with the welcome page."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._limit.start(_LIMIT_MS)
        self._window.resize(*SIZE)
        self._window.set_theme("dark")
        self._window.desk.ask_devices()
        self._then(self._welcome)

    def _then(self, step: Callable[[], None], delay: int = _SETTLE_MS) -> None:
        QTimer.singleShot(delay, self, lambda: None if self._over else step())

    def _take(self, name: str) -> None:
        path = self._folder / name
        if not self._window.grab().save(str(path)):
            self._fail(f"{path} could not be written")

    def _welcome(self) -> None:
        self._take("welcome-dark.png")
        self._window.documents.open_demo()
        self._wait_for_figures()

    def _wait_for_figures(self) -> None:
        if self._window.desk.figures is None:
            self._then(self._wait_for_figures, 50)
        else:
            self._then(self._workbench)

    def _workbench(self) -> None:
        self._take("workbench-dark.png")
        self._window.set_theme("light")
        self._then(self._light)

    def _light(self) -> None:
        self._take("workbench-light.png")
        self._window.set_theme("dark")
        figures = self._window.desk.figures
        assert figures is not None
        columns = len(figures.grid.columns)
        self._select(figures, columns // 3, max(columns // 3, 2 * columns // 3 - 1))
        self._then(self._selection)

    def _select(self, figures: Figures, low: int, high: int) -> None:
        cells = figures.grid.cells[:, low : high + 1]
        groups = tuple(int(g) for g in np.unique(cells) if g >= 0)
        rows = (0, len(figures.grid.rows) - 1)
        self._window.desk.selection.select(Selection(groups, rows, (low, high)), None)

    def _selection(self) -> None:
        self._take("workbench-selection.png")
        desk, figures = self._window.desk, self._window.desk.figures
        assert figures is not None
        desk.edit(set_ratio(desk.recipe, 0, 1.0))
        desk.edit(set_layer_ratios(desk.recipe, 0, DEMO_CURVE))
        columns = [figures.grid.columns.index(str(layer)) for layer in DEMO_CURVE]
        self._select(figures, min(columns), max(columns))
        self._then(self._curve)

    def _curve(self) -> None:
        self._take("workbench-curve.png")
        self._window.desk.selection.clear()
        for _ in range(2):
            self._window.desk.history.undo()
        merging = self._window.merging
        merging.set_output(self._output)
        reason = merging.obstacle()
        if reason is not None:
            self._fail(reason)
            return
        self._window.desk.jobs.finished.connect(self._job_finished)
        self._window.desk.jobs.progress.connect(self._merge_moved)
        merging.start(overwrite=True)
        self._then(self._merging, 0)

    def _merging(self) -> None:
        job = self._window.desk.jobs.current
        if job is None or job.name != "merge":
            self._then(self._merging, 1)
            return
        # the demo merges faster than the bar's delay: the picture needs it at once
        self._window.job_display.show_now()
        self._take("merging.png")

    def _merge_moved(self, job: Job, progress: Progress) -> None:
        if job.name == "merge" and 0 < progress.done < progress.total:
            self._take("merging.png")

    def _job_finished(self, job: Job) -> None:
        if job.name == "merge":
            self._then(self._merged)

    def _merged(self) -> None:
        self._take("merged.png")
        if not (self._output / "config.json").exists():
            self._fail(f"{self._output} holds no model")
            return
        self._end(0)

    def _job_failed(self, job: Job, error: UserError) -> None:
        if job.name != "devices":
            self._fail(f"{job.title}: {error}")

    def _fail(self, why: str) -> None:
        print(f"trimtab-gui --tour: {why}", file=sys.stderr)  # noqa: T201
        self._end(1)

    def _end(self, code: int) -> None:
        if not self._over:
            self._over = True
            self._limit.stop()
            self.finished.emit(code)
