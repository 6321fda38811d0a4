"""`trimtab attribute`: says which weights matter on a calibration set, and where they are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trimtab.checkpoints.naming import module_key, parse
from trimtab.commands.running import run_job
from trimtab.console import table
from trimtab.merging.files import open_recipe

SCORES = ("wanda", "delta-wanda", "snip", "fisher")
MODES = {"paper": "paper", "code": "authors' code", "ours": "ours"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the recipe with the lineup")
    parser.add_argument(
        "--calibration", required=True, metavar="SET",
        help="a JSONL file of prompts and answers, suite:NAME, or one of the demo's sets: "
        "demo-refused, demo-harmful, demo-benign",
    )  # fmt: skip
    parser.add_argument(
        "--score", choices=SCORES, default="delta-wanda", help="default: %(default)s"
    )
    parser.add_argument(
        "--mode", choices=tuple(MODES), default="ours",
        help="how Wanda's input strengths are taken: the paper's formula, the authors' code, or "
        "ours, over the tokens of the answers alone (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--model", default="", metavar="NAME",
        help="a name or role of the recipe's models (default: the first fine-tuned one)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, default=128, metavar="N", help="take N examples (default: %(default)s)"
    )
    parser.add_argument(
        "--template", choices=("model", "plain", "alpaca"), default="model",
        help="how prompts are put to the model (default: its own chat template)",
    )  # fmt: skip
    parser.add_argument(
        "--share", type=float, default=0.01, metavar="P",
        help="how many of all entries count as the highest (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument(
        "--bfloat16", action="store_true", help="compute in bfloat16 instead of float32"
    )
    parser.add_argument(
        "--by", choices=("layer", "module", "tensor"), default="layer", help="rows of the table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    recipe, notes = open_recipe(arguments.recipe)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    report = run_job(
        "attribute",
        {
            "recipe": recipe.model_dump(),
            "model": arguments.model,
            "calibration": arguments.calibration,
            "limit": arguments.limit,
            "score": arguments.score,
            "mode": MODES[arguments.mode],
            "template": arguments.template,
            "device": arguments.device,
            "bfloat16": arguments.bfloat16,
            "share": arguments.share,
        },
    )
    text = Path(report["path"]).read_text(encoding="utf-8")
    if arguments.json:
        content = {**json.loads(text), "files": {k: report[k] for k in ("scores", "norms")}}
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return 0
    content = json.loads(text)
    calibration = content["calibration"]
    n = len(calibration["ids"])
    print(f"{content['title']} of {content['model']}, mode {content['mode']}: {content['formula']}")
    print(f"Calibration {calibration['calibration']}: {n} examples ({calibration['digest'][:12]})")
    if losses := content.get("losses"):
        print(f"Loss of the answers: {sum(losses) / len(losses):.3f} nats a token")
    print()
    print(_table(content, arguments.by))
    kept = report["scores"] or report["norms"]
    print(f"\n{'Scores' if report['scores'] else 'Input strengths'}: {kept}")
    return 0


def _table(content: dict[str, Any], by: str) -> str:
    groups: dict[str, dict[str, float]] = {}
    for row in content["tensors"]:
        place = parse(row["name"])
        label = {"layer": str(place.layer), "module": place.module, "tensor": row["name"]}[by]
        group = groups.setdefault(label, {"entries": 0, "total": 0.0, "top": 0})
        for key in group:
            group[key] += row[key]
    entries = sum(g["entries"] for g in groups.values())
    total = sum(g["total"] for g in groups.values())
    top = sum(g["top"] for g in groups.values())
    names = sorted(groups, key=module_key) if by == "module" else list(groups)
    rows = []
    for name in names:
        group = groups[name]
        share = group["entries"] / entries
        rows.append(
            [
                name,
                f"{100 * share:.1f}",
                _percent(group["total"], total),
                _percent(group["top"], top),
                f"{group['top'] / top / share:.2f}" if top else "–",
            ]
        )
    head = [by, "entries %", "score %", f"of the highest {100 * content['share']:g} %", "× chance"]
    return table(head, rows)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"
