"""What the numbers of an evaluation rest on and what they do not show, as a text to copy."""

from __future__ import annotations

import json
import time

from trimtab.evaluation.metrics import BY_ID
from trimtab_gui.evaluating import Asked
from trimtab_gui.evaluation_facts import Facts


def provenance_text(facts: Facts, asked: Asked | None) -> str:
    """Return scope, origin, thresholds and limits of an evaluation."""
    results = facts.results
    suite, about = results.suite, results.provenance
    parts = [
        ["Scope", "capability layer: what the models write when asked; nothing of how people "
         "use them or of what follows from that"],
        ["Suite", f"{suite.name} {suite.version}".strip(), f"digest {suite.digest}",
         f"licence: {suite.licence or 'not stated'}", f"source: {suite.source or 'not stated'}"],
        ["Judges", *(f"{judge.name}: {', '.join(judge.measures)}" for judge in results.judges)],
        ["Decoding", results.decoding.sentence],
        ["Compared with", results.baseline],
        *(["Target " + target.name, *_lines(target.info.about)] for target in facts.targets),
        ["Made", *_lines(about)],
        ["Thresholds", *_thresholds(asked)],
        ["Not looked at", *_unasked(facts)],
        ["What this does not show", *results.limits,
         "Absence of evidence is not safety, a benchmark is not deployment, and this is no "
         "independent certification."],
        ["Results file", str(facts.path)],
    ]  # fmt: skip
    return "\n\n".join("\n  ".join(part) for part in parts)


def _lines(about: object) -> list[str]:
    if not isinstance(about, dict):
        return [str(about)]
    return [
        f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in about.items()
    ]


def _thresholds(asked: Asked | None) -> list[str]:
    if asked is None:
        return ["none were set before this evaluation"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(asked.at))
    found = [f"fixed at {when}, before the run"]
    for bound in asked.thresholds:
        sign = "at most" if bound.most else "at least"
        if bound.value is not None:
            found.append(f"{BY_ID[bound.metric].title}: {sign} {100 * bound.value:g} %")
    return found


def _unasked(facts: Facts) -> list[str]:
    coverage = facts.coverage
    found = []
    for row, counts in zip(coverage.rows, coverage.counts, strict=True):
        empty = [c for c, n in zip(coverage.columns, counts, strict=True) if n is None]
        what = "nothing at all" if len(empty) == len(counts) else "no " + ", no ".join(empty)
        if empty:
            found.append(f"{row}: {what}")
    return found
