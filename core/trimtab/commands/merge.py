"""`trimtab merge`: carries out a recipe, Trimtab's own or mergekit's, or shows its plan."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from trimtab.commands.running import lineup_text, print_json, run_job
from trimtab.console import table
from trimtab.errors import UserError
from trimtab.formatting import size
from trimtab.merging.files import Step, open_recipe, steps
from trimtab.merging.recipe import SIZE_UNITS, open_lineup


def add_arguments(merge: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    merge.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="a .trim file, or mergekit's YAML"
    )
    merge.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the result")
    merge.add_argument(
        "--dry-run", action="store_true", help="only say what would be done with each tensor"
    )
    merge.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    merge.add_argument("--resume", action="store_true", help="go on with an interrupted merge")
    merge.add_argument(
        "--device", default="auto", metavar="NAME",
        help="auto, cpu, cuda:0, or several with commas (default: auto)",
    )  # fmt: skip
    merge.add_argument(
        "--memory", type=memory_size, metavar="SIZE",
        help="what the process may take, such as 1GB (default: no limit)",
    )  # fmt: skip
    merge.add_argument(
        "--threads", type=int, metavar="N", help="threads that read, compute and write"
    )
    merge.add_argument(
        "--export", type=Path, metavar="FILE",
        help="write the recipe in mergekit's form instead of carrying it out",
    )  # fmt: skip


def memory_size(text: str) -> int:
    """Read a size such as 1GB or 800 MB."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]B)\s*", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError("write a size as a number with KB, MB, GB or TB")
    return int(float(match[1]) * SIZE_UNITS[match[2].upper()])


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    if arguments.export is not None:
        return _export(arguments)
    if arguments.output is None:
        if not arguments.dry_run:
            raise UserError(
                "no_output",
                "It was not said where the result goes.",
                "A merge writes a folder.",
                "Add -o DIR.",
            )
        arguments.output = Path("merged")
    reports = []
    for step in steps(arguments.recipe, arguments.output):
        for note in step.notes:
            print(f"note: {note}", file=sys.stderr)
        if arguments.dry_run:
            reports.append(_dry_run(arguments, step))
            continue
        is_part = step.output.absolute() != arguments.output.absolute()
        if is_part and arguments.resume and step.output.exists():
            continue  # an earlier run has finished this part
        reports.append(_merge(arguments, step))
    if arguments.json:
        print_json(reports[-1] if len(reports) == 1 else reports)
    return 0


def _merge(arguments: argparse.Namespace, step: Step) -> dict[str, Any]:
    # a part that an interrupted run had not begun yet begins now
    partial = step.output.with_name(step.output.name + ".partial")
    is_part = step.output.absolute() != arguments.output.absolute()
    report = run_job(
        "merge",
        {
            "recipe": step.recipe.model_dump(),
            "output": str(step.output),
            "overwrite": arguments.overwrite,
            "resume": arguments.resume and (partial.exists() or not is_part),
            "device": arguments.device,
            "memory": arguments.memory,
            "threads": arguments.threads,
        },
    )
    if not arguments.json:
        counts = ", ".join(f"{n:,} {action}" for action, n in sorted(report["counts"].items()))
        written = size(report["bytes_written"])
        print(f"{report['output']}: {counts}; {written} in {report['seconds']} s")
    return report


def _dry_run(arguments: argparse.Namespace, step: Step) -> dict[str, Any]:
    from trimtab.merging.plan import describe, why_told
    from trimtab.merging.planner import plan_merge

    plan = plan_merge(step.recipe, open_lineup(step.recipe))
    if arguments.json:
        return describe(plan)
    print(lineup_text(plan.lineup))
    print()
    rows = [
        [t.name, "×".join(map(str, t.shape)) or "scalar", t.dtype.lower(), t.action,
         ", ".join(f"{r:g}" for r in t.ratios) or "–", why_told(t)]
        for t in plan.tensors
    ]  # fmt: skip
    print(table(["tensor", "shape", "dtype", "action", "ratio", "why"], rows))
    counts = ", ".join(f"{n:,} {action}" for action, n in sorted(plan.counts.items()))
    print(
        f"\n{counts}; reads {size(plan.bytes_in)}, writes {size(plan.bytes_out)} in "
        f"{len(plan.shards)} file{'s' if len(plan.shards) != 1 else ''} to {step.output}"
    )
    return {}


def _export(arguments: argparse.Namespace) -> int:
    from trimtab.merging.mergekit_export import from_recipe

    recipe, _ = open_recipe(arguments.recipe)
    text = from_recipe(recipe, open_lineup(recipe).names)
    if arguments.export == Path("-"):
        sys.stdout.write(text)
    else:
        if arguments.export.exists() and not arguments.overwrite:
            raise UserError(
                "output_exists",
                f"{arguments.export.name} exists already.",
                "Nothing is overwritten without a yes.",
                "Choose another name, or add --overwrite.",
            )
        arguments.export.write_text(text, encoding="utf-8")
    return 0
