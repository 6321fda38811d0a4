"""From what a merge did to its numbers: the probes' own, or what a judge says of answers."""

from __future__ import annotations

import math

from trimtab.control import Control
from trimtab.evaluation.coherence import is_empty, is_repetitive
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.metrics import Row, measure
from trimtab.evaluation.suite import Suite
from trimtab.search.measuring import Raw
from trimtab.search.objectives import NUMBERS


def judged(raw: Raw, suite: Suite, judge: Judge, control: Control) -> dict[str, float | None]:
    """Return a merge's numbers by the ids of `NUMBERS`, with answers also the share "broken".

    What answers tell takes the place of what probes tell. Raises `JobCancelled` between answers.
    """
    found = {
        name: value if value is None or math.isfinite(value) else None
        for name, value in raw.numbers.items()
    }
    if not raw.answers:
        return found
    rows = []
    for prompt in suite.prompts:
        if prompt.kind == "text":
            continue
        control.check()
        answer = raw.answers[prompt.id]
        asked = prompt.kind in ("harmful", "lookalike")
        verdict = judge.judge(prompt, answer) if asked else None
        rows.append(Row(prompt, answer, verdict, raw.chosen.get(prompt.id)))
    cells = {c.metric: c.estimate.value for c in measure(rows, judge.measures)}
    for number in NUMBERS.values():
        if number.metric in cells:
            found[number.id] = cells[number.metric]
    said = list(raw.answers.values())
    found["broken"] = sum(is_empty(a) or is_repetitive(a) for a in said) / len(said)
    return found
