"""Carries a sweep out: baselines, trials, and at the end a look at what the search never saw."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from trimtab.control import Control, JobAbandoned, JobCancelled
from trimtab.errors import UserError
from trimtab.evaluation.coherence import CoherenceLimits
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.probes import choose
from trimtab.evaluation.suite import KINDS, Suite
from trimtab.evaluation.suite_calibration import check_masks, refuse_overlap
from trimtab.merging.recipe import open_lineup
from trimtab.search.baselines import LINEAR, baselines, best_linear
from trimtab.search.board import Board, Point
from trimtab.search.dimensions import Searched, lay_out
from trimtab.search.folder import alone_in, cannot_write
from trimtab.search.held_out import Candidate, look
from trimtab.search.judging import judged
from trimtab.search.measuring import Work
from trimtab.search.objectives import (
    Constraint,
    balanced,
    dominates,
    gains,
    parse_constraint,
    parse_objectives,
)
from trimtab.search.pool import Pool, open_pool
from trimtab.search.space import MaskVaries, Value
from trimtab.search.spec import Spec
from trimtab.search.split import Split, split
from trimtab.search.trials import Asked, Trials, refuse_unfit

#: share of the free memory that the models may take, over all workers
_SHARE = 0.5


@dataclass(frozen=True)
class Budget:
    """When to stop: so many trials in all, or so many minutes over all runs; None is no limit.

    `workers` processes measure at the same time. `points` of the front at most are looked at on
    the held-out prompts, none with 0.
    """

    trials: int | None = None
    minutes: float | None = None
    workers: int = 1
    points: int = 8


class Sweep:
    """One sweep in its folder; see the package for what it leaves there.

    Raises `UserError` as space, split, samplers and evaluation do.
    """

    def __init__(self, folder: Path, spec: Spec, suite: Suite, judge: Judge, device: str = "cpu"):
        if spec.suite_digest and suite.digest != spec.suite_digest:
            raise UserError(
                "sweep_differs",
                f"The suite {suite.name} is not what it was when the sweep began.",
                "Its prompts have changed, so trials could not be compared.",
                "Start a sweep of its own in another folder.",
            )
        self.folder, self.spec, self.judge, self.device = folder, spec, judge, device
        self.objectives = parse_objectives(spec.objectives, spec.measure)
        self.constraints = [parse_constraint(text, spec.measure) for text in spec.constraints]
        self.decoding = Decoding.of(spec.decoding)
        self.lineup = open_lineup(spec.recipe)
        self.searched: Searched = lay_out(spec.space, spec.recipe, self.lineup)
        refuse_unfit(spec.sampler, self.searched.dimensions, self.objectives, spec.steps)
        files = [f for v in spec.space.varies if isinstance(v, MaskVaries) for f in v.files]
        files += [e.path for m in spec.recipe.finetuned for e in m.masks if e.path]
        known = check_masks(suite, (f for f in files if f != "off"))
        refuse_overlap(known, suite, "Use another suite, or masks made with other prompts.")
        self.split: Split = split(suite, spec.seed, spec.held_out)
        self.search_suite = _limited(self.split.search, spec.limit, spec.seed)

    def run(self, budget: Budget, control: Control, cache: Path | None = None) -> dict[str, Any]:
        """Search within the budget, then look at the held-out prompts; returns `sweep.json`.

        Stopped or killed, it leaves everything so that another call goes on.
        """
        spec = self.spec
        with alone_in(self.folder):
            trials = Trials(
                self.folder, self.searched.dimensions, self.objectives, spec.sampler, spec.seed,
                population=spec.population, steps=spec.steps,
            )  # fmt: skip
            try:
                return self._run(trials, budget, control, cache)
            finally:
                trials.close()

    def _run(
        self, trials: Trials, budget: Budget, control: Control, cache: Path | None
    ) -> dict[str, Any]:
        board = self._board(trials, budget)
        begun = time.monotonic() - float(trials.noted("seconds", 0.0))

        def seconds() -> float:
            return time.monotonic() - begun

        try:
            trials.mend()
            if board.baselines:
                self._guards(board)
            board.write(trials.found, "baselines", seconds())
            if self._unfinished(trials, budget, seconds()):
                self._search(trials, board, budget, control, seconds)
            trials.note("seconds", seconds())
            if budget.points and board.front(trials.found):
                board.write(trials.found, "held-out", seconds())
                board.held_out = self._look(trials, board, budget.points, control, cache)
            found = board.write(trials.found, "done", seconds())
            assert found is not None
            return found
        except (JobCancelled, JobAbandoned):
            trials.note("seconds", seconds())
            board.write(trials.found, "stopped", seconds())
            raise
        except UserError as error:
            board.write(trials.found, "failed", seconds(), error.to_dict())
            raise
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _board(self, trials: Trials, budget: Budget) -> Board:
        spec = self.spec
        counts = {
            name: {kind: n for kind in KINDS if (n := len(part.by_kind(kind)))}
            for name, part in (("search", self.search_suite), ("held_out", self.split.held_out))
        }
        started = trials.noted("started", "")
        if not started:
            started = datetime.now(UTC).isoformat(timespec="seconds")
            trials.note("started", started)
        head = {
            "folder": str(self.folder),
            "started": started,
            "sampler": spec.sampler,
            "seed": spec.seed,
            "measure": spec.measure,
            "trials_wanted": _smaller(budget.trials, trials.size),
            "minutes_wanted": budget.minutes,
            "constraints": [],
            "suite": {
                "name": self.split.search.name.removesuffix(" (search)"),
                "digest": self.spec.suite_digest, "judge": self.judge.name, **counts,
            },
        }  # fmt: skip
        return Board(
            self.folder, self.objectives, self.searched.dimensions, head, self.searched.recipe,
            trials.noted("baselines", []), held_out=trials.noted("held_out", None),
        )  # fmt: skip

    def _unfinished(self, trials: Trials, budget: Budget, seconds: float) -> bool:
        wanted = _smaller(budget.trials, trials.size)
        in_time = budget.minutes is None or seconds < 60 * budget.minutes
        return in_time and (wanted is None or len(trials.found) < wanted)

    # --- searching ---------------------------------------------------------------------------

    def _search(
        self,
        trials: Trials,
        board: Board,
        budget: Budget,
        control: Control,
        seconds: Callable[[], float],
    ) -> None:
        free = psutil.virtual_memory().available
        cores = os.cpu_count() or 1
        work = Work(
            self.spec.recipe, self.search_suite, self.spec.measure, self.decoding, self.device,
            int(_SHARE * free / budget.workers),
            max(1, cores // budget.workers) if budget.workers > 1 else 0,
        )  # fmt: skip
        control.stage("Loading", 1)
        pool = open_pool(work, budget.workers, control)
        try:
            self._baselines(trials, board, pool, control, seconds)
            self._guards(board)
            trials.start_from(self._starts(board))
            wanted = _smaller(budget.trials, trials.size)
            control.stage("Searching", wanted or 0)
            control.advance(len(trials.found))
            board.write(trials.found, "searching", seconds())
            while self._unfinished(trials, budget, seconds()):
                control.check()
                left = pool.size if wanted is None else wanted - len(trials.found)
                asked = trials.ask(min(pool.size, left))
                if not asked:
                    break
                self._try(asked, trials, board, pool, control, seconds)
                trials.note("seconds", seconds())
                control.advance(len(asked))
            if not any(board.gains_of(trial) for trial in trials.found):
                raise _nothing_found(trials)
        finally:
            pool.close()

    def _starts(self, board: Board) -> list[dict[str, Value]]:
        """Return what is tried first: the recipe as it stands, and the best one ratio for all."""
        found = [self.searched.start]
        if board.best_linear is not None:
            found.append(self.searched.flat(float(board.best_linear.removeprefix(LINEAR))))
        return [point for point in found if point is not None]

    def _try(
        self,
        asked: list[Asked],
        trials: Trials,
        board: Board,
        pool: Pool,
        control: Control,
        seconds: Callable[[], float],
    ) -> None:
        board.running = [
            {"number": a.number, "name": f"trial {a.number}", "state": "running", "why": "",
             "seconds": None, "params": a.params, "values": {}, "measured": {}, "feasible": True,
             "violations": {}}
            for a in asked
        ]  # fmt: skip
        board.write(trials.found, "searching", seconds(), whole=False)
        begun = time.monotonic()
        try:
            raws = pool.measure([self.searched.recipe(a.params) for a in asked], control)
        except (JobCancelled, JobAbandoned):
            for each in asked:
                trials.again(each.number)
            raise
        finally:
            board.running = ()
        taken = (time.monotonic() - begun) / len(asked)
        for each, raw in zip(asked, raws, strict=True):
            if isinstance(raw, UserError):
                trials.fail(each.number, str(raw))
                continue
            measured = judged(raw, self.search_suite, self.judge, control)
            found = gains(measured, self.objectives)
            if found is None:
                lacking = [o.title for o in self.objectives if measured.get(o.id) is None]
                trials.fail(each.number, f"No number for {', '.join(lacking) or 'an objective'}.")
                continue
            values = [float(measured[o.id] or 0.0) for o in self.objectives]
            broken = {c.name: c.violation(measured) for c in self.constraints}
            notes = {"measured": measured, "seconds": round(taken, 3)}
            trials.tell(each.number, values, broken, notes)
        board.write(trials.found, "searching", seconds(), whole=False)

    # --- what is to be beaten, and kept --------------------------------------------------------

    def _baselines(
        self,
        trials: Trials,
        board: Board,
        pool: Pool,
        control: Control,
        seconds: Callable[[], float],
    ) -> None:
        named = baselines(self.spec.recipe, self.lineup, self.spec.linear_steps)
        known = {point["name"] for point in board.baselines}
        control.stage("Baselines", len(named))
        control.advance(len(known))
        rest = [pair for pair in named if pair[0] not in known]
        for start in range(0, len(rest), pool.size):
            part = rest[start : start + pool.size]
            begun = time.monotonic()
            raws = pool.measure([recipe for _, recipe in part], control)
            for (name, recipe), raw in zip(part, raws, strict=True):
                if isinstance(raw, UserError):
                    raise raw  # plain ratios fail only where nothing can be measured
                measured = judged(raw, self.search_suite, self.judge, control)
                board.baselines.append(
                    {"number": -1, "name": name, "state": "done", "why": "",
                     "seconds": round((time.monotonic() - begun) / len(part), 3), "params": {},
                     "values": {o.id: measured.get(o.id) for o in self.objectives},
                     "measured": measured, "feasible": True, "violations": {},
                     "recipe": recipe.to_yaml()}
                )  # fmt: skip
            trials.note("baselines", board.baselines)
            control.advance(len(part))
            board.write(trials.found, "baselines", seconds(), whole=False)

    def _guards(self, board: Board) -> None:
        """Add the coherence guard to the constraints, and say of each baseline what it keeps."""
        limits = CoherenceLimits()
        known: Point = board.baselines[0]["measured"]
        guards = []
        if known.get("perplexity") is not None:
            limit = limits.perplexity_ratio * known["perplexity"]
            says = f"{limits.perplexity_ratio:g} times the reference's perplexity"
            guards.append(Constraint("perplexity", "<=", limit, says))
        if "broken" in known:
            says = "share of answers that are empty or turn in circles"
            guards.append(Constraint("broken", "<=", limits.broken_share, says))
        asked = [c for c in self.constraints if c.sentence == "asked for"]
        self.constraints = [*asked, *(g for g in guards if g.name not in {c.name for c in asked})]
        board.head["constraints"] = [
            {"id": c.id, "relation": c.relation, "limit": c.limit, "sentence": c.sentence}
            for c in self.constraints
        ]
        for point in board.baselines:
            found = {c.name: c.violation(point["measured"]) for c in self.constraints}
            point["violations"] = {name: v for name, v in found.items() if v > 0}
            point["feasible"] = not point["violations"]
        board.best_linear = best_linear(board.baselines, self.objectives)

    # --- what holds ----------------------------------------------------------------------------

    def _look(
        self, trials: Trials, board: Board, points: int, control: Control, cache: Path | None
    ) -> dict[str, Any]:
        looks = 1 + trials.noted("looks", 0)
        trials.note("looks", looks)  # before the look: one that is broken off has been one
        part = dict(baselines(self.spec.recipe, self.lineup, self.spec.linear_steps))
        names = [n for n in part if n == board.best_linear or not n.startswith(LINEAR)]
        candidates = [Candidate(name, part[name]) for name in names]
        front = board.front(trials.found)
        for i in self._chosen(board, points, front):
            trial, name = front[i], f"front-{i + 1:03d}"
            recipe = self.searched.recipe(trial.params)
            candidates.append(Candidate(name, recipe, trial.number, f"{name}.trim"))
        found = look(
            self.folder, candidates, board.best_linear, self.split.held_out, self.judge,
            self.decoding, self.objectives, control, device=self.device, cache=cache,
        )  # fmt: skip
        found = {"looks": looks, **found}
        trials.note("held_out", found)
        return found

    def _chosen(self, board: Board, points: int, front: Any) -> list[int]:
        """Return the places of the front that are looked at.

        First those that dominate the best linear ratio on the search prompts, the most balanced
        before the others, or if none does the most balanced of all; then an even spread.
        """
        known = [g for t in front if (g := board.gains_of(t)) is not None]
        linear = next((p for p in board.baselines if p["name"] == board.best_linear), None)
        bar = gains(linear["values"], self.objectives) if linear else None
        above = [i for i, g in enumerate(known) if bar is not None and dominates(g, bar)]
        chosen = [] if above else [balanced(known)]
        while above and len(chosen) < points:
            best = balanced([known[i] for i in above], known)
            chosen.append(above.pop(best))
        rest = [i for i in range(len(known)) if i not in chosen]
        n = min(points - len(chosen), len(rest))
        chosen += [rest[round(k * (len(rest) - 1) / max(n - 1, 1))] for k in range(n)]
        return sorted(set(chosen))


def _limited(suite: Suite, limit: int | None, seed: int) -> Suite:
    """Return at most `limit` prompts of each kind, evenly over their categories."""
    if limit is None:
        return suite
    kept = {p.id for kind in KINDS for p in choose(suite.by_kind(kind), limit, seed)}
    prompts = tuple(p for p in suite.prompts if p.id in kept)
    version = f"{suite.version}, {limit} of each kind"
    return Suite(suite.name, version, suite.licence, suite.source, prompts)


def _smaller(one: int | None, other: int | None) -> int | None:
    known = [n for n in (one, other) if n is not None]
    return min(known, default=None)


def _nothing_found(trials: Trials) -> UserError:
    if not trials.found:
        return UserError(
            "nothing_found",
            "The time was over before a trial could be made.",
            "Measuring the models as they are took all of it.",
            "Go on with --resume and more --minutes.",
        )
    reasons = [t.user_attrs["why"] for t in trials.found if "why" in t.user_attrs]
    return UserError(
        "nothing_found",
        f"None of {len(trials.found)} trials is of use.",
        f"The last one failed: {reasons[-1]}" if reasons else "None keeps the constraints.",
        "Give the space other bounds, or ease the constraints.",
        details="\n".join(dict.fromkeys(reasons)),
    )
