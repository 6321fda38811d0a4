"""What `trimtab evaluate` does with its arguments: asks, and prints tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.commands.running import run_job
from trimtab.console import table
from trimtab.errors import UserError
from trimtab.evaluation.agreement import Agreement
from trimtab.evaluation.changes import QUESTIONS
from trimtab.evaluation.choosing import is_endpoint
from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.statistics import Estimate, rate
from trimtab.evaluation.suite import KINDS
from trimtab.evaluation.tables import agreements_of, cells_of, changes_of, coherence_of
from trimtab.merging.files import open_recipe
from trimtab.merging.recipe import Recipe, is_recipe

if TYPE_CHECKING:
    from trimtab.evaluation.results import Results


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    from trimtab.evaluation.results import load_results

    recipes: dict[str, Recipe] = {}
    models: list[str] = []
    for text in arguments.models:
        if is_endpoint(text) or not is_recipe(Path(text)):
            models.append(text)
            continue
        recipe, notes = open_recipe(Path(text))
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        if Path(text).stem in recipes:
            raise UserError(
                "same_names",
                f"Two recipes are called {Path(text).stem}.",
                "Their merges bear the recipes' names and could not be told apart.",
                "Rename one of the files.",
            )
        recipes[Path(text).stem] = recipe
    if len(recipes) == 1:
        recipes = {"merged": next(iter(recipes.values()))}
    report = run_job(
        "evaluate",
        {
            "models": [m if is_endpoint(m) else _absolute(m) for m in models],
            "recipes": {name: recipe.model_dump() for name, recipe in recipes.items()},
            "roles": arguments.roles or _usual_roles(recipes.values()),
            "suite": arguments.suite,
            "format": arguments.format,
            "limit": arguments.limit,
            "judges": arguments.judge or ["demo" if arguments.suite == "demo" else "phrases"],
            "baseline": arguments.baseline,
            "decoding": {
                "max_new_tokens": arguments.max_new_tokens,
                "temperature": arguments.temperature,
                "top_p": arguments.top_p,
                "seed": arguments.seed,
                "batch_size": arguments.batch_size,
                "system": arguments.system,
                "template": arguments.template,
            },
            "device": arguments.device,
            "precision": arguments.precision,
            "key_variable": arguments.key_variable,
            "fresh": arguments.fresh,
            "output": None if arguments.output is None else str(arguments.output),
            "overwrite": arguments.overwrite,
        },
    )
    path = Path(report["path"])
    if arguments.json:
        sys.stdout.write(path.read_text(encoding="utf-8"))
        return 0
    print(report_text(load_results(path)))
    if arguments.output is not None:
        print(f"\nAll answers and numbers: {path}")
    return 0


def _usual_roles(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    aligned = all(recipe.aligned is not None for recipe in recipes)
    return ("aligned" if aligned else "base", "finetuned", "merged")


def _absolute(model: str) -> str:
    """Return a path whole; what is no path here stays the hub id that it may be."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.exists() else model


# --- the text --------------------------------------------------------------------------------

_SHOWN = ("refusal", "over_refusal", "attack_success", "utility")


def report_text(results: Results) -> str:
    """Return the tables of an evaluation as the command prints them."""
    parts = [_head(results), _overall(results)]
    parts += [
        text
        for target in results.targets
        if target.name != results.baseline
        for text in (_summary(results, target.name), _by_category(results, target.name))
        if text
    ]
    parts += [_agreement(each) for each in agreements_of(results)]
    parts.append("\n".join(["What this does not show:", *(f"  {x}" for x in results.limits)]))
    return "\n\n".join(parts)


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


def _by_category(results: Results, name: str) -> str:
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
    agreed = "–" if each.kappa.agreement is None else f"{100 * each.kappa.agreement:.1f} %"
    kappa = "undefined" if each.kappa.value is None else f"{each.kappa.value:.2f}"
    if each.kappa.low is not None and each.kappa.high is not None:
        kappa += f" [{each.kappa.low:.2f}, {each.kappa.high:.2f}]"
    return (
        f"{each.first} and {each.second} agree on {agreed} of {each.kappa.n} answers; "
        f"Cohen's κ = {kappa}"
    )


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
