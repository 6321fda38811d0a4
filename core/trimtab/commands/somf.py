"""`trimtab somf`: learns masks from preference pairs, and makes every form of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trimtab.commands.realigning import card, pairs_of, percent, recipe_of
from trimtab.commands.running import print_json, run_job
from trimtab.console import number, table
from trimtab.errors import UserError
from trimtab.formatting import count
from trimtab.realign.somf_options import MERGES, RATES
from trimtab.realign.somf_units import GRANULARITIES

FORMS = ("expected", "threshold", "sample", "concrete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "recipe", nargs="+", metavar="RECIPE",
        help="a recipe with an aligned and fine-tuned models, or demo; or: export LOGITS",
    )  # fmt: skip
    parser.add_argument("--pairs", metavar="FILE", help="preference pairs, or demo")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NAME.mask.safetensors",
        help="the mask; beside it come logits, log and the recipe that uses it",
    )  # fmt: skip
    parser.add_argument(
        "--granularity", choices=GRANULARITIES, default="row",
        help="what shares a logit: an entry (paper), a row, a head or a tensor (ours) "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--merge", choices=MERGES, help="default: single for one model, else task_arithmetic"
    )
    parser.add_argument(
        "--scale", type=float, metavar="λ", help="of the merged change (default: as published)"
    )
    parser.add_argument(
        "--rescale", choices=("tensor", "none"),
        help="divide by each tensor's mean(m) (paper) or by nothing (ours)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", choices=("aligned", "authors"), default="aligned",
        help="of DPO: the frozen aligned model (paper), or what the authors' code has, a randomly "
        "masked fine-tuned one (default: %(default)s)",
    )  # fmt: skip
    presets = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
    parser.add_argument(
        "--rate", default="english", metavar="RATE",
        help=f"learning rate, or a preset of the authors': {presets} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--beta", type=float, default=0.1, metavar="β")
    parser.add_argument("--steps", type=int, default=500, metavar="N")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="pairs a step")
    parser.add_argument("--warmup", type=int, default=0, metavar="N", help="steps")
    parser.add_argument("--seed", type=int, metavar="N", help="default: 0; of an export: its own")
    parser.add_argument(
        "--validation", type=float, default=0.1, metavar="SHARE",
        help="of the prompts, kept aside to measure by (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--form", choices=FORMS, default="expected",
        help="σ(x), σ(x) > 0.5, a seeded binary sample, or a seeded soft one "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--log-every", type=int, default=10, metavar="N", help="steps (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint-every", type=int, default=100, metavar="N",
        help="steps after which what is learned is kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where it was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    if arguments.recipe[0] == "export" and len(arguments.recipe) == 2:
        return _export(arguments, arguments.recipe[1])
    if len(arguments.recipe) > 1 or not arguments.pairs:
        raise UserError(
            "somf_arguments",
            "Masks are learned from one recipe and a file of pairs.",
            f"Given: {' '.join(arguments.recipe)}; pairs: {arguments.pairs or 'none'}.",
            "Write: trimtab somf RECIPE --pairs FILE -o NAME.mask.safetensors.",
        )
    names = (
        "granularity", "merge", "scale", "rescale", "reference", "beta", "steps", "batch", "warmup",
        "validation", "log_every", "checkpoint_every", "form", "device", "resume", "overwrite",
    )  # fmt: skip
    report = run_job(
        "somf",
        {
            "recipe": recipe_of(arguments.recipe[0]).model_dump(),
            "pairs": pairs_of(arguments.pairs),
            "output": str(arguments.output.absolute()),
            "rate": _rate(arguments.rate),
            "seed": arguments.seed or 0,
            **{name: getattr(arguments, name) for name in names},
        },
    )
    if arguments.json:
        print_json(report)
    else:
        print(somf_card(report))
    return 0


def _rate(text: str) -> float:
    try:
        rate = RATES[text] if text in RATES else float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1e6:
        raise UserError(
            "somf_arguments",
            f"{text} is no learning rate.",
            "It is a number above 0, or the name of a preset.",
            f"The presets are {', '.join(RATES)}.",
        )
    return rate


def _export(arguments: argparse.Namespace, logits: str) -> int:
    report = run_job(
        "somf_export",
        {
            "logits": str(Path(logits).absolute()),
            "output": str(arguments.output.absolute()),
            "form": arguments.form,
            "seed": arguments.seed,
            "overwrite": arguments.overwrite,
        },
    )
    if arguments.json:
        print_json(report)
        return 0
    print(f"{report['mask']}: {arguments.form}")
    print(_informative(report))
    return 0


def somf_card(report: dict[str, Any]) -> str:
    """Return what is to be known of a learned mask, as text."""
    settings, pairs, log = report["settings"], report["pairs"], report["log"]
    divided = "δ·m / mean(m)" if settings["rescale"] == "tensor" else "δ·m, not rescaled"
    first, last = log[0], log[-1]
    energies = [
        f"{task}: {percent(e['removed'])} (random control {percent(e['control_removed'])})"
        for task, e in report["energy"].items()
    ]
    again = "to the same bits" if report["device"] == "cpu" else "nearly: CUDA adds in any order"
    rows = [
        ("method", f"SOMF, {report['mode']}; a logit a {settings['granularity']}; {divided}"),
        ("merge", f"{settings['merge']}, λ {settings['scale']:g}: {', '.join(report['tasks'])}"),
        ("parameters", f"{count(report['parameters'])} masked by {count(report['logits'])} logits"),
        ("data", f"{pairs['learned']:,} pairs of {pairs['name']}; {pairs['aside']:,} kept aside"),
        ("left out", pairs["left_out"] or "nothing"),
        ("learning", f"{settings['steps']} steps, loss {number(first['loss'])} → "
                     f"{number(last['loss'])}, margin {number(first['margin'])} → "
                     f"{number(last['margin'])}, mean σ(x) {number(last['mean_sigma'])}"),
        ("energy of τ", "; ".join(energies) + " removed by " + report["form"]),
        ("again", f"seed {settings['seed']} on {report['device']} with {report['threads']} "
                  f"threads: {again}"),
        ("needs", "preference pairs, gradients; no generated text"),
    ]  # fmt: skip
    head = ["pairs kept aside" if pairs["aside"] else "pairs learned from", "prefers the chosen",
            "by nats"]  # fmt: skip
    cells = [
        [name, percent(row["share"]), number(row["nats"], 2)]
        for name, row in report["preference"].items()
    ]
    written = "\n".join(f"  {kind:<7} {path}" for kind, path in report["files"].items())
    parts = [card(rows), _informative(report), table(head, cells), f"Written:\n{written}"]
    return "\n\n".join(parts)


def _informative(report: dict[str, Any]) -> str:
    share = percent(report["undecided"])
    if report["informative"]:
        return f"{share} of the entries have σ(x) within 0.1 of one half: the mask has decided."
    return (
        f"The mask is not informative: {share} of the entries have σ(x) within 0.1 of one half.\n"
        "Soft forms hardly differ from no mask; a threshold tells by the sign alone, a sample is "
        "close to chance.\nTake a higher learning rate or more steps: a logit moves about one rate "
        "a step."
    )
