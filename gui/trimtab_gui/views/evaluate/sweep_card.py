"""The card of a search: what it has tried so far, and the front, whose points can be loaded."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSize, Signal
from PySide6.QtWidgets import QFileDialog

from trimtab.search.objectives import NUMBERS
from trimtab_gui.desk import Desk
from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.front import FrontPlot, Spot
from trimtab_gui.sweeping import Objective, Point, Sweep, Sweeping
from trimtab_gui.widgets import Choice, quiet_button

SAMPLERS = {
    "nsga2": "NSGA-II", "tpe": "TPE", "cmaes": "CMA-ES", "random": "Random", "grid": "Grid",
}  # fmt: skip
TRIALS = (30, 60, 120, 300)


class SweepCard(PlotCard):
    """``switched`` asks for the other card in this place."""

    switched = Signal()

    def __init__(self, desk: Desk, sweeping: Sweeping) -> None:
        super().__init__("")
        self.set_title(self.tr("Sweep"))
        self._desk, self._sweeping = desk, sweeping
        self.plot = FrontPlot()
        self.plot.spot_chosen.connect(self._chosen)
        self.against = Choice()
        self.against.setAccessibleName(self.tr("Second objective"))
        self.against.activated.connect(self._draw)
        self.sampler, self.trials = Choice(), Choice()
        self.sampler.setAccessibleName(self.tr("How the search goes on"))
        self.trials.setAccessibleName(self.tr("How many trials"))
        for key, name in SAMPLERS.items():
            self.sampler.addItem(name, key)
        for count in TRIALS:
            self.trials.addItem(self.tr("{n} trials").format(n=count), count)
        self.trials.setCurrentIndex(1)
        self.run = quiet_button("play", self.tr("Start a sweep around the open recipe"))
        self.run.clicked.connect(self.start)
        self.end = quiet_button("stop", self.tr("End the sweep; what it found is kept"))
        self.end.clicked.connect(sweeping.cancel)
        for button in (self.run, self.end):
            button.setIconSize(QSize(15, 15))
        self.open = quiet_button("folder-open-outline", self.tr("Open a sweep’s folder"))
        self.open.setIconSize(QSize(15, 15))
        self.open.clicked.connect(self.choose_folder)
        switch = quiet_button("shield-check-outline", self.tr("Show what was evaluated"))
        switch.setIconSize(QSize(15, 15))
        switch.clicked.connect(self.switched)
        for box in (self.sampler, self.trials, self.against):
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(4)
            box.setMaximumWidth(86)
        for widget in (self.sampler, self.trials, self.against, self.run, self.end, self.open,
                       switch):  # fmt: skip
            self.header_layout.addWidget(widget)
        self.set_body(self.plot)
        self.set_formula(
            self.tr("Pareto front"),
            self.tr("In violet the trials that no other beats in one objective without losing in "
                    "another; in grey the others, hollow where they break a constraint; diamonds "
                    "are baselines. All on the search’s own prompts: whether a point holds on "
                    "prompts that the search never saw is said under it, where it was measured."),
            self.tr("no trial is at least as good in all and better in one"),
            self.tr("percent, where an objective is a share"),
            "Deb et al. 2002, doi 10.1109/4235.996017",
        )  # fmt: skip
        sweeping.changed.connect(self.refresh)
        desk.lineup_changed.connect(self.refresh)
        self.refresh()

    def start(self) -> None:
        """Start a sweep as it is chosen above."""
        self._sweeping.start(str(self.sampler.currentData()), int(self.trials.currentData()))

    def choose_folder(self) -> None:
        """Ask for the folder of a sweep."""
        start = str(self._desk.session.get("sweeps", str(Path.home())))
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Open a sweep"), start)
        if chosen:
            self._desk.session.set("sweeps", str(Path(chosen).parent))
            self._sweeping.watch(Path(chosen))

    def refresh(self) -> None:
        """Show what is known of the sweep."""
        sweep, error = self._sweeping.sweep, self._sweeping.error
        obstacle, running = self._sweeping.obstacle(), self._sweeping.running
        again = None if obstacle else (self.tr("Start sweep"), self.start)
        self.against.setVisible(sweep is not None and len(sweep.objectives) > 2)
        self.sampler.setVisible(sweep is None and not running)
        self.trials.setVisible(sweep is None and not running)
        self.run.setVisible(not running and sweep is not None)
        self.run.setEnabled(obstacle is None)
        self.end.setVisible(running)
        if error is not None:
            self.set_state("error", f"{error.what} {error.why}\n{error.fix}", again)
        elif self._sweeping.folder is None:
            self.set_state(
                "empty",
                self.tr("The best trade-offs that a search around the open recipe finds, as it "
                        "finds them."),
                again,
            )  # fmt: skip
        elif sweep is None or not sweep.points:
            problem = sweep.problem if sweep is not None else ""
            if problem:
                self.set_state("error", problem, again)
            else:
                self.set_state("loading", self.tr("Waiting for the first trial …"))
        else:
            self._offer(sweep)
            self.set_state("ready")
            self._draw()

    def _where(self, sweep: Sweep) -> str:
        words = {
            "baselines": self.tr("baselines first"), "searching": self.tr("searching"),
            "held-out": self.tr("asking held-out prompts"), "done": self.tr("done"),
            "stopped": self.tr("stopped"), "failed": self.tr("failed"),
        }  # fmt: skip
        count = (
            self.tr("{n} trials").format(n=sweep.done) if sweep.wanted is None
            else self.tr("{n} of {all} trials").format(n=sweep.done, all=sweep.wanted)
        )  # fmt: skip
        return f"{count} · {words.get(sweep.status, sweep.status)}"

    def _offer(self, sweep: Sweep) -> None:
        names = [o.id for o in sweep.objectives[1:]]
        if [self.against.itemData(i) for i in range(self.against.count())] != names:
            self.against.clear()
            for objective in sweep.objectives[1:]:
                self.against.addItem(objective.title, objective.id)
            # the task tells more than over-refusal, which is often the same everywhere
            self.against.setCurrentIndex(max(self.against.findData("task"), 0))

    def _draw(self) -> None:
        sweep = self._sweeping.sweep
        if sweep is None or not sweep.objectives:
            return
        first = sweep.objectives[0]
        second = next(
            (o for o in sweep.objectives if o.id == self.against.currentData()), first
        )  # fmt: skip
        roles = {"aligned": "aligned", "base": "base"}
        roles |= {self._desk.name(i): "finetuned" for i in range(len(self._desk.recipe.finetuned))}
        spots = [
            _spot(key, point, first, second, roles.get(point.name, ""))
            for key, point in enumerate(sweep.points)
            if first.id in point.values and second.id in point.values
        ]
        shares = _is_share(first), _is_share(second)
        self.plot.set_data(spots, _label(first), _label(second), shares, self._where(sweep))
        front = [i for i, spot in enumerate(spots) if spot.kind == "front"]
        self.plot.set_summary(
            self.tr("{n} points, {front} on the front: ").format(n=len(spots), front=len(front))
            + "; ".join(self.plot.reading(i).replace("\n", ", ") for i in front)
        )

    def _chosen(self, key: int) -> None:
        sweep = self._sweeping.sweep
        if sweep is not None and key < len(sweep.points):
            self._sweeping.load(sweep.points[key])


def _is_share(objective: Objective) -> bool:
    known = NUMBERS.get(objective.id)
    return known is not None and known.paired


def _label(objective: Objective) -> str:
    name = objective.title.lower()
    arrow = "↑" if objective.higher else "↓"  # the way to go
    return f"{arrow} {name}, percent" if _is_share(objective) else f"{arrow} {name}"


def _spot(key: int, point: Point, first: Objective, second: Objective, role: str) -> Spot:
    x, y = (
        point.values[o.id] * (100.0 if _is_share(o) else 1.0) for o in (first, second)
    )  # fmt: skip
    return Spot(
        key, point.name, x, y, point.kind, role, point.feasible, bool(point.recipe), point.held_out
    )
