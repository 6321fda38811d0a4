"""The trials of a sweep, kept by Optuna in SQLite: what is tried next, and what became of it."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from cmaes import CMA
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from trimtab.errors import UserError
from trimtab.search.objectives import Number
from trimtab.search.space import Dimension, Value

SamplerName = Literal["grid", "random", "tpe", "cmaes", "nsga2"]
STORAGE = "study.sqlite3"
_NAME = "sweep"
#: how often a trial is begun that ended without a word, as when the machine ran out of memory
_TRIES = 3
_GRID_MOST = 100_000

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Asked:
    """A trial that has begun: its number and the point it is to measure."""

    number: int
    params: dict[str, Value]


class Trials:
    """The trials in a folder's database; opening it again goes on where it was left.

    A trial's point depends on the seed, its place in the order and the trials told before it, and
    on nothing else: a sweep that was killed goes on as if it had not been. `population` is that of
    an evolution, 0 for the usual one; `steps` how many values of a range a grid takes. What
    a sampler cannot search is for `refuse_unfit` to say beforehand.
    """

    def __init__(
        self,
        folder: Path,
        dimensions: Sequence[Dimension],
        objectives: Sequence[Number],
        sampler: SamplerName,
        seed: int,
        *,
        population: int = 0,
        steps: int = 5,
    ):
        self._dimensions = tuple(dimensions)
        self._objectives = tuple(objectives)
        self._sampler, self._seed = sampler, seed
        self._population = population or _population(sampler, len(dimensions))
        self._starts: list[dict[str, Value]] = []
        self._grid = grid(dimensions, steps, seed) if sampler == "grid" else None
        self._distributions = {d.name: _distribution(d) for d in dimensions}
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STORAGE}")
        event.listen(self._storage.engine, "connect", _quick)
        self._storage.engine.dispose()  # the connection that is open was not made quick
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=_NAME,
            directions=["maximize" if o.better == "higher" else "minimize" for o in objectives],
            load_if_exists=True,
        )

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def start_from(self, points: Sequence[Mapping[str, Value]]) -> None:
        """Try these points first, and let CMA-ES begin around the last of them; no grid does.

        Each time a sweep goes on they must be the same.
        """
        self._starts = [dict(point) for point in points]

    # What is known.

    @property
    def found(self) -> list[FrozenTrial]:
        """The trials that have ended in order, those that were begun again left out."""
        return [
            t
            for t in self._study.get_trials(deepcopy=False)
            if t.state == TrialState.COMPLETE
            or (t.state == TrialState.FAIL and "why" in t.user_attrs)
        ]

    @property
    def size(self) -> int | None:
        """How many trials there are to make; None for a search without an end."""
        return None if self._grid is None else len(self._grid)

    def note(self, key: str, value: Any) -> None:
        """Keep something about the sweep, as JSON, in the database."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str, default: Any) -> Any:
        """Return what was kept, `default` where nothing was."""
        return self._study.user_attrs.get(key, default)

    # What happens.

    def mend(self) -> None:
        """Begin those trials again that were running when the sweep ended without a word.

        One that did so three times has failed: it may be what ended the sweep.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            tries = 1 + trial.user_attrs.get("tries", 0)
            whole = trial.params.keys() == self._distributions.keys()
            # what was killed before its place was noted is proposed once more
            again = whole and "slot" in trial.user_attrs
            if again and tries >= _TRIES:
                self.fail(trial.number, f"The sweep ended during this trial {tries} times.")
                continue
            if again:
                notes = {"slot": trial.user_attrs["slot"], "tries": tries}
                self._study.enqueue_trial(trial.params, user_attrs=notes)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def again(self, number: int) -> None:
        """Give a trial back that was stopped: it is the next one to be asked for."""
        trial = self._by_number(number)
        self._study.enqueue_trial(trial.params, user_attrs={"slot": trial.user_attrs["slot"]})
        self._study.tell(number, state=TrialState.FAIL)

    def ask(self, count: int) -> list[Asked]:
        """Begin up to `count` trials; fewer, or none, where no more can be known now."""
        begun: list[Asked] = []
        while len(begun) < count:
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if waiting:
                sampler = self._fresh_sampler(waiting[0].user_attrs["slot"])
                self._study.sampler = sampler
                trial = self._study.ask(self._distributions)
                if isinstance(sampler, optuna.samplers.NSGAIISampler):
                    # it counts only those to its generations whose point it has chosen itself
                    sampler.get_trial_generation(self._study, self._by_number(trial.number))
                begun.append(Asked(trial.number, dict(trial.params)))
            elif not self._propose(begun):
                break
        return begun

    def tell(
        self,
        number: int,
        values: Sequence[float],
        violations: Mapping[str, float],
        notes: Mapping[str, Any],
    ) -> None:
        """Say what a trial has come to: a value for each objective, and what it violates by how
        much, 0 or less being nothing.
        """
        trial = optuna.trial.Trial(self._study, self._by_number(number)._trial_id)
        for name, amount in violations.items():
            trial.set_constraint(name, float(amount))
        for key, value in notes.items():
            trial.set_user_attr(key, value)
        self._study.tell(number, list(values))

    def fail(self, number: int, why: str) -> None:
        """Say that a trial cannot be measured."""
        trial = optuna.trial.Trial(self._study, self._by_number(number)._trial_id)
        trial.set_user_attr("why", why)
        self._study.tell(number, state=TrialState.FAIL)

    def _by_number(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    # What is tried next.

    def _propose(self, begun: list[Asked]) -> bool:
        """Put a new point in line, or for Optuna's samplers begin it; False where there is none."""
        slot = self._slots()
        if self._grid is not None:
            if slot >= len(self._grid):
                return False
            point = self._grid[slot]
        elif self._sampler == "cmaes":
            evolved = self._evolved(slot)
            if evolved is None:
                return False
            point = evolved
        elif slot < len(self._starts):
            point = self._starts[slot]
        else:
            self._study.sampler = self._fresh_sampler(slot)
            trial = self._study.ask(self._distributions)
            trial.set_user_attr("slot", slot)
            begun.append(Asked(trial.number, dict(trial.params)))
            return True
        self._study.enqueue_trial(point, user_attrs={"slot": slot})
        return True

    def _slots(self) -> int:
        """Return how many places in the order are taken."""
        taken = [t.user_attrs.get("slot", -1) for t in self._study.get_trials(deepcopy=False)]
        return 1 + max(taken, default=-1)

    def _fresh_sampler(self, slot: int) -> optuna.samplers.BaseSampler:
        """Return the sampler as if no chance had been used yet, so that going on is no matter."""
        text = f"{self._seed} {slot}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
        if self._sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if self._sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=self._population, seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)  # those in line bring their point

    # Evolution: Optuna's own keeps pickles in the database, which nobody should have to trust.

    def _evolved(self, slot: int) -> dict[str, Value] | None:
        """Return the point of a place in the order, by going through all generations before it.

        None while one of the generation before has not been told.
        """
        told = {
            t.user_attrs["slot"]: t
            for t in self.found
            if "slot" in t.user_attrs
        }  # fmt: skip
        n = len(self._dimensions)
        first_point = self._starts[-1] if self._starts else {}
        middle = [
            _to_unit(d, first_point[d.name]) if d.name in first_point else 0.5
            for d in self._dimensions
        ]
        evolution = CMA(
            np.array(middle), 0.25, np.tile([0.0, 1.0], (n, 1)), seed=self._seed,
            population_size=self._population,
        )  # fmt: skip
        for first in range(0, slot - slot % self._population, self._population):
            generation = [told.get(first + i) for i in range(self._population)]
            if None in generation:
                return None
            points = [evolution.ask() for _ in generation]
            # only the order counts to it: what keeps the constraints comes first (Deb 2000)
            keys = [self._worse(trial) for trial in generation if trial is not None]
            ranks = {key: float(rank) for rank, key in enumerate(sorted(set(keys)))}
            evolution.tell([(p, ranks[key]) for p, key in zip(points, keys, strict=True)])
        points = [evolution.ask() for _ in range(slot % self._population + 1)]
        return {
            d.name: _from_unit(d, float(x))
            for d, x in zip(self._dimensions, points[-1], strict=True)
        }  # fmt: skip

    def _worse(self, trial: FrozenTrial) -> tuple[float, float]:
        if trial.state != TrialState.COMPLETE:
            return math.inf, 0.0
        beyond = sum(amount for amount in trial.constraints.values() if amount > 0)
        value = trial.values[0]
        return beyond, -value if self._objectives[0].better == "higher" else value


