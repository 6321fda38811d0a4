"""Where a sweep stands, for whoever watches: `sweep.json`, the table of trials, and the front."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trimtab.merging.recipe import Recipe
from trimtab.search.objectives import Number, described, front_of, gains, hypervolume
from trimtab.search.space import Dimension
from trimtab.search.spec import to_json, write_whole

BOARD = "sweep.json"
TABLE = "trials.csv"
#: least seconds between two writings while trials come fast
_PAUSE = 0.25
Point = dict[str, Any]


@dataclass
class Board:
    """Writes what a sweep has come to into its folder.

    `head` is what does not change, `recipe_of` makes the recipe of a trial's point.
    """

    folder: Path
    objectives: tuple[Number, ...]
    dimensions: tuple[Dimension, ...]
    head: dict[str, Any]
    recipe_of: Callable[[Mapping[str, Any]], Recipe]
    baselines: list[Point] = field(default_factory=list)
    best_linear: str | None = None
    held_out: dict[str, Any] | None = None
    running: Sequence[Point] = ()
    _next: float = -math.inf
    _front: tuple[int, ...] | None = None

    def front(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials that none dominates, best in the first objective first."""
        return [trials[i] for i in front_of([self.gains_of(t) for t in trials])]

    def gains_of(self, trial: FrozenTrial) -> tuple[float, ...] | None:
        """Return a trial's objectives, more being better; None where it may not be in a front."""
        if trial.state != TrialState.COMPLETE or any(v > 0 for v in trial.constraints.values()):
            return None
        return gains(self.values_of(trial), self.objectives)

    def values_of(self, trial: FrozenTrial) -> dict[str, float]:
        """Return a trial's objectives by their ids."""
        values = trial.values if trial.state == TrialState.COMPLETE else ()
        return {o.id: v for o, v in zip(self.objectives, values, strict=bool(values))}

    def write(
        self,
        trials: Sequence[FrozenTrial],
        status: str,
        seconds: float,
        error: dict[str, str] | None = None,
        *,
        whole: bool = True,
    ) -> dict[str, Any] | None:
        """Write everything anew; without `whole` only if the last time is a while ago.

        Returns what `sweep.json` says; see the package's own words for it. Raises `OSError`.
        """
        begun = time.monotonic()
        if not whole and begun < self._next:
            return None
        front = self.front(trials)
        files = {trial.number: f"front-{i:03d}.trim" for i, trial in enumerate(front, 1)}
        self._save_front(front, files)
        failed = sum(trial.state != TrialState.COMPLETE for trial in trials)
        data = {
            "trimtab_sweep": 1,
            "status": status,
            "error": error,
            **self.head,
            "seconds": round(seconds, 3),
            "trials_done": len(trials),
            "trials_failed": failed,
            "objectives": described(self.objectives),
            "dimensions": [d.to_dict() for d in self.dimensions],
            "trials": [*(self._point(t, files.get(t.number)) for t in trials), *self.running],
            "front": [trial.number for trial in front],
            "baselines": self.baselines,
            "best_linear": self.best_linear,
            "hypervolume": self._growth(trials),
            "held_out": self.held_out,
        }
        write_whole(self.folder / BOARD, to_json(data))
        write_whole(self.folder / TABLE, self._table(trials))
        now = time.monotonic()
        # many trials take long to write: most of the time is for making more of them
        self._next = now + max(_PAUSE, 10 * (now - begun))
        return data

    def _point(self, trial: FrozenTrial, file: str | None) -> Point:
        notes = trial.user_attrs
        point: Point = {
            "number": trial.number,
            "name": f"trial {trial.number}",
            "state": "done" if trial.state == TrialState.COMPLETE else "failed",
            "why": notes.get("why", ""),
            "seconds": notes.get("seconds"),
            "params": dict(trial.params),
            "values": self.values_of(trial),
            "measured": notes.get("measured", {}),
            "feasible": not any(v > 0 for v in trial.constraints.values()),
            "violations": {k: v for k, v in trial.constraints.items() if v > 0},
        }
        if file is not None:
            point |= {"file": file, "recipe": self.recipe_of(trial.params).to_yaml()}
        return point

    def _save_front(self, front: Sequence[FrozenTrial], files: Mapping[int, str]) -> None:
        numbers = tuple(trial.number for trial in front)
        if numbers == self._front:
            return
        for trial in front:
            self.recipe_of(trial.params).save(self.folder / files[trial.number])
        for old in self.folder.glob("front-*.trim"):
            if old.name not in files.values():
                old.unlink()
        self._front = numbers

    def _growth(self, trials: Sequence[FrozenTrial]) -> list[list[float]]:
        """Return how the front of two objectives has grown: its area above the worst of each.

        What is worst is taken over trials and baselines, so the areas of one sweep compare.
        """
        pairs = [self.gains_of(trial) for trial in trials]
        found = [pair for pair in pairs if pair is not None and len(pair) == 2]
        if not found:
            return []
        known = [gains(point["values"], self.objectives) for point in self.baselines]
        everything = [*found, *(pair for pair in known if pair is not None)]
        worst = (min(pair[0] for pair in everything), min(pair[1] for pair in everything))
        growth: list[list[float]] = []
        front: list[tuple[float, float]] = []
        for i, pair in enumerate(pairs, 1):
            if pair is None or len(pair) != 2 or any(_covers(kept, pair) for kept in front):
                continue
            front = [kept for kept in front if not _covers(pair, kept)]
            front.append((pair[0], pair[1]))
            growth.append([i, hypervolume(front, worst)])
        return growth

    def _table(self, trials: Sequence[FrozenTrial]) -> str:
        measured = sorted({key for t in trials for key in t.user_attrs.get("measured", {})})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [d.name for d in self.dimensions]
        writer.writerow(
            ["trial", "state", "in front", "feasible", *measured, *names, "seconds", "why"]
        )
        front = {trial.number for trial in self.front(trials)}
        for trial in trials:
            point = self._point(trial, None)
            numbers = point["measured"]
            writer.writerow(
                [
                    trial.number, point["state"], int(trial.number in front),
                    int(point["feasible"]),
                    *("" if (v := numbers.get(key)) is None else repr(v) for key in measured),
                    *(trial.params.get(name, "") for name in names),
                    point["seconds"], point["why"],
                ]
            )  # fmt: skip
        return text.getvalue()


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))
