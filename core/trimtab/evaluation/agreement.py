"""How far two judges agree on the same answers: confusion matrix and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.evaluation.judges import OUTCOMES, Verdict
from trimtab.evaluation.statistics import LEVEL, Confusion, Kappa, confusion, kappa

JUDGED = tuple(outcome for outcome in OUTCOMES if outcome != "failed")


@dataclass(frozen=True)
class Agreement:
    """What two judges said of the answers that both were given.

    `outcomes` has all four outcomes, failures included. `kappa` is over the answers that both could
    judge, in the three outcomes that are judgements; `kappa_refused` asks of the same answers only
    whether they refuse in full. `unshared` counts answers that one judge was never given.
    """

    first: str
    second: str
    outcomes: Confusion
    kappa: Kappa
    kappa_refused: Kappa
    unshared: int


def agreement(
    first: Mapping[str, Verdict],
    second: Mapping[str, Verdict],
    names: tuple[str, str],
    level: float = LEVEL,
) -> Agreement:
    """Compare verdicts by the ids of their prompts."""
    shared = [key for key in first if key in second]
    pairs = [(first[key].outcome, second[key].outcome) for key in shared]
    judged = [(a, b) for a, b in pairs if "failed" not in (a, b)]
    refused = [(_refused(a), _refused(b)) for a, b in judged]
    return Agreement(
        names[0],
        names[1],
        confusion([a for a, _ in pairs], [b for _, b in pairs], OUTCOMES),
        kappa(confusion([a for a, _ in judged], [b for _, b in judged], JUDGED), level),
        kappa(confusion([a for a, _ in refused], [b for _, b in refused]), level),
        len(first) + len(second) - 2 * len(shared),
    )


def _refused(outcome: str) -> str:
    return "refused" if outcome == "refused" else "answered"
