"""How the command says what an evaluation found: tables with intervals, and sentences."""

from __future__ import annotations

from trimtab.console import table
from trimtab.evaluation.agreement import Agreement
from trimtab.evaluation.changes import QUESTIONS
from trimtab.evaluation.coverage import coverage, coverage_rows, not_evaluated
from trimtab.evaluation.lm_eval import TaskNumber
from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.results import Results, TargetInfo
from trimtab.evaluation.statistics import Estimate, rate
from trimtab.evaluation.suite import KINDS
from trimtab.evaluation.tables import (
    Preference,
    agreements_of,
    bounds_of,
    cells_of,
    changes_of,
    coherence_of,
    preferences_of,
    set_before,
    verdict_of,
)
from trimtab.evaluation.thresholds import BoundVerdict

_NO_PROOF = (
    "What was not found may be there; a benchmark is not deployment, and this is no certificate."
)
_SHOWN = ("refusal", "over_refusal", "attack_success", "utility")


def report_text(results: Results) -> str:
    """Return the tables of an evaluation as the command prints them."""
    parts = [_head(results), _overall(results)]
    if results.thresholds.bounds:
        parts.append(_thresholds(results))
    parts += [
        text
        for target in results.targets
        if target.name != results.baseline
        for text in (_summary(results, target.name), _by_category(results, target))
        if text
    ]
    if results.tasks:
        parts.append(_tasks(results))
    parts += [_preference(results, each) for each in preferences_of(results)]
    parts += [_agreement(each) for each in agreements_of(results)]
    unseen = [*results.limits, *not_evaluated(coverage(results.suite.prompts)), _NO_PROOF]
    parts.append("\n".join(["What this does not show:", *(f"  {x}" for x in unseen)]))
    return "\n\n".join(parts)


def coverage_text(results: Results) -> str:
    """Return the matrix of what was asked about, as the command prints it."""
    return table(*coverage_rows(coverage(results.suite.prompts)))


def _thresholds(results: Results) -> str:
    """Hold every model against the bounds, and say when these were set."""
    bounds = results.thresholds.bounds
    rows = []
    for target in results.targets:
        found = bounds_of(results, target.name)
        rows.append([target.name, *map(_bound, found), verdict_of(results, target.name)])
    lines = [table(["thresholds", *map(str, bounds), "verdict"], rows)]
    if set_before(results):
        lines.append(f"Set {results.thresholds.set_at}, before anything was asked.")
    elif any(target.cached for target in results.targets):
        lines.append("Answers were known from before: the bounds could be set after looking.")
    else:
        lines.append(f"Set {results.thresholds.set_at}, after the models were asked.")
    if any("?" in cell for row in rows for cell in row):
        lines.append("? the interval reaches across the bound: chance could turn it")
    return "\n".join(lines)


def _tasks(results: Results) -> str:
    """Say what the harness measured: a row for each model, a column for each number."""
    columns = dict.fromkeys((t.task, t.metric, t.filter) for t in results.tasks)
    found = {(t.target, t.task, t.metric, t.filter): t for t in results.tasks}
    rows = []
    for name in dict.fromkeys(t.target for t in results.tasks):
        cells = [found.get((name, *column)) for column in columns]
        rows.append([name, *("no data" if c is None else _number(c) for c in cells)])
    heads = [
        f"{task} {metric}" + ("" if filtered == "none" else f" ({filtered})")
        for task, metric, filtered in columns
    ]
    version = results.tasks[0].harness
    text = table([f"lm-evaluation-harness {version}".strip(), *heads], rows)
    return f"{text}\n± is the harness's standard error, not an interval"


def _number(task: TaskNumber) -> str:
    text = f"{task.value:.4g}" if task.stderr is None else f"{task.value:.4g} ± {task.stderr:.2g}"
    return text.replace("-", "−")


def _bound(found: BoundVerdict) -> str:
    return found.status + (" ?" if found.beyond_chance is False else "")


def _preference(results: Results, each: Preference) -> str:
    counts = each.outcomes
    text = (
        f"{each.judge}, {each.kind} prompts. {each.criterion} {results.baseline} "
        f"{counts.get('first', 0)}, {each.target} {counts.get('second', 0)}, neither "
        f"{counts.get('tie', 0)}; by the order {counts.get('position', 0)}, unread "
        f"{counts.get('failed', 0)}"
    )
    return text if each.p_value is None else f"{text}; sign test p = {_p(each.p_value)}"


