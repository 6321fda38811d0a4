"""What `trimtab evaluate` does with its arguments: asks, and prints tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from trimtab.commands.evaluate_text import coverage_text, report_text
from trimtab.commands.running import run_job
from trimtab.errors import UserError
from trimtab.evaluation.choosing import is_endpoint
from trimtab.evaluation.results import load_results
from trimtab.evaluation.thresholds import Thresholds, load_thresholds, now, parse_thresholds
from trimtab.merging.files import open_recipe
from trimtab.merging.recipe import Recipe, is_recipe


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    thresholds = _thresholds(arguments)
    if arguments.log is not None and not arguments.by.strip():
        raise UserError(
            "no_name",
            "It was not said who decides.",
            "A decision that is nobody's cannot be asked about later.",
            "Say it with --by NAME.",
        )
    recipes, models = told_apart(arguments.models)
    if len(recipes) == 1:
        recipes = {"merged": next(iter(recipes.values()))}
    report = run_job(
        "evaluate",
        {
            "models": models,
            "recipes": {name: recipe.model_dump() for name, recipe in recipes.items()},
            "roles": arguments.roles or usual_roles(recipes.values()),
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
            "controls": arguments.controls,
            "thresholds": [str(bound) for bound in thresholds.bounds],
            "thresholds_set": thresholds.set_at,
            "thresholds_source": thresholds.source,
            "calibration": arguments.calibration,
            "allow_overlap": arguments.allow_overlap,
            "compare": arguments.compare,
            "lm_eval": arguments.lm_eval,
            "lm_eval_include": _absolute(str(arguments.lm_eval_include or "")),
            "hashes": not arguments.no_hashes,
        },
    )
    path = Path(report["path"])
    if arguments.log is not None:
        decision = {
            "results": str(path), "log": str(arguments.log), "who": arguments.by,
            "choice": arguments.decision, "note": arguments.note,
        }  # fmt: skip
        run_job("decide", decision)
    if arguments.json:
        sys.stdout.write(path.read_text(encoding="utf-8"))
        return 0
    results = load_results(path)
    print(report_text(results))
    if arguments.coverage:
        print(f"\n{coverage_text(results)}")
    if arguments.log is not None:
        print(f"\nThe decision stands in {arguments.log}.")
    if arguments.output is not None:
        print(f"\nAll answers and numbers: {path}")
    return 0


def _thresholds(arguments: argparse.Namespace) -> Thresholds:
    """Return the bounds of options and file; what comes of both was set when the later was."""
    given = parse_thresholds(arguments.threshold, now())
    if arguments.thresholds is None:
        return given
    filed = load_thresholds(arguments.thresholds)
    if not given.bounds:
        return filed
    both = [str(bound) for bound in (*filed.bounds, *given.bounds)]
    return parse_thresholds(both, max(filed.set_at, given.set_at), f"{filed.source} and option")


def told_apart(names: Sequence[str]) -> tuple[dict[str, Recipe], list[str]]:
    """Return the recipes among what was named, by their stems, and the models, paths whole.

    Prints a recipe's notes. Raises `UserError` with `same_names`, and as opening recipes does.
    """
    recipes: dict[str, Recipe] = {}
    models: list[str] = []
    for text in names:
        if is_endpoint(text) or not is_recipe(Path(text)):
            models.append(text if is_endpoint(text) else _absolute(text))
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
    return recipes, models


def usual_roles(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    """Return the roles that answer where none are named: all but the base, if there is another."""
    aligned = all(recipe.aligned is not None for recipe in recipes)
    return ("aligned" if aligned else "base", "finetuned", "merged")


def _absolute(model: str) -> str:
    """Return a path whole; what is no path here stays the hub id that it may be."""
    path = Path(model).expanduser()
    return str(path.absolute()) if model and path.exists() else model
