"""What results add up to: metrics, changes and agreement of judges, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trimtab.evaluation.agreement import Agreement, agreement
from trimtab.evaluation.changes import Change, changes
from trimtab.evaluation.coherence import Coherence, check
from trimtab.evaluation.judges import Measure
from trimtab.evaluation.metrics import By, Cell, Row, measure
from trimtab.evaluation.results import JudgeInfo, Results
from trimtab.evaluation.suite import PromptKind

_COMPARED: tuple[PromptKind, ...] = ("harmful", "lookalike", "utility")
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
        if name != results.baseline:
            entry["changes"] = [
                _change(change)
                for kind in _COMPARED
                for by in (None, "category")
                for change in changes_of(results, name, kind, by)
                if change.table.n
            ]
        found[name] = entry
    return {"tables": found, "agreement": [asdict(each) for each in agreements_of(results)]}


def _change(change: Change) -> dict[str, Any]:
    return {
        **asdict(change),
        "newly_bad": change.newly_bad,
        "newly_good": change.newly_good,
    }
