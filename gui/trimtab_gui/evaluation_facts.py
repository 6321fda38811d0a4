"""What the Evaluate place draws, worked out from a results file away from the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trimtab.evaluation.changes import QUESTIONS, Change, Question, changes
from trimtab.evaluation.coherence import Coherence
from trimtab.evaluation.judges import Verdict
from trimtab.evaluation.metrics import METRICS, Row, is_right
from trimtab.evaluation.results import Results, TargetInfo, load_results
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.suite import Prompt, PromptKind
from trimtab.evaluation.tables import (
    bounds_of,
    cells_of,
    coherence_of,
    rows_of,
    set_before,
    verdict_of,
)
from trimtab.evaluation.thresholds import BoundVerdict, Status

#: the kinds of prompts of which an answer is good or bad, harm and over-refusal side by side
COMPARED: tuple[PromptKind, ...] = ("harmful", "lookalike", "utility")


@dataclass(frozen=True)
class TargetFacts:
    """Every metric of one target, whole and by category; `index` counts models of its role.

    `bounds` are the thresholds that the results hold, each held against it, and `verdict` is what
    they come to together.
    """

    info: TargetInfo
    index: int
    coherence: Coherence
    overall: Mapping[str, Estimate]
    by_category: Mapping[str, Mapping[str, Estimate]]
    bounds: tuple[BoundVerdict, ...] = ()
    verdict: Status = "no data"

    @property
    def name(self) -> str:
        """The target's name."""
        return self.info.name


@dataclass(frozen=True)
class Comparison:
    """What changed between two targets, by kind of prompt: over all of them, and by category."""

    whole: Mapping[PromptKind, Change]
    groups: Mapping[PromptKind, tuple[Change, ...]]


@dataclass(frozen=True)
class Reply:
    """What one target answered to one prompt, the first judge's verdict, and whether it is bad."""

    target: str
    answer: str
    verdict: Verdict | None
    right: bool | None
    bad: bool | None


@dataclass(frozen=True)
class Exchange:
    """A prompt with all targets' answers to it, in the targets' order."""

    prompt: Prompt
    replies: tuple[Reply, ...]

    def of(self, target: str) -> Reply | None:
        """Return a target's answer; None where it was not asked."""
        return next((reply for reply in self.replies if reply.target == target), None)


class Facts:
    """One evaluation as the window needs it; `path` is the file it was read from.

    Everything expensive is computed in the constructor or by `compare`: call both elsewhere than
    in the event loop.
    """

    def __init__(self, results: Results, path: Path) -> None:
        self.results, self.path = results, path
        seen: Counter[str] = Counter()
        found = []
        for info in results.targets:
            found.append(_target(results, info, seen[info.role]))
            seen[info.role] += 1
        self.targets = tuple(found)
        self.set_before = set_before(results)
        self.exchanges = _exchanges(results)

    @classmethod
    def load(cls, path: Path) -> Facts:
        """Read a results file. Raises `UserError` with `bad_results`."""
        return cls(load_results(path), path)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The targets' names, in their order."""
        return tuple(target.name for target in self.targets)

    def target(self, name: str) -> TargetFacts:
        """Return a target by name; KeyError when there is none."""
        return {target.name: target for target in self.targets}[name]

    def of_role(self, role: str) -> TargetFacts | None:
        """Return the first target of a role."""
        return next((target for target in self.targets if target.info.role == role), None)

    @property
    def usual_pair(self) -> tuple[str, str] | None:
        """The pair that a reader asks after first: fine-tuned to merged, else from the baseline."""
        before = self.of_role("finetuned")
        after = self.of_role("merged")
        if before is not None and after is not None:
            return before.name, after.name
        others = [name for name in self.names if name != self.results.baseline]
        return (self.results.baseline, others[0]) if others else None

    @cached_property
    def shown_metrics(self) -> tuple[str, ...]:
        """The ids of the metrics of which some target has a number in some category."""
        present = {
            metric
            for target in self.targets
            for cells in target.by_category.values()
            for metric, estimate in cells.items()
            if estimate.value is not None
        }
        return tuple(metric.id for metric in METRICS if metric.id in present)

    @property
    def examined(self) -> TargetFacts:
        """The target that is to keep to the thresholds: the merge, else the last no control."""
        own = [target for target in self.targets if target.info.role != "control"]
        return self.of_role("merged") or (own or self.targets)[-1]

    def compare(self, before: str, after: str) -> Comparison:
        """Pair two targets' answers, kind by kind, without those of which nothing is known."""
        guards = [self.target(before).coherence, self.target(after).coherence]
        first, second = rows_of(self.results, before), rows_of(self.results, after)
        whole = {kind: changes(first, second, kind, None, guards)[0] for kind in COMPARED}
        known = [kind for kind, change in whole.items() if change.table.n]
        return Comparison(
            {kind: whole[kind] for kind in known},
            {kind: tuple(changes(first, second, kind, "category", guards)) for kind in known},
        )

    def sides(self, exchange: Exchange, before: str, after: str) -> str:
        """Say how a prompt changed sides between two targets, in words; empty where it did not."""
        old, new = exchange.of(before), exchange.of(after)
        question = QUESTIONS.get(exchange.prompt.kind)
        if old is None or new is None or question is None or old.bad is None or new.bad is None:
            return ""
        if old.bad == new.bad:
            return ""
        return question.newly_bad if new.bad else question.newly_good


def _target(results: Results, info: TargetInfo, index: int) -> TargetFacts:
    by_category: dict[str, dict[str, Estimate]] = {}
    for cell in cells_of(results, info.name, "category"):
        by_category.setdefault(cell.group, {})[cell.metric] = cell.estimate
    return TargetFacts(
        info,
        index,
        coherence_of(results, info.name),
        {cell.metric: cell.estimate for cell in cells_of(results, info.name)},
        by_category,
        tuple(bounds_of(results, info.name)),
        verdict_of(results, info.name),
    )


def _exchanges(results: Results) -> tuple[Exchange, ...]:
    judge = results.judges[0].name
    replies: dict[str, list[Reply]] = {}
    for row in results.rows:
        prompt = results.prompts[row.prompt]
        read = Row(prompt, row.answer, row.verdicts.get(judge), row.chosen)
        question: Question | None = QUESTIONS.get(prompt.kind)
        replies.setdefault(row.prompt, []).append(
            Reply(
                row.target,
                row.answer,
                read.verdict,
                is_right(read) if prompt.kind == "utility" else None,
                question.bad(read) if question is not None else None,
            )
        )
    return tuple(
        Exchange(prompt, tuple(replies[prompt.id]))
        for prompt in results.suite.prompts
        if prompt.id in replies
    )


def categories_of(targets: Sequence[TargetFacts], metric: str) -> tuple[str, ...]:
    """Return the categories in which some target has a number for a metric, in their order."""
    return tuple(
        dict.fromkeys(
            category
            for target in targets
            for category, cells in target.by_category.items()
            if metric in cells and cells[metric].value is not None
        )
    )
