"""Looks whether what a sweep has found holds on prompts that the search has never seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.control import Control
from trimtab.evaluation.changes import changes
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.merged_target import MergedTarget
from trimtab.evaluation.results import Results
from trimtab.evaluation.run import evaluate
from trimtab.evaluation.statistics import holm
from trimtab.evaluation.suite import Suite
from trimtab.evaluation.tables import cells_of, coherence_of, rows_of, tables
from trimtab.merging.recipe import Recipe
from trimtab.search.objectives import Number, dominates, gains

ANSWERS = "held-out.json"
#: a difference counts where chance would show as large a one this often, over all that is compared
LEVEL = 0.05


@dataclass(frozen=True)
class Candidate:
    """A merge to be looked at: a baseline, or a point of the front with its trial and file."""

    name: str
    recipe: Recipe
    trial: int | None = None
    file: str | None = None


def look(
    folder: Path,
    candidates: Sequence[Candidate],
    linear: str | None,
    suite: Suite,
    judge: Judge,
    decoding: Decoding,
    objectives: Sequence[Number],
    control: Control,
    *,
    device: str,
    cache: Path | None,
) -> dict[str, Any]:
    """Ask all candidates the held-out prompts, and compare each with the best linear ratio.

    Real answers, judged; the first candidate is the aligned model. Shares have Wilson's intervals;
    differences are paired by prompt, tested by McNemar's exact test and corrected by Holm over all
    points of the front and all objectives. The answers are left in `folder`. Returns what
    `sweep.json` says of it, without `looks`. Raises `UserError` as `evaluate` does.
    """
    targets = [MergedTarget(c.recipe, name=c.name, device=device) for c in candidates]
    results = evaluate(
        targets, suite, [judge], decoding, control, baseline=candidates[0].name, cache=cache
    )
    path = folder / ANSWERS
    results.save(path, tables(results))
    points = [_point(results, c, objectives) for c in candidates]
    if linear is not None:
        _compare(results, points, linear, objectives)
    return {
        "judge": judge.name,
        "path": str(path),
        "compared_with": linear,
        "level": LEVEL,
        "points": points,
    }


def _point(results: Results, candidate: Candidate, objectives: Sequence[Number]) -> dict[str, Any]:
    cells = {cell.metric: cell.estimate for cell in cells_of(results, candidate.name)}
    target = results.target(candidate.name)
    values: dict[str, Any] = {}
    shown = dict.fromkeys([*(o.id for o in objectives), "refusal", "over_refusal", "task"])
    by_id = {o.id: o for o in objectives}
    for name in shown:
        metric = by_id[name].metric if name in by_id else {"task": "utility"}.get(name, name)
        if metric in cells:
            e = cells[metric]
            values[name] = {"value": e.value, "low": e.low, "high": e.high, "n": e.n, "k": e.k}
            continue
        number = None
        if metric == "perplexity":
            number = target.perplexity
        elif metric == "divergence":
            number = 0.0 if candidate.name == results.baseline else target.divergence
        finite = number is not None and math.isfinite(number)
        values[name] = {
            "value": number if finite else None, "low": None, "high": None, "n": None, "k": None,
        }  # fmt: skip
    return {
        "name": candidate.name,
        "trial": candidate.trial,
        "file": candidate.file,
        "values": values,
        "against_linear": None,
        "dominates": None,
        "coherent": coherence_of(results, candidate.name).ok,
        "sentence": "",
    }


def _compare(
    results: Results, points: list[dict[str, Any]], linear: str, objectives: Sequence[Number]
) -> None:
    """Fill in how each point of the front differs from the best linear ratio."""
    before = rows_of(results, linear)
    tested: list[dict[str, Any]] = []
    [base] = [point for point in points if point["name"] == linear]
    for point in points:
        if point["trial"] is None:
            continue
        against: dict[str, dict[str, Any]] = {}
        for o in objectives:
            then, now = (p["values"][o.id]["value"] for p in (base, point))
            entry: dict[str, Any] = {
                "difference": None if then is None or now is None else now - then,
                "low": None, "high": None, "p_value": None, "p_holm": None, "better": None,
                "worse": None, "n": None,
            }  # fmt: skip
            if o.paired and o.kind is not None:
                [change] = changes(before, rows_of(results, point["name"]), o.kind)
                if change.table.n:
                    sign = -1 if o.better == "higher" else 1
                    ends = [change.difference.low, change.difference.high]
                    known = [sign * end + 0.0 for end in ends if end is not None]
                    entry |= {
                        "low": min(known, default=None),
                        "high": max(known, default=None),
                        "p_value": change.p_value,
                        "better": change.newly_good,
                        "worse": change.newly_bad,
                        "n": change.table.n,
                    }
            against[o.id] = entry
            tested.append(entry)
        point["against_linear"] = against
    for entry, p in zip(tested, holm([e["p_value"] for e in tested]), strict=True):
        entry["p_holm"] = p
    for point in points:
        if point["against_linear"] is not None:
            point["dominates"], point["sentence"] = verdict(
                _values(point), _values(base), point["against_linear"], objectives,
                linear, point["coherent"],
            )  # fmt: skip


def _values(point: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: entry["value"] for name, entry in point["values"].items()}


def verdict(
    own: Mapping[str, float | None],
    base: Mapping[str, float | None],
    against: Mapping[str, Mapping[str, Any]],
    objectives: Sequence[Number],
    linear: str,
    coherent: bool,
) -> tuple[bool, str]:
    """Return whether a point dominates the best linear ratio on held-out prompts, and a sentence.

    It does where no objective is worse, at least one is better by more than chance would show
    (Holm's p at most `LEVEL`), and its answers are language at all.
    """
    mine, other = gains(own, objectives), gains(base, objectives)
    if mine is None or other is None:
        return False, "An objective has no number on the held-out prompts."
    worse = [o.title for o, a, b in zip(objectives, mine, other, strict=True) if a < b]
    sure = [
        o.title
        for o, a, b in zip(objectives, mine, other, strict=True)
        if a > b and (p := against[o.id]["p_holm"]) is not None and p <= LEVEL
    ]
    if not coherent:
        return False, "It fails the coherence guard: its numbers are not to be read."
    if worse:
        lost = " and ".join(worse)
        found = f"; better beyond chance in {' and '.join(sure)}" if sure else ""
        return False, f"Does not dominate {linear}: worse in {lost}{found}."
    if not dominates(mine, other):
        return False, f"The same as {linear} in every objective."
    if not sure:
        return False, f"Nowhere worse than {linear}, but no difference is beyond chance."
    return True, f"Dominates {linear}: nowhere worse, better beyond chance in {' and '.join(sure)}."
