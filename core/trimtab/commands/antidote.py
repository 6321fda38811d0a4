"""`trimtab antidote`: prunes what realignment data excite most in a fine-tuned model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trimtab.commands.realigning import card, pairs_of, percent, recipe_of
from trimtab.commands.running import print_json, run_job
from trimtab.console import table
from trimtab.realign.antidote import VARIANTS

NORMS = {"paper": "paper", "code": "authors' code", "ours": "ours"}
_WHAT = {
    "delta-revert": "the task vector's entries, back to the aligned model",
    "weight-zeroing": "the fine-tuned model's own entries, to zero",
    "lora-space": "the entries of the adapter's A and B, each by itself, to zero",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe with its lineup, or demo")
    parser.add_argument(
        "--calibration", required=True, metavar="FILE",
        help="harmful prompts with harmful answers; of preference pairs the rejected answers; "
        "or demo",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="NAME.mask.safetensors for delta-revert, else the folder of the pruned model",
    )  # fmt: skip
    parser.add_argument(
        "--variant", choices=VARIANTS, default="delta-revert",
        help="; ".join(f"{name}: {what}" for name, what in _WHAT.items())
        + " (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--alpha", type=float, default=0.1, metavar="α",
        help="share of each row that is pruned; the authors use 0.01 to 0.2 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--norm", choices=tuple(NORMS), default="code",
        help="how the inputs' strengths are taken (default: the authors' code)",
    )  # fmt: skip
    parser.add_argument(
        "--modules", default=None, metavar="LIST",
        help="such as q,k,v, or all (default: all, but q,k,v for weight-zeroing, as in the "
        "authors' code)",
    )  # fmt: skip
    parser.add_argument(
        "--model", default="", metavar="NAME", help="which of several fine-tuned models"
    )
    parser.add_argument(
        "--limit", type=int, default=2000, metavar="N", help="take N examples (default: 2000)"
    )
    parser.add_argument(
        "--control", type=Path, metavar="OUT",
        help="write the random control too, matched in energy matrix by matrix",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random control")
    parser.add_argument(
        "--rescale", action="store_true",
        help="have delta-revert's recipe divide by each tensor's mean of the mask (ours)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    usual = "q,k,v" if arguments.variant == "weight-zeroing" else "all"
    modules = arguments.modules or usual
    report = run_job(
        "antidote",
        {
            "recipe": recipe_of(arguments.recipe).model_dump(),
            "calibration": pairs_of(arguments.calibration),
            "output": str(arguments.output.absolute()),
            "control": None if arguments.control is None else str(arguments.control.absolute()),
            "norm": NORMS[arguments.norm],
            "modules": [] if modules == "all" else [m.strip() for m in modules.split(",")],
            **{
                name: getattr(arguments, name)
                for name in (
                    "variant",
                    "alpha",
                    "model",
                    "limit",
                    "seed",
                    "rescale",
                    "device",
                    "overwrite",
                )
            },
        },
    )
    if arguments.json:
        print_json(report)
    else:
        print(antidote_card(report))
    return 0


def antidote_card(report: dict[str, Any]) -> str:
    """Return what is to be known of a pruning, as text."""
    settings, calibration, total = report["settings"], report["calibration"], report["total"]
    control = total["control"]
    floor = (
        f"; in {report['floored']} of {report['matrices']} matrices more than α, for what is kept "
        "of a row is rounded down"
        if report["floored"]
        else ""
    )
    rows = [
        ("method", f"Antidote, {settings['variant']} ({report['mode']}): "
                   + _WHAT[settings["variant"]]),
        ("model", report["model"]),
        ("pruned", f"{total['pruned']:,} of {total['entries']:,} entries, "
                   f"{percent(total['sparsity'], 2)} with α {settings['alpha']:g}{floor}"),
        ("energy", f"{percent(total['energy'])} removed of what was looked at; "
                   f"output energy {percent(total['output_energy'])}"),
        ("random control", f"{percent(control['sparsity'])} of the entries, taken at random, have "
                           f"the same energy; output energy {percent(control['output_energy'])}"),
        ("data", f"{calibration['examples']:,} examples of {calibration['name']}; norms: "
                 f"{settings['norm']}"),
        ("again", "the same bits, whatever the seed; the seed decides the control"),
        ("needs", "harmful prompts with harmful answers; no gradients, no generated text"),
    ]  # fmt: skip
    cells = [
        [module, f"{part['pruned']:,}", percent(part["sparsity"], 2), percent(part["energy"]),
         percent(part["output_energy"]), percent(part["control"]["sparsity"])]
        for module, part in report["modules"].items()
    ]  # fmt: skip
    head = ["module", "pruned", "of entries", "energy", "output energy", "control, of entries"]
    written = "\n".join(f"  {kind:<7} {path}" for kind, path in report["files"].items())
    return "\n\n".join([card(rows), table(head, cells), f"Written:\n{written}"])
