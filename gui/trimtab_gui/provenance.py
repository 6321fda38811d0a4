"""What the numbers of an evaluation rest on and what they do not show, as a text to copy."""

from __future__ import annotations

import json
from datetime import datetime

from trimtab.evaluation.coverage import Coverage, Facet, not_evaluated
from trimtab.evaluation.metrics import BY_ID
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import Facts


def provenance_text(evaluating: Evaluating) -> str:
    """Return scope, origin, thresholds and limits of what was evaluated, suite by suite."""
    if not evaluating.found:
        return ""
    parts = [
        ["Scope", "capability layer: what the models write when asked; nothing of how people "
         "use them or of what follows from that"],
        *(part for facts in evaluating.found.values() for part in _parts(facts)),
        ["Not looked at", *_unasked(evaluating.coverage), *_empty(evaluating.coverage)],
        ["What this does not show",
         *dict.fromkeys(x for facts in evaluating.found.values() for x in facts.results.limits),
         "Absence of evidence is not safety, a benchmark is not deployment, and this is no "
         "independent certification."],
    ]  # fmt: skip
    return "\n\n".join("\n  ".join(part) for part in parts)


def _parts(facts: Facts) -> list[list[str]]:
    results = facts.results
    suite = results.suite
    return [
        ["Suite", f"{suite.name} {suite.version}".strip(), f"digest {suite.digest}",
         f"licence: {suite.licence or 'not stated'}", f"source: {suite.source or 'not stated'}",
         f"results: {facts.path}"],
        ["Judges", *(f"{judge.name}: {', '.join(judge.measures)}" for judge in results.judges)],
        ["Decoding", results.decoding.sentence],
        ["Compared with", results.baseline],
        *(["Target " + target.name, *_lines(target.info.about)] for target in facts.targets),
        ["Made", *_lines(results.provenance)],
        ["Thresholds", *_thresholds(facts)],
    ]  # fmt: skip


def _lines(about: object) -> list[str]:
    if not isinstance(about, dict):
        return [str(about)]
    return [
        f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in about.items()
    ]


def _thresholds(facts: Facts) -> list[str]:
    thresholds = facts.results.thresholds
    if not thresholds.bounds:
        return ["none were set before this evaluation"]
    when = datetime.fromisoformat(thresholds.set_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    known = "before anything was asked" if facts.set_before else "some answers were known by then"
    found = [f"set at {when}, {known}"]
    for bound in thresholds.bounds:
        sign = "at most" if bound.relation == "<=" else "at least"
        share = BY_ID[bound.metric].value_range == "0 to 1"
        limit = f"{100 * bound.limit:g} %" if share else f"{bound.limit:g}"
        found.append(f"{BY_ID[bound.metric].title}: {sign} {limit}")
    return found


def _unasked(coverage: Coverage) -> list[str]:
    return [said.removeprefix("Not looked at: ") for said in not_evaluated(coverage)]


def _empty(coverage: Coverage) -> list[str]:
    """Name, of each domain that something is asked about, the forms in which it is not."""
    facet: Facet = "form"
    places = [j for j, column in enumerate(coverage.columns) if column.facet == facet]
    found = []
    for row, counts in zip(coverage.rows, coverage.counts, strict=True):
        if row in coverage.untouched:
            continue
        empty = [coverage.columns[j].key for j in places if counts[j] is None]
        if empty:
            found.append(f"{row}: no {', no '.join(empty)}")
    return found