def refuse_unfit(
    sampler: SamplerName, dimensions: Sequence[Dimension], objectives: Sequence[Number], steps: int
) -> None:
    """Raise `UserError` with `sampler_unfit`, `grid_too_large` for what cannot be searched so."""
    if sampler == "grid":
        grid(dimensions, steps, 0)
    if sampler != "cmaes":
        return
    chosen = next((d.name for d in dimensions if d.choices), None)
    if chosen is not None:
        raise UserError(
            "sampler_unfit",
            "CMA-ES searches numbers only.",
            f"{chosen} is a choice.",
            "Take --sampler tpe or nsga2.",
        )
    if len(objectives) > 1:
        raise UserError(
            "sampler_unfit",
            "CMA-ES has one objective.",
            f"Asked for were {', '.join(o.id for o in objectives)}, and they are not made into "
            "one score.",
            "Name one, and bound the others: --objectives task --constraint 'refusal>=60%'.",
        )
    if len(dimensions) < 2:
        raise UserError(
            "sampler_unfit",
            "CMA-ES needs at least two numbers that vary.",
            "Only one does.",
            "Take --sampler tpe or grid.",
        )


def grid(dimensions: Sequence[Dimension], steps: int, seed: int) -> list[dict[str, Value]]:
    """Return every combination of `steps` values of each range and of all choices, shuffled.

    The same for the same seed; a search that ends early has then looked everywhere. Raises
    `UserError` with `grid_too_large`.
    """
    columns: list[list[Value]] = []
    for d in dimensions:
        if d.choices:
            columns.append(list(d.choices))
            continue
        column = [_from_unit(d, i / (steps - 1)) for i in range(steps)]
        columns.append(list(dict.fromkeys(column)))
    total = math.prod(map(len, columns))
    if total > _GRID_MOST:
        raise UserError(
            "grid_too_large",
            f"This grid has {total:,} points.",
            f"{len(columns)} dimensions of {steps} values each make so many.",
            "Let fewer things vary, take fewer --steps, or another sampler.",
        )
    points = []
    for number in range(total):
        point: dict[str, Value] = {}
        for d, column in zip(dimensions, columns, strict=True):
            number, place = divmod(number, len(column))
            point[d.name] = column[place]
        points.append(point)
    random.Random(seed).shuffle(points)
    return points


def _population(sampler: SamplerName, dimensions: int) -> int:
    # of CMA-ES as its author has it (Hansen 2016, table 1); of NSGA-II small enough to come to
    # several generations within a hundred trials
    return 4 + int(3 * math.log(dimensions)) if sampler == "cmaes" else 16


def _distribution(d: Dimension) -> BaseDistribution:
    if d.choices:
        return CategoricalDistribution(d.choices)
    if d.integer:
        return IntDistribution(int(d.low), int(d.high), log=d.log)
    return FloatDistribution(d.low, d.high, log=d.log)


def _to_unit(d: Dimension, value: Value) -> float:
    number = float(value)
    if d.log:
        return math.log(number / d.low) / math.log(d.high / d.low)
    return (number - d.low) / (d.high - d.low)


def _from_unit(d: Dimension, x: float) -> Value:
    number = d.low * (d.high / d.low) ** x if d.log else d.low + x * (d.high - d.low)
    number = min(max(number, d.low), d.high)
    return round(number) if d.integer else number


def _quick(connection: Any, record: Any) -> None:
    """Let the database survive a killed process, and not wait for the disk at every number."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
