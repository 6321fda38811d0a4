"""Starts sweeps, watches their folder while it grows, and loads what they found as an edit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe, parse_recipe
from trimtab.paths import cache_dir
from trimtab.project import Edit
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.jobs import Job
from trimtab_gui.notices import Notice

FILE = "sweep.json"
FORMAT = 1
TOPIC = "sweep"
_EVERY_MS = 500
_ENDED = ("done", "stopped", "failed")
Kind = Literal["trial", "front", "baseline"]


@dataclass(frozen=True)
class Objective:
    """A number that the search is after, and where it should go."""

    id: str
    title: str
    higher: bool


@dataclass(frozen=True)
class Point:
    """One recipe that was measured on the search's own prompts; `values` by objective.

    `recipe` is its text, empty where none is kept. `held_out` says in a sentence what prompts that
    the search never saw have shown, where they were asked.
    """

    kind: Kind
    number: int
    name: str
    values: Mapping[str, float]
    feasible: bool
    recipe: str
    held_out: str = ""


@dataclass(frozen=True)
class Sweep:
    """Where a sweep stands."""

    folder: Path
    status: str
    done: int
    wanted: int | None
    objectives: tuple[Objective, ...]
    points: tuple[Point, ...]
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come unless it is gone on with."""
        return self.status in _ENDED


def read_sweep(folder: Path) -> Sweep:
    """Read where the sweep of a folder stands. Raises `UserError` with `bad_sweep`."""
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("trimtab_sweep") != FORMAT:
            raise ValueError("it is not a sweep of this version")
        return _sweep(folder, data)
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(path, str(error)) from error


def _bad(path: Path, why: str) -> UserError:
    return UserError(
        "bad_sweep",
        f"{path.parent.name} holds no sweep that can be read.",
        f"The reader says of {path.name}: {why}.",
        "Choose the folder that 'trimtab sweep --output' wrote.",
        details=str(path),
    )


def _sweep(folder: Path, data: Mapping[str, Any]) -> Sweep:
    objectives = tuple(
        Objective(str(o["id"]), str(o["title"]), o["better"] == "higher")
        for o in data["objectives"]
    )
    front = {int(number) for number in data["front"]}
    held = data["held_out"] or {"points": []}
    told = {p["trial"]: str(p["sentence"]) for p in held["points"] if p["trial"] is not None}
    points = [
        _point("front" if p["number"] in front else "trial", p, told)
        for p in data["trials"]
        if p["state"] == "done"
    ]
    points += [_point("baseline", p, {}) for p in data["baselines"] if p["state"] == "done"]
    wanted = data["trials_wanted"]
    error = data["error"]
    return Sweep(
        folder,
        str(data["status"]),
        int(data["trials_done"]),
        None if wanted is None else int(wanted),
        objectives,
        tuple(points),
        "" if error is None else f"{error['what']} {error['why']}",
    )


def _point(kind: Kind, data: Mapping[str, Any], told: Mapping[int, str]) -> Point:
    values = {
        str(key): float(value)
        for key, value in data["values"].items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    number = int(data["number"]) if kind != "baseline" else -1
    return Point(
        kind, number, str(data["name"]), values, bool(data["feasible"]),
        str(data.get("recipe") or ""), told.get(number, ""),
    )  # fmt: skip


class Sweeping(QObject):
    """Starts sweeps and watches one; `changed` follows whatever is newly known of it."""

    changed = Signal()

    def __init__(self, desk: Desk, evaluating: Evaluating, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk, self._evaluating = desk, evaluating
        self._job: Job | None = None
        self.folder: Path | None = None
        self.sweep: Sweep | None = None
        self.error: UserError | None = None
        self._clock = QTimer(self)
        self._clock.setInterval(_EVERY_MS)
        self._clock.timeout.connect(self._look)
        desk.project_changed.connect(self.forget)
        desk.jobs.finished.connect(self._ended)
        desk.jobs.failed.connect(self._failed)
        desk.jobs.cancelled.connect(self._ended)

    # The job.

    @property
    def running(self) -> bool:
        """Whether a sweep that was started here is queued or under way."""
        return self._job is not None

    def obstacle(self) -> str | None:
        """Say why no sweep can be started now; None when one can."""
        if self._desk.lineup is None or not self._desk.recipe.finetuned:
            return self.tr("Open models first.")
        if self.running:
            return self.tr("A sweep is under way.")
        return None

    def start(self, sampler: str, trials: int) -> None:
        """Search around the open recipe with the suite and judge of the Evaluate place."""
        if self.obstacle() is not None:
            return
        folder = cache_dir() / "sweeps" / time.strftime("%Y%m%d-%H%M%S")
        params = {
            "output": str(folder), "recipe": self._desk.recipe.model_dump(mode="json"),
            "sampler": sampler, "trials": trials, "suite": self._evaluating.suite_name,
            "judge": self._evaluating.judge,
        }  # fmt: skip
        self._job = self._desk.jobs.submit("sweep", params, self.tr("Sweep"))
        self.folder, self.sweep, self.error = folder, None, None
        self._clock.start()
        self.changed.emit()

    def cancel(self) -> None:
        """End the sweep that was started here; what it has found is kept."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def _ended(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self._look()
            self.changed.emit()

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job = None
            self._missed(error)

    # What is watched.

    def watch(self, folder: Path) -> None:
        """Show a sweep's folder, and follow it until it ends."""
        self.folder, self.sweep, self.error = folder, None, None
        self._clock.start()
        self._look()
        self.changed.emit()

    def forget(self) -> None:
        """Watch nothing."""
        self.stop()
        self.cancel()
        self.folder = self.sweep = self.error = None
        self.changed.emit()

    def stop(self) -> None:
        """Look no more."""
        self._clock.stop()
        self._desk.background.forget(TOPIC)

    def _look(self) -> None:
        folder = self.folder
        if folder is not None:
            self._desk.background.submit(
                TOPIC, lambda: read_sweep(folder), self._found, self._missed
            )

    def _found(self, sweep: Sweep) -> None:
        if sweep.ended and not self.running:
            self._clock.stop()
        if sweep != self.sweep:
            self.sweep, self.error = sweep, None
            self.changed.emit()

    def _missed(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        if self.running:
            return  # it has not written anything yet
        self._clock.stop()
        self.error = error
        self.changed.emit()

    def load(self, point: Point) -> None:
        """Make a point's recipe the open one, as a step that can be undone."""
        if not point.recipe:
            return
        try:
            found = parse_recipe(point.recipe, point.name)
        except UserError as error:
            self._desk.notice.emit(Notice.of(error, topic=TOPIC))
            return
        assert self.folder is not None
        found, now = found.absolute(self.folder), self._desk.recipe
        if _models(found) != _models(now):
            self._desk.notice.emit(
                Notice(
                    "error",
                    self.tr("{name} cannot be loaded here.").format(name=point.name),
                    self.tr("That sweep was about other models."),
                    self.tr("Open its models, or the .trim files in its folder."),
                    topic=TOPIC,
                )
            )
            return
        self._desk.withdrawn.emit(TOPIC)
        after = found.model_copy(update={"output": now.output})
        self._desk.edit(Edit(self.tr("Load {name}").format(name=point.name), now, after))


def _models(recipe: Recipe) -> tuple[str | None, ...]:
    return (
        recipe.base.path if recipe.base is not None else None,
        recipe.aligned.path if recipe.aligned is not None else None,
        *(model.path for model in recipe.finetuned),
    )
