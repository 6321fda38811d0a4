"""Walks through the demo by itself and takes pictures of the real window on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PySide6.QtCore import QObject, QPoint, QTimer, Signal
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QWidget

from trimtab.demo.recipe import DEMO_CURVE
from trimtab.errors import UserError
from trimtab.jobs.protocol import Progress
from trimtab.project.edits import set_layer_ratios, set_method, set_ratio
from trimtab_gui import theme
from trimtab_gui.figures import Figures
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.selection import Selection

SIZE = (1480, 920)
#: prompts of each kind that the tour asks: enough to fill the plots, and quick
EVALUATED = 64
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

    def _take(self, name: str, above: QWidget | None = None, corner: QPoint | None = None) -> None:
        """Save the window, with what is open `above` it in the middle or at `corner`.

        Not where it is on the screen: that of a machine without one is smaller than the window.
        """
        path = self._folder / name
        picture = self._window.grab()
        if above is not None:
            painter = QPainter(picture)
            if corner is None:
                corner = self._window.rect().center() - above.rect().center()
                painter.fillRect(self._window.rect(), QColor(0, 0, 0, 90))
            painter.drawPixmap(corner, above.grab())
            painter.setPen(theme.color("line"))
            painter.drawRect(above.rect().translated(corner).adjusted(0, 0, -1, -1))
            painter.end()
        if not picture.save(str(path)):
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
        desk = self._window.desk
        desk.selection.clear()
        desk.edit(set_method(desk.recipe, "ties"))
        self._window.workbench.method.rows["density"].fold.setChecked(True)
        self._then(self._method)

    def _method(self) -> None:
        self._take("workbench-ties.png")
        self._window.workbench.method.method.open()
        self._then(self._chooser)

    def _chooser(self) -> None:
        button = self._window.workbench.method.method
        popup = button.popup
        if popup is not None:
            below = button.mapTo(self._window, QPoint(button.width(), button.height() + 4))
            self._take("methods.png", popup, below - QPoint(popup.width(), 0))
            popup.close()
        self._window.actions_.run("plan")
        self._then(self._plan)

    def _plan(self) -> None:
        sheet = self._window.planning.sheet
        if sheet is not None and not sheet.facts and sheet.problem.isHidden():
            self._then(self._plan, 50)
        elif sheet is None or not sheet.facts:
            self._fail("there is no plan")
        else:
            self._then(self._planned)

    def _planned(self) -> None:
        sheet = self._window.planning.sheet
        if sheet is not None:
            self._take("plan.png", sheet)
            sheet.close()
        for _ in range(3):
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
        self._window.places.go("evaluate")
        self._then(self._evaluate)

    def _evaluate(self) -> None:
        evaluating = self._window.evaluating
        if evaluating.suite is None:
            self._then(self._evaluate, 50)
            return
        self._take("evaluate-empty.png")
        evaluating.suites.set_limit(EVALUATED)
        evaluating.results_changed.connect(lambda: self._then(self._evaluated))
        self._window.actions_.run("evaluate")

    def _evaluated(self) -> None:
        self._take("evaluate-dark.png")
        self._end(0)

    def _job_failed(self, job: Job, error: UserError) -> None:
        if job.name not in ("devices", "methods"):
            self._fail(f"{job.title}: {error}")

    def _fail(self, why: str) -> None:
        print(f"trimtab-gui --tour: {why}", file=sys.stderr)  # noqa: T201
        self._end(1)

    def _end(self, code: int) -> None:
        if not self._over:
            self._over = True
            self._limit.stop()
            self.finished.emit(code)
