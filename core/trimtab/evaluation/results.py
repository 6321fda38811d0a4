"""What an evaluation found: answers, verdicts and where they come from; one JSON file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Verdict
from trimtab.evaluation.lm_eval import TaskNumber
from trimtab.evaluation.suite import Prompt, Suite
from trimtab.evaluation.thresholds import Thresholds

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One answer: `verdicts` by judge name, `chosen` the number of the likeliest choice."""

    prompt: str
    target: str
    answer: str
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    chosen: int | None = None


@dataclass(frozen=True)
class JudgeInfo:
    """A judge by name and version, and what its verdicts are evidence of."""

    name: str
    measures: tuple[str, ...]


@dataclass(frozen=True)
class TargetInfo:
    """A target and what was measured of it besides its answers.

    `about` is its own description: role, fingerprint, device, precision and where it is from.
    `perplexity` is over the suite's texts, `divergence` the mean KL(baseline ‖ target) of first
    tokens in nats; None where they cannot be had. `cached`: its answers were known already.
    """

    name: str
    role: str
    about: Mapping[str, Any]
    perplexity: float | None = None
    text_tokens: int | None = None
    divergence: float | None = None
    cached: bool = False


@dataclass(frozen=True)
class Comparison:
    """Which of two answers to a prompt a judge chose: the baseline's, the target's or neither.

    `winner` is as in `rubric.PairVerdict`: "first" is the baseline, "second" the target.
    """

    prompt: str
    target: str
    judge: str
    criterion: str
    winner: str
    reasons: tuple[str, str]


