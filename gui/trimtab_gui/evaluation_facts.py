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
from trimtab.evaluation.suite import Prompt, PromptKind, Suite
from trimtab.evaluation.suite_domains import DOMAINS
from trimtab.evaluation.tables import cells_of, coherence_of, rows_of

#: the kinds of prompts of which an answer is good or bad, harm and over-refusal side by side
COMPARED: tuple[PromptKind, ...] = ("harmful", "lookalike", "utility")
#: what coverage asks after beside the plain text; this version asks nothing in several turns
COLUMNS = ("text", "image", "multi-turn", "jailbreak", "lookalike", "other languages")
_OTHER = "other"


@dataclass(frozen=True)
class TargetFacts:
    """Every metric of one target, whole and by category; `index` counts models of its role."""

    info: TargetInfo
    index: int
    coherence: Coherence
    overall: Mapping[str, Estimate]
    by_category: Mapping[str, Mapping[str, Estimate]]

    @property
    def name(self) -> str:
        """The target's name."""
        return self.info.name


@dataclass(frozen=True)
class Coverage:
    """How many prompts there are by risk domain and column, int or None where none was asked."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int | None, ...], ...]


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
        self.coverage = coverage_of(results.suite)
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

    def compare(self, before: str, after: str) -> dict[PromptKind, Change]:
        """Pair two targets' answers, kind by kind, without those of which nothing is known."""
        guards = [self.target(before).coherence, self.target(after).coherence]
        first, second = rows_of(self.results, before), rows_of(self.results, after)
        found = {kind: changes(first, second, kind, None, guards)[0] for kind in COMPARED}
        return {kind: change for kind, change in found.items() if change.table.n}

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
    )


def coverage_of(suite: Suite) -> Coverage:
    """Count a suite's prompts about harm by risk domain and by how they are asked.

    A prompt counts in the first of its columns that fits: another language than the suite's most
    frequent one, another modality than text, a jailbreak, a harmless lookalike, plain text.
    Utility prompts and texts are about no risk.
    """
    asked = [prompt for prompt in suite.prompts if prompt.kind in ("harmful", "lookalike")]
    languages = Counter(prompt.language for prompt in asked)
    usual = languages.most_common(1)[0][0] if languages else ""
    counts = Counter((prompt.domain or _OTHER, _column(prompt, usual)) for prompt in asked)
    rows = (*DOMAINS, *((_OTHER,) if any(not prompt.domain for prompt in asked) else ()))
    columns = list(COLUMNS)
    columns += sorted({column for _, column in counts if column not in COLUMNS})
    return Coverage(
        rows,
        tuple(columns),
        tuple(tuple(counts.get((row, column)) for column in columns) for row in rows),
    )


def _column(prompt: Prompt, usual: str) -> str:
    if prompt.language != usual:
        return "other languages"
    if prompt.modality != "text":
        return prompt.modality
    if prompt.attack != "none":
        return "jailbreak"
    return "lookalike" if prompt.kind == "lookalike" else "text"


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
