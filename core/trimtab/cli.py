"""The command `trimtab`: the same jobs as the window, from a terminal or a script."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import __version__
from trimtab.checkpoints import Lineup
from trimtab.commands import (
    antidote,
    attribute,
    chat,
    evaluate,
    lora,
    mask,
    merge,
    methods,
    realign,
    safety_layers,
    somf,
    subspaces,
    sweep,
)
from trimtab.commands.lineup_arguments import add_lineup_arguments, lineup_recipe, row_groups
from trimtab.commands.running import lineup_text, print_json, run_job
from trimtab.console import number, table
from trimtab.control import JobCancelled
from trimtab.errors import UserError
from trimtab.merging.recipe import open_lineup

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
    add_lineup_arguments(inspect)
    subspaces.add_arguments(
        command("subspaces", "Compare a fine-tune's directions with alignment's.", subspaces.run)
    )

    merge.add_arguments(command("merge", "Carry a recipe out.", merge.run))
    evaluate.add_arguments(
        command("evaluate", "Measure how safe and how able models are.", evaluate.run)
    )
    chat.add_arguments(
        command("chat", "Ask several models the same, and read what each answers.", chat.run)
    )
    attribute.add_arguments(
        command("attribute", "Show which weights matter on a calibration set.", attribute.run)
    )
    safety_layers.add_arguments(
        command(
            "safety-layers", "Show in which layers a model tells malicious queries from others.",
            safety_layers.run,
        )
    )  # fmt: skip
    mask.add_arguments(command("mask", "Build masks, and show what they remove.", mask.run))
    lora.add_arguments(
        command("extract-lora", "Write what fine-tuning changed as a LoRA adapter.", lora.run)
    )
    somf.add_arguments(command("somf", "Learn masks from preference pairs.", somf.run))
    antidote.add_arguments(
        command("antidote", "Prune what realignment data excite most.", antidote.run)
    )
    sweep.add_arguments(command("sweep", "Search for merges that no other one beats.", sweep.run))
    realign.add_arguments(
        command("realign", "Bring safety back from safe and useful prompts.", realign.run)
    )
    methods.add_arguments(
        command("methods", "List the merge methods, or explain one.", methods.run)
    )

    command("doctor", "Show devices, versions and disk, and what is missing.", _doctor)
    return parser


# --- inspect ---------------------------------------------------------------------------------


def _inspect(arguments: argparse.Namespace) -> int:
    from trimtab.inspection.result import Inspection

    recipe = lineup_recipe(arguments)
    lineup = open_lineup(recipe)
    result = run_job("inspect", {"recipe": recipe.model_dump()})
    inspection = Inspection.load(Path(result["path"]))
    assert inspection is not None  # the job has just written it
    rows = inspection.summed(*row_groups(inspection.names, arguments.by))
    if arguments.json:
        print_json(_inspection_json(inspection, lineup, rows))
        return 0
    print(lineup_text(lineup))
    for i, member in enumerate(lineup.finetuned):
        print(f"\n{member.name} − {lineup.reference.name}")
        print(_inspection_table(rows, i, arguments.by))
    bad = int(inspection.non_finite.sum())
    if bad:
        print(f"\nWarning: {bad:,} entries are NaN or Inf; their tensors show no numbers.")
    return 0


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
        print_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
