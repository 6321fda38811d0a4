"""The command `trimtab`: the same jobs as the window, from a terminal or a script."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import __version__
from trimtab.checkpoints import Lineup, guess_roles, open_checkpoint
from trimtab.console import ProgressLine, number, table
from trimtab.control import JobCancelled
from trimtab.errors import UserError
from trimtab.formatting import count, size
from trimtab.jobs.control import JobControl
from trimtab.merging.recipe import (
    FineTuned,
    ModelRef,
    Recipe,
    is_recipe,
    load_recipe,
    open_lineup,
)

if TYPE_CHECKING:
    from trimtab.inspection.result import Inspection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 refused, 2 misused, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except UserError as error:
        if arguments.json:
            print(json.dumps({"error": error.to_dict()}, indent=2, ensure_ascii=False))
        else:
            print(f"trimtab: {error.what}", file=sys.stderr)
            for line in (error.why, error.fix):
                if line:
                    print(f"  {line}", file=sys.stderr)
            print(f"  [{error.code}]", file=sys.stderr)
        return 1
    except (JobCancelled, KeyboardInterrupt):
        print("trimtab: stopped; nothing is left under the final name", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read has heard enough; the interpreter's last flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab",
        description="Shows what fine-tuning did to a model's safety, and steers it back.",
    )
    parser.add_argument("--version", action="version", version=f"trimtab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, help_text: str, run: Callable[[Any], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", "Open the demo models, or do the whole job without a display.", _demo)
    demo.add_argument(
        "--headless", action="store_true", help="no window: screenshots, merged model and summary"
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="DIR",
        help="where the headless run leaves its results (default: %(default)s)",
    )  # fmt: skip

    inspect = command("inspect", "Show what fine-tuning did, by layer, module or tensor.", _inspect)
    inspect.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL",
        help="model folders, .safetensors files, adapters, or one recipe; roles are guessed "
        "from names unless --base and --aligned are given",
    )  # fmt: skip
    inspect.add_argument("--base", type=Path, metavar="MODEL", help="the model before alignment")
    inspect.add_argument("--aligned", type=Path, metavar="MODEL", help="the safe model")
    inspect.add_argument(
        "--by", choices=("layer", "module", "tensor"), default="layer", help="rows of the table"
    )

    merge = command("merge", "Carry a recipe out.", _merge)
    merge.add_argument("recipe", type=Path, metavar="RECIPE", help="a .trim or .yaml file")
    merge.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the result"
    )
    merge.add_argument(
        "--dry-run", action="store_true", help="only say what would be done with each tensor"
    )
    merge.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    merge.add_argument("--resume", action="store_true", help="go on with an interrupted merge")
    merge.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:N (default: auto)"
    )

    command("doctor", "Show devices, versions and disk, and what is missing.", _doctor)
    return parser


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def _run_job(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process with a progress line; Ctrl+C stops it cleanly."""
    from trimtab.jobs.tasks import run_job

    line = ProgressLine()
    control = JobControl(line.show)
    previous = signal.signal(signal.SIGINT, lambda *_: control.cancel())
    try:
        return run_job(name, params, control)
    finally:
        signal.signal(signal.SIGINT, previous)
        line.clear()


# --- inspect ---------------------------------------------------------------------------------


def _inspect(arguments: argparse.Namespace) -> int:
    from trimtab.inspection.result import Inspection

    recipe = _lineup_recipe(arguments)
    lineup = open_lineup(recipe)
    result = _run_job("inspect", {"recipe": recipe.model_dump()})
    inspection = Inspection.load(Path(result["path"]))
    assert inspection is not None  # the job has just written it
    rows = _rows(inspection, lineup, arguments.by)
    if arguments.json:
        _print_json(_inspection_json(inspection, lineup, rows))
        return 0
    _print_lineup(lineup)
    for i, member in enumerate(lineup.finetuned):
        print(f"\n{member.name} − {lineup.reference.name}")
        print(_inspection_table(rows, i, arguments.by))
    bad = int(inspection.non_finite.sum())
    if bad:
        print(f"\nWarning: {bad:,} entries are NaN or Inf; their tensors show no numbers.")
    return 0


def _lineup_recipe(arguments: argparse.Namespace) -> Recipe:
    paths: list[Path] = arguments.models
    if len(paths) == 1 and is_recipe(paths[0]):
        return load_recipe(paths[0])
    base, aligned = arguments.base, arguments.aligned
    rest = list(paths)
    if base is None and aligned is None:
        roles = guess_roles([open_checkpoint(path) for path in paths])
        chosen = dict(zip(roles, paths, strict=True))
        base, aligned = chosen.get("base"), chosen.get("aligned")
        rest = [p for p, role in zip(paths, roles, strict=True) if role == "finetuned"]
    return Recipe(
        base=ModelRef(path=str(base)) if base else None,
        aligned=ModelRef(path=str(aligned)) if aligned else None,
        finetuned=tuple(FineTuned(path=str(path)) for path in rest),
    ).absolute(Path.cwd())