@dataclass(frozen=True)
class Results:
    """One evaluation, whole: everything a table or a report says follows from this.

    `baseline` is the target the others are compared with; the first of `judges` is the one that
    counts, the others are there to be compared with it. `provenance` holds versions, machine and
    time, `limits` says in sentences what the numbers do not show. `thresholds` are what the
    targets are held against, `comparisons` are answers that a judge compared in pairs, `tasks` the
    numbers of tasks that the lm-evaluation-harness ran.
    """

    suite: Suite
    targets: tuple[TargetInfo, ...]
    judges: tuple[JudgeInfo, ...]
    decoding: Decoding
    baseline: str
    rows: tuple[Row, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    comparisons: tuple[Comparison, ...] = ()
    tasks: tuple[TaskNumber, ...] = ()

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """The suite's prompts by id."""
        return {prompt.id: prompt for prompt in self.suite.prompts}

    def of(self, target: str) -> list[Row]:
        """Return a target's rows in the suite's order."""
        return [row for row in self.rows if row.target == target]

    def target(self, name: str) -> TargetInfo:
        """Return a target by name; KeyError when there is none."""
        return {target.name: target for target in self.targets}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "trimtab_evaluation": FORMAT,
            "suite": {
                "name": self.suite.name,
                "version": self.suite.version,
                "licence": self.suite.licence,
                "source": self.suite.source,
                "digest": self.suite.digest,
                "prompts": [prompt.to_dict() for prompt in self.suite.prompts],
            },
            "targets": [asdict(target) for target in self.targets],
            "judges": [asdict(judge) for judge in self.judges],
            "decoding": self.decoding.to_dict(),
            "baseline": self.baseline,
            "rows": [asdict(row) for row in self.rows],
            "provenance": dict(self.provenance),
            "limits": list(self.limits),
            "thresholds": self.thresholds.to_dict(),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "tasks": [asdict(number) for number in self.tasks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Results:
        """Rebuild results; raises ValueError, KeyError or TypeError where they are damaged."""
        if data.get("trimtab_evaluation") != FORMAT:
            raise ValueError("it is not an evaluation of this version")
        given = data["suite"]
        suite = Suite(
            given["name"],
            given["version"],
            given["licence"],
            given["source"],
            tuple(Prompt.from_dict(prompt) for prompt in given["prompts"]),
        )
        if suite.digest != given["digest"]:
            raise ValueError("its prompts are not those that were asked")
        rows = tuple(
            Row(
                row["prompt"],
                row["target"],
                row["answer"],
                {name: Verdict(**verdict) for name, verdict in row["verdicts"].items()},
                row["chosen"],
            )
            for row in data["rows"]
        )
        judges = tuple(JudgeInfo(j["name"], tuple(j["measures"])) for j in data["judges"])
        found = cls(
            suite,
            tuple(TargetInfo(**target) for target in data["targets"]),
            judges,
            Decoding(**data["decoding"]),
            data["baseline"],
            rows,
            data["provenance"],
            tuple(data["limits"]),
            # what an earlier version wrote has none of these
            Thresholds.from_dict(data["thresholds"]) if "thresholds" in data else Thresholds(),
            tuple(_comparison(each) for each in data.get("comparisons", ())),
            tuple(TaskNumber(**each) for each in data.get("tasks", ())),
        )
        found.target(found.baseline)
        names = {target.name for target in found.targets}
        if not all(row.prompt in found.prompts and row.target in names for row in rows):
            raise ValueError("it holds answers to unknown prompts or of unknown models")
        return found

    @property
    def digest(self) -> str:
        """Hex digest of what was asked of whom, judged by whom, and how; not of the answers."""
        parts = [self.suite.digest, self.decoding.digest, self.baseline]
        parts += [judge.name for judge in self.judges]
        parts += [f"{t.name} {t.about.get('fingerprint', '')}" for t in self.targets]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def to_json(self, extra: Mapping[str, Any] | None = None) -> str:
        """Return the text of a results file; `extra` is for readers that compute nothing."""
        whole = {**self.to_dict(), **(extra or {})}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write one JSON file; it appears whole or not at all. See `to_json`.

        Raises `UserError` with `cannot_write`.
        """
        text = self.to_json(extra)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                "cannot_write",
                f"{path.name} could not be written.",
                f"The system says: {error.strerror}.",
                "Choose another place for the results.",
                details=str(path),
            ) from error


def _comparison(data: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**data, "reasons": tuple(data["reasons"])})


def load_results(path: Path) -> Results:
    """Read a file that `Results.save` wrote. Raises `UserError` with `bad_results`."""
    try:
        return Results.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(path, str(error)) from error
    except UserError as error:
        raise _bad(path, error.what) from error


def _bad(path: Path, why: str) -> UserError:
    return UserError(
        "bad_results",
        f"{path.name} holds no results of an evaluation.",
        f"The reader says: {why}.",
        "Choose a file that 'trimtab evaluate --output' wrote.",
        details=str(path),
    )


def limits_of(suite: Suite, judges: Sequence[JudgeInfo], baseline: str) -> tuple[str, ...]:
    """Return in sentences what numbers from this suite and these judges do not show."""
    found = [
        "One answer a prompt: how much answers vary from draw to draw is not measured.",
        "A judge reads words. None here was checked against people on these answers.",
        f"Differences are those from {baseline}; they do not say which change made them.",
    ]
    if judges and "harm" not in judges[0].measures:
        found.append(
            f"{judges[0].name} tells refusals from answers, not harmful answers from harmless "
            "ones: attack success counts every answer that does not refuse."
        )
    sizes: dict[str, int] = {}
    for prompt in suite.by_kind("harmful"):
        sizes[prompt.category] = sizes.get(prompt.category, 0) + 1
    small = [name for name, n in sizes.items() if n < 30]
    if small:
        found.append(
            f"{len(small)} of {len(sizes)} categories of harmful prompts have fewer than 30: "
            "their intervals are wide."
        )
    if not suite.by_kind("lookalike"):
        found.append("There are no benign lookalikes: over-refusal is unknown.")
    languages = {prompt.language for prompt in suite.prompts}
    if len(languages) == 1:
        found.append(f"One language only: {', '.join(languages)}.")
    return tuple(found)
