"""`trimtab realign`: brings safety back from safe and useful prompts, by one of several methods."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args, get_origin

from trimtab.commands.mask import account_table
from trimtab.commands.realigning import DEMO, card, percent, recipe_of
from trimtab.commands.running import print_json, run_job
from trimtab.console import number, table
from trimtab.realign.data_methods import DATA_METHODS, DataMethod

_SETS = "a JSONL file of prompts and answers, suite:NAME, demo-refused, demo-harmful, demo-benign"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: those of each method are its options."""
    methods = parser.add_subparsers(title="methods", required=True, metavar="METHOD")
    for method in DATA_METHODS.values():
        text = f"{method.sentence} {method.formula}. {method.reference}."
        sub = methods.add_parser(
            method.name,
            help=method.sentence,
            description=text.replace("%", "%%"),
            allow_abbrev=False,  # an option of another method must not be taken for a set
        )
        sub.set_defaults(method=method)
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS,
            help="print the result as JSON",
        )  # fmt: skip
        _common(sub, method)
        _own(sub.add_argument_group("options of the method"), method)


def _common(sub: argparse.ArgumentParser, method: DataMethod) -> None:
    sub.add_argument("recipe", metavar="RECIPE", help="a recipe with its lineup, or demo")
    sub.add_argument(
        "--safety-set", required=True, metavar="SET",
        help=f"harmful prompts with refusals: {_SETS}, or demo",
    )  # fmt: skip
    if method.utility:
        sub.add_argument(
            "--utility-set", required=True, action="append", metavar="SET",
            help="useful prompts with their answers, of the task above all, in the same forms",
        )  # fmt: skip
    what = {"mask": "NAME.mask.safetensors", "recipe": "NAME.trim, beside which the masks go",
            "model": "the folder of the model"}[method.result]  # fmt: skip
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=what)
    sub.add_argument(
        "--model", default="", metavar="NAME", help="which of several fine-tuned models"
    )
    sub.add_argument(
        "--limit", type=int, default=128, metavar="N",
        help="take N examples of each set (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--template", choices=("model", "plain", "alpaca"), default="model",
        help="how prompts are put to the models (default: their own chat template)",
    )  # fmt: skip
    sub.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    sub.add_argument("--bfloat16", action="store_true", help="compute in bfloat16")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _own(group: argparse._ArgumentGroup, method: DataMethod) -> None:
    """Declare an argument for each option, as its annotation says."""
    for name, field in method.options.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) else None
        kind = type(field.default)
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=f"option_{name}", default=field.default, type=kind,
            choices=choices, metavar=None if choices else kind.__name__[0].upper(),
            help=f"{field.description} (default: %(default)s)",
        )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    method: DataMethod = arguments.method
    utility = arguments.utility_set if method.utility else []
    report = run_job(
        "realign",
        {
            "method": method.name,
            "recipe": recipe_of(arguments.recipe).model_dump(),
            "safety": "demo-refused" if arguments.safety_set == DEMO else arguments.safety_set,
            "utility": [_useful(name) for name in utility],
            "output": str(arguments.output.absolute()),
            "options": {
                name: getattr(arguments, f"option_{name}") for name in method.options.model_fields
            },
            **{
                name: getattr(arguments, name)
                for name in ("model", "limit", "template", "device", "bfloat16", "overwrite")
            },
        },
    )
    if arguments.json:
        print_json(report)
    else:
        print(realign_card(report))
    return 0


def _useful(name: str) -> str:
    """Return a set's name, or the file of the demo's own: the task its models were tuned to."""
    if name != DEMO:
        return name
    from trimtab.demo.useful import demo_useful_file

    return str(demo_useful_file())


def realign_card(report: dict[str, Any]) -> str:
    """Return what is to be known of what was done, as text."""
    told = ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else
        f"{name.replace('_', ' ')} {value}"
        for name, value in report["options"].items()
    )  # fmt: skip
    sets = [
        (role, f"{len(s['ids']):,} examples of {s['name']} ({s['digest'][:12]})")
        for role, found in report["sets"].items()
        for s in found
    ]
    rows = [
        ("method", f"{report['title']} ({report['mode']})"),
        ("formula", report["formula"]),
        ("model", report["model"]),
        ("options", told),
        *sets,
        *((label, text) for label, text in report.get("facts", {}).items()),
    ]
    written = "\n".join(f"  {kind:<7} {path}" for kind, path in report["files"].items())
    return "\n\n".join([card(rows), _table(report), f"Written:\n{written}"])


def _table(report: dict[str, Any]) -> str:
    if "accounts" in report:
        return "\n\n".join(
            f"{model}\n{account_table(account, 'module')}"
            for model, account in report["accounts"].items()
        )
    head = ["module", "matrices", "of the change kept", "of the output energy kept"]
    cells = [
        [name, str(part["matrices"]), percent(part["kept"], 2), number(part["output"], 4)]
        for name, part in report["modules"].items()
    ]
    return table(head, cells)
