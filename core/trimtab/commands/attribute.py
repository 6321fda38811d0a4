"""`trimtab attribute`: says which weights matter on a calibration set, and where they are."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.commands.lineup_arguments import row_groups
from trimtab.commands.running import print_json, run_job
from trimtab.console import table
from trimtab.inspection.attribution import KINDS
from trimtab.inspection.attribution_metrics import (
    Scored,
    enrichment,
    entries_share,
    top_share,
)
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
    path = Path(report["path"])
    if arguments.json:
        content = json.loads(path.read_text(encoding="utf-8"))
        print_json({**content, "files": {k: report[k] for k in ("scores", "norms")}})
        return 0
    found, kind = Scored.load(path), KINDS[arguments.score]
    print(f"{kind.title} of {found.model}, mode {found.mode}: {kind.formula}")
    print(
        f"Calibration {found.calibration}: {found.examples} examples, {found.tokens:,} tokens, "
        f"{found.answer_tokens:,} of them answers' ({found.digest[:12]})"
    )
    if found.loss is not None:
        print(f"Loss of the answers: {found.loss:.3f} nats a token")
    print()
    print(_table(found, arguments.by))
    kept = report["scores"] or report["norms"]
    print(f"\n{'Scores' if report['scores'] else 'Input strengths'}: {kept}")
    return 0


def _table(found: Scored, by: str) -> str:
    group_of, names = row_groups(found.summary.names, by)
    summary = found.summary.added(group_of.astype(np.intp), names)
    rows, whole = replace(found, summary=summary), summary.total.sum()
    of_all, of_top, times = entries_share(rows), top_share(rows), enrichment(rows)
    lines = [
        [
            name,
            _percent(of_all[i]),
            _percent(summary.total[i] / whole) if whole else "–",
            _percent(of_top[i]),
            "–" if np.isnan(times[i]) else f"{times[i]:.2f}",
        ]
        for i, name in enumerate(names)
    ]
    head = [by, "entries %", "score %", f"of the highest {100 * summary.share:g} %", "× chance"]
    return table(head, lines)


def _percent(part: float) -> str:
    return "–" if np.isnan(part) else f"{100 * part:.1f}"