def _print_lineup(lineup: Lineup) -> None:
    for member in lineup.members:
        c = member.checkpoint
        facts = f"{count(c.n_parameters)} parameters · {c.dtype_label} · {size(c.n_bytes)}"
        print(f"{member.role:<10} {member.name}  ({facts})")
    print(lineup.verdict)
    for finding in lineup.findings:
        print(f"  {finding.level}: {finding.model}: {finding.what} {finding.effect}")


def _rows(inspection: Inspection, lineup: Lineup, by: str) -> Inspection:
    """Add the inspection up by the chosen rows."""
    import numpy as np

    from trimtab.checkpoints.naming import module_key, parse

    if by == "tensor":
        return inspection
    places = [parse(name) for name in inspection.names]
    if by == "layer":
        labels = [p.zone if p.layer is None else str(p.layer) for p in places]
        zones = ("in", "layer", "out")
        keys = {
            label: (zones.index(p.zone), p.layer) for label, p in zip(labels, places, strict=True)
        }
        ordered = sorted(keys, key=keys.__getitem__)
    else:
        labels = [p.module for p in places]
        ordered = sorted(set(labels), key=module_key)
    group_of = np.array([ordered.index(label) for label in labels], dtype=np.int32)
    return inspection.summed(group_of, tuple(ordered))


def _inspection_table(rows: Inspection, i: int, by: str) -> str:
    from trimtab.inspection import metrics

    chosen = metrics.available(rows)
    short = {
        "relative": "|τ|/|θ|", "tau": "|τ|", "alignment": "|a|", "cosine": "cos(τ,a)",
        "rollback": "rollback", "conflict": "conflict", "zeros": "zeros",
    }  # fmt: skip
    columns = [m.compute(rows, i) for m in chosen]
    return table(
        [by, *(short[m.id] for m in chosen)],
        [
            [name, *(number(float(column[n]), 4) for column in columns)]
            for n, name in enumerate(rows.names)
        ],
    )


def _inspection_json(inspection: Inspection, lineup: Lineup, rows: Inspection) -> dict[str, object]:
    from trimtab.inspection import metrics

    def values(i: int) -> list[dict[str, object]]:
        columns = {m.id: m.compute(rows, i) for m in metrics.available(rows)}
        return [
            {
                "name": name,
                **{k: None if v[n] != v[n] else float(v[n]) for k, v in columns.items()},
            }
            for n, name in enumerate(rows.names)
        ]

    return {
        "verdict": lineup.verdict,
        "reference": lineup.reference.name,
        "findings": [
            {"level": f.level, "code": f.code, "model": f.model, "what": f.what,
             "effect": f.effect, "tensors": list(f.tensors)}
            for f in lineup.findings
        ],
        "non_finite_entries": int(inspection.non_finite.sum()),
        "finetuned": {
            member.name: values(i) for i, member in enumerate(lineup.finetuned)
        },
    }  # fmt: skip


# --- merge -----------------------------------------------------------------------------------


def _merge(arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe)
    if arguments.dry_run:
        return _dry_run(arguments, recipe)
    report = _run_job(
        "merge",
        {
            "recipe": recipe.model_dump(),
            "output": str(arguments.output),
            "overwrite": arguments.overwrite,
            "resume": arguments.resume,
            "device": arguments.device,
        },
    )
    if arguments.json:
        _print_json(report)
        return 0
    counts = ", ".join(f"{n:,} {action}" for action, n in sorted(report["counts"].items()))
    print(f"{report['output']}: {counts}; {size(report['bytes_written'])} in {report['seconds']} s")
    return 0


def _dry_run(arguments: argparse.Namespace, recipe: Recipe) -> int:
    from trimtab.merging.planner import describe, plan_merge

    plan = plan_merge(recipe, open_lineup(recipe))
    if arguments.json:
        _print_json(describe(plan))
        return 0
    _print_lineup(plan.lineup)
    print()
    rows = [
        [t.name, "×".join(map(str, t.shape)) or "scalar", t.dtype.lower(), t.action,
         ", ".join(f"{r:g}" for r in t.ratios) or "–", t.why]
        for t in plan.tensors
    ]  # fmt: skip
    print(table(["tensor", "shape", "dtype", "action", "ratio", "why"], rows))
    counts = ", ".join(f"{n:,} {action}" for action, n in sorted(plan.counts.items()))
    print(
        f"\n{counts}; reads {size(plan.bytes_in)}, writes {size(plan.bytes_out)} in "
        f"{len(plan.shards)} file{'s' if len(plan.shards) != 1 else ''} to {arguments.output}"
    )
    return 0


# --- doctor and demo -------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    from trimtab.doctor import diagnose

    diagnosis = diagnose()
    print(diagnosis.to_json() if arguments.json else diagnosis.to_text())
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from trimtab.demo.run import has_display, open_window, run_headless

    if not arguments.headless and has_display():
        return open_window()
    say = (lambda text: print(text, file=sys.stderr)) if arguments.json else print
    summary = run_headless(arguments.output, say)
    if arguments.json:
        _print_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
