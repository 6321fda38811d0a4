"""What a sweep is after: several numbers kept apart, what dominates what, and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.errors import UserError
from trimtab.evaluation.metrics import Better
from trimtab.evaluation.suite import PromptKind

#: what a recipe was measured to be, by the ids of `NUMBERS`; None where there is no data
Measured = Mapping[str, float | None]
Source = Literal["probes", "answers"]


@dataclass(frozen=True)
class Number:
    """A number that can be an objective or be bounded.

    `kind` are the prompts it is of, None for numbers of several kinds. `metric` is what evaluation
    calls it on real answers, empty where only probes tell it; `of_probes` whether they do. `paired`
    numbers are shares of prompts, so that two models can be compared prompt by prompt.
    """

    id: str
    title: str
    better: Better
    kind: PromptKind | None
    metric: str
    of_probes: bool
    paired: bool = False


NUMBERS: dict[str, Number] = {
    number.id: number
    for number in (
        Number("refusal", "Refusal of harmful", "higher", "harmful", "refusal", True, True),
        Number("harm", "Attack success", "lower", "harmful", "attack_success", False, True),
        Number("over_refusal", "Over-refusal", "lower", "lookalike", "over_refusal", True, True),
        Number("task", "Task accuracy", "higher", "utility", "utility", True, True),
        Number("kl", "KL from the aligned model", "lower", None, "divergence", True),
        Number("perplexity", "Perplexity", "lower", "text", "perplexity", True),
        Number("refusal_margin", "Refusal margin", "higher", "harmful", "", True),
        Number("task_margin", "Task margin", "higher", "utility", "", True),
    )
}
DEFAULT = ("refusal", "over_refusal", "task")


def parse_objectives(names: Sequence[str], measure: Source) -> tuple[Number, ...]:
    """Return the objectives by name; `UserError` with `no_such_objective`."""
    usable = [
        n.id for n in NUMBERS.values() if (n.of_probes if measure == "probes" else n.metric)
    ]  # fmt: skip
    wrong = next((name for name in names if name not in usable), None)
    if wrong is not None or not names or len(set(names)) < len(names):
        raise UserError(
            "no_such_objective",
            f"{wrong} is no objective here." if wrong else "Each objective is named once.",
            f"By {measure} there are: {', '.join(usable)}.",
            "Name one or more of these."
            + (" 'harm' takes real answers: --measure answers." if wrong == "harm" else ""),
        )
    return tuple(NUMBERS[name] for name in names)


@dataclass(frozen=True)
class Constraint:
    """What a merge must keep to be allowed: `id` `relation` `limit`; `sentence` says why."""

    id: str
    relation: Literal["<=", ">="]
    limit: float
    sentence: str = ""

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"{self.id} {self.relation} {self.limit:.6g}"

    def violation(self, measured: Measured) -> float:
        """Return how far a merge is beyond the limit, 0 or less where it is not.

        A number that is not known, or not finite, is beyond any limit.
        """
        value = measured.get(self.id)
        if value is None or not math.isfinite(value):
            return 1e9
        return value - self.limit if self.relation == "<=" else self.limit - value


_CONSTRAINT = re.compile(r"\s*([a-z_]+)\s*(<=|>=)\s*([-+.0-9eE]+)\s*(%?)\s*")


def parse_constraint(text: str, measure: Source) -> Constraint:
    """Return the constraint of a text such as "over_refusal<=0.2" or "refusal >= 55%".

    Raises `UserError` with `bad_constraint`.
    """
    match = _CONSTRAINT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        limit = float(match[3]) / (100 if match[4] else 1)
        [number] = parse_objectives([match[1]], measure)
    except (ValueError, UserError) as error:
        raise UserError(
            "bad_constraint",
            f"'{text}' is no constraint.",
            f"It takes a number's name, <= or >=, and a limit. {getattr(error, 'why', '')}".strip(),
            "Write as in: --constraint 'over_refusal<=0.2'.",
        ) from error
    relation: Literal["<=", ">="] = "<=" if match[2] == "<=" else ">="
    return Constraint(number.id, relation, limit, "asked for")


def gains(
    values: Mapping[str, float | None], objectives: Sequence[Number]
) -> tuple[float, ...] | None:
    """Return each objective's value so that more is better; None where one has no data."""
    found = []
    for objective in objectives:
        value = values.get(objective.id)
        if value is None or not math.isfinite(value):
            return None
        found.append(value if objective.better == "higher" else -value)
    return tuple(found)


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether gains are nowhere worse and somewhere better (Pareto)."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front_of(found: Sequence[tuple[float, ...] | None]) -> list[int]:
    """Return the places of the gains that none dominates, best in the first objective first.

    None stands for what may not be in the front; of equal ones the first is taken.
    """
    front: list[tuple[tuple[float, ...], int]] = []
    for i, gain in enumerate(found):
        if gain is None or any(kept == gain or dominates(kept, gain) for kept, _ in front):
            continue
        front = [(kept, j) for kept, j in front if not dominates(gain, kept)]
        front.append((gain, i))
    return [i for _, i in sorted(front, key=lambda pair: ([-g for g in pair[0]], pair[1]))]


def balanced(
    found: Sequence[tuple[float, ...]], scale: Sequence[tuple[float, ...]] | None = None
) -> int:
    """Return the place of the gains whose worst objective is best.

    Each objective counts as (gain − least) / (most − least) over `scale`, by default `found`; one
    that never changes is left out: the compromise by Chebyshev's norm (Wierzbicki 1980). Of equal
    ones that with the larger sum counts, then the first. Raises ValueError of none at all.
    """
    if not found:
        raise ValueError("there is nothing to choose from")
    spans = [(min(c), max(c) - min(c)) for c in zip(*(scale or found), strict=True)]

    def rank(place: int) -> tuple[float, float, int]:
        pairs = zip(found[place], spans, strict=True)
        shares = [(gain - low) / span for gain, (low, span) in pairs if span > 0]
        return min(shares, default=0.0), sum(shares), -place

    return max(range(len(found)), key=rank)


def hypervolume(found: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that pairs of gains dominate above `reference` (Zitzler and Thiele 1998)."""
    area, height = 0.0, reference[1]
    for first, second in sorted(found, key=lambda pair: (-pair[0], -pair[1])):
        if first > reference[0] and second > height:
            area += (first - reference[0]) * (second - height)
            height = second
    return area


def described(objectives: Sequence[Number]) -> list[dict[str, Any]]:
    """Return the objectives ready for JSON."""
    return [{"id": o.id, "title": o.title, "better": o.better} for o in objectives]
