"""`trimtab safety-layers`: shows in which layers models tell malicious queries from normal ones."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trimtab.commands.running import run_job
from trimtab.console import number, table
from trimtab.merging.files import open_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the recipe with the lineup")
    parser.add_argument(
        "--suite", default="core", metavar="SUITE",
        help="core, demo, or a file or folder of prompts: its harmful prompts are the malicious "
        "queries, its utility prompts the normal ones (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--normal", default="", metavar="KIND",
        help="other normal queries: lookalike, or a JSONL file with prompts",
    )  # fmt: skip
    parser.add_argument(
        "--malicious", default="", metavar="FILE", help="other malicious queries: a JSONL file"
    )
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N",
        help="take N queries of each kind, evenly spread (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--template", choices=("model", "plain", "alpaca"), default="model",
        help="the model's own chat template, bare text, or the paper's, Alpaca's "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gap", choices=("paper", "code", "ours"), default="ours",
        help="the gap of the table: the paper's formula, what the authors' code plots, or ours, "
        "over all pairs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--locate", nargs="?", const="aligned", default="", metavar="MODEL",
        help="find the range of layers by scaling their weights and counting refusals of "
        "lookalikes; loads the model whole (default: the aligned one)",
    )  # fmt: skip
    parser.add_argument(
        "--alpha", type=float, metavar="A", help="the factor (default: found in steps of 0.05)"
    )
    parser.add_argument(
        "--lookalikes", type=int, metavar="N", help="ask only N lookalikes, evenly spread"
    )
    parser.add_argument(
        "--judge", default="", metavar="JUDGE",
        help="what tells refusals (default: phrases; demo for the suite demo)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument(
        "--bfloat16", action="store_true", help="compute in bfloat16 instead of float32"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is known")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""

    recipe, notes = open_recipe(arguments.recipe)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    report = run_job(
        "safety_layers",
        {
            "recipe": recipe.model_dump(),
            "suite": arguments.suite,
            "normal": arguments.normal,
            "malicious": arguments.malicious,
            "limit": arguments.limit,
            "template": arguments.template,
            "locate": arguments.locate,
            "alpha": arguments.alpha,
            "judge": arguments.judge or ("demo" if arguments.suite == "demo" else "phrases"),
            "lookalikes": arguments.lookalikes,
            "seed": arguments.seed,
            "device": arguments.device,
            "bfloat16": arguments.bfloat16,
            "fresh": arguments.fresh,
        },
    )
    text = Path(report["path"]).read_text(encoding="utf-8")
    if arguments.json:
        sys.stdout.write(text + "\n")
        return 0
    print(report_text(json.loads(text), arguments.gap))
    return 0


def report_text(content: dict[str, Any], gap: str = "ours") -> str:
    """Return the tables as the command prints them."""
    normal, malicious = content["normal"], content["malicious"]
    formula = content["formulas"]["authors' code" if gap == "code" else gap]
    parts = [
        f"{normal['n']} normal queries ({normal['name']}), {malicious['n']} malicious ones "
        f"({malicious['name']}); template: {content['template']}\n"
        f"Angle gap in degrees, {'authors’ code' if gap == 'code' else gap}: {formula}",
        _gaps(content, gap),
    ]
    parts += [text for text in (_lost(content), _located(content), _shares(content)) if text]
    return "\n\n".join(parts)


def _gaps(content: dict[str, Any], gap: str) -> str:
    models = content["models"]
    blocks = max(len(m["gap"]["paper"]) for m in models)
    rows = []
    for block in range(blocks):
        row = [str(block)]
        for model in models:
            row.append(_gap(model["gap"], gap, block))
        rows.append(row)
    head = ["layer", *(model["name"] for model in models)]
    if gap == "ours":
        head = [head[0], *(f"{name} [95 %]" for name in head[1:])]
    return table(head, rows)


def _gap(gaps: dict[str, Any], gap: str, block: int) -> str:
    values = gaps["authors' code" if gap == "code" else gap]
    if gap != "ours":
        return number(values[block], 1) if block < len(values) else "–"
    if block >= len(values["value"]):
        return "–"
    return _interval(values, block)


def _interval(values: dict[str, Any], block: int) -> str:
    low, high = number(values["low"][block], 1), number(values["high"][block], 1)
    return f"{number(values['value'][block], 1)} [{low}, {high}]"


def _lost(content: dict[str, Any]) -> str:
    lost = content["lost"]
    if not lost:
        return ""
    rows = [
        [str(block), *(_interval(each, block) for each in lost)]
        for block in range(len(lost[0]["value"]))
    ]
    title = f"Degrees lost from {content['reference']} to it [95 %, bootstrap over prompts]"
    return f"{title}\n" + table(["layer", *(each["model"] for each in lost)], rows)


def _located(content: dict[str, Any]) -> str:
    found = content["located"]
    if found is None:
        return ""
    initial = "–".join(map(str, found["initial"]))
    n, scaled = found["queries"], f"by scaling with {found['alpha']:g}"
    if found["located"] is None:
        return (
            f"Safety layers of {found['model']}: not located, begun at {initial}\n"
            f"It refuses {found['baseline']} of {n} lookalikes, and as many {scaled}."
        )
    lines = [
        f"Safety layers of {found['model']}: {'–'.join(map(str, found['located']))}, {scaled}; "
        f"begun at {initial}",
        f"Lookalikes refused: {found['baseline']} of {n} as it is",
    ]
    for name, fixed in (("upper", "last layer"), ("lower", "first layer")):
        counts = "  ".join(f"{bound}: {count}" for bound, count in found[name].items())
        lines.append(f"  by {fixed}  {counts}")
    return "\n".join(lines)


def _shares(content: dict[str, Any]) -> str:
    lines = []
    for share in content["shares"]:
        if share["energy"] is not None:
            ratio = share["energy"] / share["parameters"]
            first, last = share["range"]
            lines.append(
                f"{share['model']}: {100 * share['energy']:.1f} % of what changed lies in layers "
                f"{first}–{last}, which hold {100 * share['parameters']:.1f} % of the parameters "
                f"(× {ratio:.2f})"
            )
    return "\n".join(lines)
