"""Runs evaluations from the window: what is asked of whom, what is set before, what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.evaluation.coverage import Coverage, coverage
from trimtab.evaluation.suite import PromptKind, Suite
from trimtab.merging.recipe import Recipe
from trimtab_gui.bounds import keep_bounds, load_bounds, with_bound
from trimtab_gui.desk import Desk
from trimtab_gui.evaluation_facts import Comparison, Facts, TargetFacts
from trimtab_gui.jobs import Job
from trimtab_gui.notices import Notice
from trimtab_gui.suites import Suites

TOPIC = "evaluate"
JUDGES = ("phrases", "keywords-29", "demo")
State = Literal["empty", "ready", "loading", "filled", "error"]
#: "controls" are what the merge has to be better than, and are no model of the lineup
Choice = Literal["base", "aligned", "finetuned", "merged", "controls"]


class Evaluating(QObject):
    """The choices of the Evaluate place and its last results, a file for each suite.

    `changed` follows every choice and every change of state, `results_changed` new results or
    none or those of another suite shown, `pair_changed` another comparison.
    """

    changed = Signal()
    results_changed = Signal()
    pair_changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._job: Job | None = None
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self.asking = ""  # the suite that is being asked
        self._next: Recipe | None = None
        self._fresh = False
        self._off: set[Choice] = {"base"}
        self._eager = False
        self._demo = False
        self.suites = Suites(desk, self)
        self.judge = "phrases"
        self.bounds = load_bounds(desk.session)
        self.found: dict[str, Facts] = {}
        self.shown = ""
        self._covered: Coverage | None = None
        self.asked: Recipe | None = None
        self.error: UserError | None = None
        self.pair: tuple[str, str] | None = None
        self.comparison: Comparison | None = None
        self.suites.changed.connect(self._suites_changed)
        desk.project_changed.connect(self._forget)
        desk.recipe_changed.connect(self.changed)
        desk.lineup_changed.connect(self.changed)
        desk.state_changed.connect(self._notice_demo)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._failed)
        desk.jobs.cancelled.connect(self._cancelled)
        self._forget()
        self._notice_demo()

    # Targets.

    @property
    def targets(self) -> list[Choice]:
        """What can be asked, in the order of the lineup; the controls come last."""
        recipe = self._desk.recipe
        found: list[Choice] = []
        found += ["base"] if recipe.base is not None else []
        found += ["aligned"] if recipe.aligned is not None else []
        found += ["finetuned", "merged", "controls"] if recipe.finetuned else []
        return found

    @property
    def masked(self) -> bool:
        """Whether the recipe has a mask, which a random one can be drawn like."""
        return any(model.masked for model in self._desk.recipe.finetuned)

    def is_on(self, choice: Choice) -> bool:
        """Whether a target is asked."""
        return choice in self.targets and choice not in self._off

    def switch(self, choice: Choice, on: bool) -> None:
        """Ask a target, or do not."""
        if on == (choice in self._off):
            (self._off.discard if on else self._off.add)(choice)
            self.changed.emit()

    @property
    def count(self) -> int:
        """How many models are asked."""
        several = {"finetuned": len(self._desk.recipe.finetuned), "controls": 1 + self.masked}
        return sum(several.get(c, 1) for c in self.targets if self.is_on(c))

    # Suites.

    def _suites_changed(self) -> None:
        self.changed.emit()
        if self._eager and not self.suites.loading:
            self.start()

    @property
    def suite(self) -> Suite | None:
        """The first of the chosen suites, for those who want one; None until it is read."""
        return next(iter(self.suites.ready), None)

    @property
    def suite_name(self) -> str:
        """The name of the first of the chosen suites."""
        return next(iter(self.suites.chosen), "core")

    @property
    def counts(self) -> dict[PromptKind, int]:
        """How many prompts of each kind are asked, within the limit."""
        return self.suites.counts

    @property
    def coverage(self) -> Coverage:
        """What was asked about in all suites; before there are results, what would be."""
        return self.suites.coverage if self._covered is None else self._covered

    def choose_judge(self, name: str) -> None:
        """Take another judge."""
        self.judge = name
        self.changed.emit()

    # Thresholds.

    def set_bound(self, metric: str, limit: float | None) -> None:
        """Bound a metric; what has been run keeps the bounds it was started with."""
        self.bounds = with_bound(self.bounds, metric, limit)
        keep_bounds(self._desk.session, self.bounds)
        self.changed.emit()

    @property
    def examined(self) -> TargetFacts | None:
        """The target whose thresholds are shown: the merge, else the last one of the lineup."""
        return None if self.facts is None else self.facts.examined

    @property
    def judged_bounds(self) -> bool:
        """Whether the thresholds as they stand are those that the results were asked under."""
        return self.facts is not None and (
            set(self.facts.results.thresholds.bounds) == set(self.bounds.bounds)
        )

    # The run.

    @property
    def running(self) -> bool:
        """Whether an evaluation is queued or under way."""
        return bool(self.asking)

    @property
    def state(self) -> State:
        """Where the place stands."""
        if self.running:
            return "loading"
        if self.error is not None:
            return "error"
        if self.found:
            return "filled"
        return "ready" if self.obstacle() is None else "empty"

    @property
    def outdated(self) -> bool:
        """Whether the recipe is another than the one that was measured."""
        return self.asked is not None and self.asked != self._desk.recipe

    def obstacle(self) -> str | None:
        """Say why nothing can be asked now; None when it can."""
        if self._desk.lineup is None:
            return self.tr("Open models first.")
        if self.running:
            return self.tr("An evaluation is under way.")
        if not self.count:
            return self.tr("Choose a target.")
        suites = self.suites
        if not suites.chosen or suites.loading or suites.error is not None:
            return self.tr("Choose a suite of prompts.")
        if not all(any(k != "text" for k in suites.counts_of(name)) for name in suites.chosen):
            return self.tr("This suite asks nothing.")
        return None

    def seconds_expected(self) -> float | None:
        """Return how long the run may take by the last one's speed; None when none was measured."""
        rate = self._desk.session.get("evaluate rate")
        if not isinstance(rate, int | float) or rate <= 0:
            return None
        return self.count * sum(self.counts.values()) / rate

    def start(self) -> None:
        """Ask every chosen target every prompt of every chosen suite, as the recipe now stands."""
        self._eager = self.suites.loading
        if self._eager or self.obstacle() is not None:
            return  # an eager one begins when the prompts are read
        self.error = None
        self._next, self._fresh = self._desk.recipe, True
        # all that is asked is fixed now, however many suites wait
        self._waiting = [(name, self.params(name)) for name in self.suites.chosen]
        self._desk.withdrawn.emit(TOPIC)
        self._go_on()

    def _go_on(self) -> None:
        """Ask the next suite: each is a job of its own, so that what one found is never lost."""
        self.asking = ""
        if self._waiting:
            only = self._fresh and len(self._waiting) == 1
            self.asking, params = self._waiting.pop(0)
            on = self.tr("Evaluating on {suite}").format(suite=self.suites.title(self.asking))
            title = self.tr("Evaluating") if only else on
            self._job = self._desk.jobs.submit("evaluate", params, title)
        self.changed.emit()

    def stop(self) -> None:
        """Give the evaluation up; what other suites found stays."""
        self._waiting = []
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def params(self, suite: str) -> dict[str, Any]:
        """Return what the job is told of one suite."""
        return {
            "recipes": {"merged": self._desk.recipe.model_dump(mode="json")},
            "roles": [c for c in self.targets if c != "controls" and self.is_on(c)],
            "controls": self.is_on("controls"),
            "suite": suite,
            "judges": [self.judge],
            "limit": self.suites.limit,
            "thresholds": [str(bound) for bound in self.bounds.bounds],
            "thresholds_set": self.bounds.set_at,
            "thresholds_source": self.bounds.source,
        }

    def _finished(self, job: Job, result: Mapping[str, Any], seconds: float) -> None:
        if job is self._job:
            self._job = None
            self.load(Path(result["path"]), self.asking, seconds)

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._end(error)

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self._job, self.asking, self._waiting = None, "", []
        if error is not None and not isinstance(error, UserError):
            raise error
        self.error = error
        if error is not None and self.found:  # else the card in the middle says it
            again = ((self.tr("Try again"), self.start),)
            self._desk.notice.emit(Notice.of(error, again, topic=TOPIC))
        self.changed.emit()

    # Results.

    @property
    def facts(self) -> Facts | None:
        """The results that are shown: those of one suite."""
        return self.found.get(self.shown)

    @property
    def shown_title(self) -> str:
        """The suite that the shown results are of, where there are those of several."""
        return self.suites.title(self.shown) if len(self.found) > 1 else ""

    def show_suite(self, name: str) -> None:
        """Show what another suite found."""
        if name in self.found and name != self.shown:
            self.shown = name
            self._show()

    def load(self, path: Path, suite: str, seconds: float = 0.0) -> None:
        """Read the results file of a suite elsewhere, show it, and go on with the next suite.

        `seconds` it took tell how long the next run may take, where all answers were new.
        """

        def done(facts: Facts) -> None:
            if seconds > 0 and not any(target.info.cached for target in facts.targets):
                prompts = len(facts.results.suite.prompts) * len(facts.targets)
                self._desk.session.set("evaluate rate", prompts / seconds)
            if self._fresh:
                self.found, self.shown = {}, suite
                self.asked, self._fresh = self._next, False
            self.found[suite] = facts
            asked = [facts.results.suite for facts in self.found.values()]
            self._covered = coverage(prompt for suite in asked for prompt in suite.prompts)
            self.error = None
            if self.shown == suite:
                self._show()
            else:
                self.results_changed.emit()
            self._go_on()

        self._desk.background.submit("evaluation", lambda: Facts.load(path), done, self._end)
        self.changed.emit()

    def _show(self) -> None:
        self.pair = self.comparison = None
        self.results_changed.emit()
        if self.facts is not None and self.facts.usual_pair is not None:
            self.compare(*self.facts.usual_pair)
        self.changed.emit()

    def compare(self, before: str, after: str) -> None:
        """Compare two targets, prompt by prompt; worked out elsewhere."""
        facts = self.facts
        if facts is None:
            return

        def done(found: Comparison) -> None:
            self.comparison = found
            self.pair_changed.emit()

        def failed(error: Exception) -> None:
            raise error

        self.pair, self.comparison = (before, after), None
        self.pair_changed.emit()
        self._desk.background.submit(
            "comparison", lambda: facts.compare(before, after), done, failed
        )

    def _forget(self) -> None:
        """Another project: nothing measured so far is about it."""
        for topic in ("evaluation", "comparison"):
            self._desk.background.forget(topic)
        job, self._job = self._job, None
        self.asking, self._waiting = "", []
        if job is not None:
            self._desk.jobs.cancel(job)
        self.asked = self.error = None
        self._eager = False
        self._off = {"base"}
        self.found, self.shown, self._covered = {}, "", None
        self._show()
        self._demo = False
        if not self.suites.ready:
            self.suites.choose(self.suite_name)

    def _notice_demo(self) -> None:
        """The demo's models speak an invented language: only its own suite and judge read it."""
        if self._desk.is_demo != self._demo:
            self._demo = self._desk.is_demo
            self.judge = "demo" if self._demo else "phrases"
            self.suites.choose("demo" if self._demo else "core")
