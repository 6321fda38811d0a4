"""What results add up to: metrics, changes and agreement of judges, as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from trimtab.evaluation.agreement import Agreement, agreement
from trimtab.evaluation.changes import Change, changes
from trimtab.evaluation.coherence import Coherence, check
from trimtab.evaluation.coverage import coverage, not_evaluated
from trimtab.evaluation.judges import Measure
from trimtab.evaluation.metrics import By, Cell, Row, measure
from trimtab.evaluation.results import JudgeInfo, Results
from trimtab.evaluation.statistics import Estimate, mcnemar, no_data, rate
from trimtab.evaluation.suite import PromptKind
from trimtab.evaluation.thresholds import BoundVerdict, Status, hold_against, overall

_COMPARED: tuple[PromptKind, ...] = ("harmful", "lookalike", "utility")
#: what of a target's description says which model it is
_IDENTITY = ("kind", "path", "sha256", "recipe", "plan", "base_url", "model")
_MEASURES: tuple[Measure, ...] = ("refusal", "harm", "severity")


def rows_of(results: Results, target: str, judge: JudgeInfo | None = None) -> list[Row]:
    """Return a target's answers with one judge's verdicts: the first judge's, unless another is
    given.
    """
    name = (judge or results.judges[0]).name
    return [
        Row(results.prompts[row.prompt], row.answer, row.verdicts.get(name), row.chosen)
        for row in results.of(target)
    ]


def coherence_of(results: Results, target: str) -> Coherence:
    """Return the guard's reading of a target: by its answers, and its perplexity beside the
    baseline's.
    """
    return check(
        [row.answer for row in results.of(target)],
        results.target(target).perplexity,
        results.target(results.baseline).perplexity,
    )


def cells_of(
    results: Results, target: str, by: By | None = None, judge: JudgeInfo | None = None
) -> list[Cell]:
    """Return every metric of a target, in groups by a field of the prompts or all in one."""
    chosen = judge or results.judges[0]
    measures = frozenset(m for m in _MEASURES if m in chosen.measures)
    rows = rows_of(results, target, chosen)
    return measure(rows, measures, by, coherence_of(results, target))


def changes_of(
    results: Results, target: str, kind: PromptKind, by: By | None = None
) -> list[Change]:
    """Return what changed from the baseline to a target, as the first judge reads it."""
    return changes(
        rows_of(results, results.baseline),
        rows_of(results, target),
        kind,
        by,
        [coherence_of(results, results.baseline), coherence_of(results, target)],
    )


def agreements_of(results: Results) -> list[Agreement]:
    """Return how far each further judge agrees with the first, over all targets' answers."""
    first, *others = results.judges
    verdicts = {
        judge.name: {
            f"{row.target}\n{row.prompt}": row.verdicts[judge.name]
            for row in results.rows
            if judge.name in row.verdicts
        }
        for judge in results.judges
    }
    return [
        agreement(verdicts[first.name], verdicts[judge.name], (first.name, judge.name))
        for judge in others
    ]


def bounds_of(results: Results, target: str) -> list[BoundVerdict]:
    """Return what a target comes to against each of the thresholds, as the first judge reads it."""
    info = results.target(target)
    others = {"perplexity": _known(info.perplexity), "divergence": _known(info.divergence)}
    if target == results.baseline:
        others["divergence"] = no_data(note="it is the baseline")
    return hold_against(results.thresholds.bounds, cells_of(results, target), others)


def verdict_of(results: Results, target: str) -> Status:
    """Return what a target comes to against all thresholds together."""
    return overall(bounds_of(results, target), coherence_of(results, target).ok)


def set_before(results: Results) -> bool | None:
    """Whether the thresholds were set before anything was asked; None where there are none.

    Not so where answers of a target were known from before: then they could have been looked at.
    """
    begun = results.provenance.get("begun")
    if not results.thresholds.bounds or not begun:
        return None
    early = datetime.fromisoformat(results.thresholds.set_at) <= datetime.fromisoformat(begun)
    return early and not any(target.cached for target in results.targets)


@dataclass(frozen=True)
class Preference:
    """How often a judge chose a target's answer before the baseline's, of prompts of one kind.

    `outcomes` counts "first" (the baseline), "second" (the target), "tie", "position" and
    "failed". `share` is that of the target among those that chose one of the two, `p_value` the
    sign test's, two-sided and exact.
    """

    target: str
    judge: str
    criterion: str
    kind: PromptKind
    outcomes: dict[str, int]
    share: Estimate
    p_value: float | None


def preferences_of(results: Results) -> list[Preference]:
    """Return what comparisons in pairs add up to, by target and kind of prompt."""
    found: dict[tuple[str, str, str, PromptKind], Counter[str]] = {}
    for each in results.comparisons:
        key = (each.target, each.judge, each.criterion, results.prompts[each.prompt].kind)
        found.setdefault(key, Counter())[each.winner] += 1
    return [_preference(*key, outcomes) for key, outcomes in found.items()]


def _preference(
    target: str, judge: str, criterion: str, kind: PromptKind, outcomes: Counter[str]
) -> Preference:
    won, n = outcomes["second"], outcomes["first"] + outcomes["second"]
    share = rate(won, n) if n else no_data(note="no answer was chosen")
    p_value = mcnemar(outcomes["first"], won) if n else None  # on pairs it is the sign test
    return Preference(target, judge, criterion, kind, dict(outcomes), share, p_value)


def scope_of(results: Results) -> dict[str, Any]:
    """Return what an evaluation is about and what it is not, ready for JSON."""
    return {
        "layer": "capability",
        "targets": {
            target.name: {
                "role": target.role,
                "fingerprint": target.about.get("fingerprint", ""),
                **{key: target.about[key] for key in _IDENTITY if key in target.about},
            }
            for target in results.targets
        },
        "suite": results.suite.digest,
        "not_evaluated": list(not_evaluated(coverage(results.suite.prompts))),
    }


def tables(results: Results) -> dict[str, Any]:
    """Return all of it, ready for JSON: what stands in a results file beside the answers."""
    found: dict[str, Any] = {}
    for target in results.targets:
        name = target.name
        entry: dict[str, Any] = {
            "coherence": asdict(coherence_of(results, name)),
            "metrics": [asdict(cell) for cell in cells_of(results, name)],
            "by_category": [asdict(cell) for cell in cells_of(results, name, "category")],
        }
        if results.thresholds.bounds:
            entry["verdict"] = verdict_of(results, name)
            entry["bounds"] = [bound.to_dict() for bound in bounds_of(results, name)]
        if name != results.baseline:
            entry["changes"] = [
                _change(change)
                for kind in _COMPARED
                for by in (None, "category")
                for change in changes_of(results, name, kind, by)
                if change.table.n
            ]
        found[name] = entry
    return {
        "scope": scope_of(results),
        "coverage": coverage(results.suite.prompts).to_dict(),
        "thresholds_set_before": set_before(results),
        "tables": found,
        "agreement": [asdict(each) for each in agreements_of(results)],
        "preferences": [asdict(each) for each in preferences_of(results)],
    }


def _known(value: float | None) -> Estimate:
    return no_data() if value is None else Estimate(value, None, None, 1, "")


def _change(change: Change) -> dict[str, Any]:
    return {
        **asdict(change),
        "newly_bad": change.newly_bad,
        "newly_good": change.newly_good,
    }