def _head(results: Results) -> str:
    suite = results.suite
    counts = {kind: len(suite.by_kind(kind)) for kind in KINDS}
    asked = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    version = f" {suite.version}" if suite.version else ""
    cached = [target.name for target in results.targets if target.cached]
    lines = [
        f"Suite {suite.name}{version} ({suite.digest[:12]}): {asked}",
        f"Judge {results.judges[0].name}; decoding: {results.decoding.sentence}",
    ]
    if cached:
        lines.append(f"Answers known from before: {', '.join(cached)}")
    return "\n".join(lines)


def _overall(results: Results) -> str:
    head = ["percent [95 % Wilson]", *(BY_ID[name].title.lower() for name in _SHOWN)]
    with_kl = any(target.divergence is not None for target in results.targets)
    with_perplexity = any(target.perplexity is not None for target in results.targets)
    rows, notes = [], []
    for target in results.targets:
        cells = {cell.metric: cell for cell in cells_of(results, target.name)}
        mark = " *" if any(cell.greyed for cell in cells.values()) else ""
        row = [target.name + mark, *(_percent(cells[name].estimate) for name in _SHOWN)]
        row += [_plain(target.perplexity)] if with_perplexity else []
        row += [_plain(target.divergence)] if with_kl else []
        rows.append(row)
        if mark:
            reasons = "; ".join(coherence_of(results, target.name).reasons)
            notes.append(f"* {target.name} fails the coherence guard: {reasons}")
        failed = cells["judge_failed"].estimate
        if failed.k:
            notes.append(f"  {target.name}: {failed.k} of {failed.n} answers could not be judged")
    head += ["perplexity"] if with_perplexity else []
    head += ["KL"] if with_kl else []
    return "\n".join([table(head, rows), *notes])


def _summary(results: Results, name: str) -> str:
    """Say in lines what changed from the baseline, a line for each kind of prompt."""
    lines = [f"{name} against {results.baseline}"]
    for kind, question in QUESTIONS.items():
        for change in changes_of(results, name, kind):
            if change.table.n:
                lines.append(
                    f"  {kind}: {change.newly_bad} {question.newly_bad}, {change.newly_good} "
                    f"{question.newly_good} of {change.table.n}; {question.title} "
                    f"{_points(change.difference)} points; McNemar p = {_p(change.p_value)}"
                )
    return "\n".join(lines) if len(lines) > 1 else ""


def _by_category(results: Results, target: TargetInfo) -> str:
    name = target.name
    if target.role == "control":
        return ""  # what it is there for stands in the first table and the summary
    found = [c for c in changes_of(results, name, "harmful", "category") if c.table.n]
    if len(found) < 2:
        return ""
    rows = []
    for change in found:
        n = change.table.n
        before = n - change.table.both - change.table.only_before
        after = n - change.table.both - change.table.only_after
        rows.append(
            [change.group or "–", str(n), _percent(rate(before, n)), _percent(rate(after, n)),
             str(change.newly_bad), str(change.newly_good), _p(change.p_value), _p(change.p_holm)]
        )  # fmt: skip
    head = [
        "refused, by category", "n", results.baseline, name, "newly unsafe", "newly safe",
        "McNemar p", "Holm",
    ]  # fmt: skip
    text = table(head, rows)
    greyed = found[0].greyed
    return f"{text}\n* not to be read: {greyed}" if greyed else text


def _agreement(each: Agreement) -> str:
    """Return kappa in a sentence, and below it who said what of how many answers."""
    agreed = "–" if each.kappa.agreement is None else f"{100 * each.kappa.agreement:.1f} %"
    kappa = "undefined" if each.kappa.value is None else f"{each.kappa.value:.2f}"
    if each.kappa.low is not None and each.kappa.high is not None:
        kappa += f" [{each.kappa.low:.2f}, {each.kappa.high:.2f}]"
    said = (
        f"{each.first} and {each.second} agree on {agreed} of {each.kappa.n} answers; "
        f"Cohen's κ = {kappa}"
    )
    labels, counts = each.outcomes.labels, each.outcomes.counts
    used = [i for i in range(len(labels)) if any(counts[i]) or any(row[i] for row in counts)]
    rows = [[labels[i], *(str(counts[i][j]) for j in used)] for i in used]
    head = ["first says, second says", *(labels[j] for j in used)]
    return f"{said}\n{table(head, rows)}" if used else said


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "no data"
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:5.1f} [{low:.0f}, {high:.0f}]"


def _points(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no data"
    text = f"{100 * estimate.value:+.1f}"
    # where all prompts agree the bootstrap sees no spread: its interval would claim certainty
    if estimate.low is not None and estimate.high is not None and estimate.low < estimate.high:
        text += f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return text.replace("-", "−")


def _plain(value: float | None) -> str:
    return "no data" if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}".replace("-", "−")
