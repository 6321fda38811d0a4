"""`trimtab evaluate`: asks models a suite of prompts and says how safe and how able they are."""

from __future__ import annotations

import argparse
from pathlib import Path

ROLES = ("base", "aligned", "finetuned", "merged")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="model folders, endpoint:NAME@URL, or one recipe, whose roles are evaluated",
    )  # fmt: skip
    parser.add_argument(
        "--suite", default="core", metavar="SUITE",
        help="core, demo, or a file or folder of prompts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--format", metavar="NAME",
        help="what the suite's files are, where it is not recognised",
    )  # fmt: skip
    parser.add_argument(
        "--roles", type=_roles, metavar="LIST",
        help="of a recipe: base, aligned, finetuned, merged (default: all but the base)",
    )  # fmt: skip
    parser.add_argument(
        "--judge", action="append", default=[], metavar="JUDGE",
        help="phrases, keywords-29, demo, endpoint:MODEL@URL, guard:PATH or "
        "classifier:PATH#LABEL,LABEL; may be given several times, the first one counts "
        "(default: phrases; demo for the suite demo)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", default="", metavar="NAME",
        help="the model that the others are compared with (default: the aligned or first one)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N prompts of each kind, evenly spread"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (the default)"
    )
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    parser.add_argument("--system", default="", metavar="TEXT", help="system text of every prompt")
    parser.add_argument(
        "--template", choices=("model", "plain"), default="model",
        help="the model's own chat template, or bare text (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32", "stored"), default="auto",
        help="auto computes in float32 on the CPU, and in the stored precision elsewhere",
    )  # fmt: skip
    parser.add_argument(
        "--key-variable", default="", metavar="NAME",
        help="environment variable that holds the endpoints' key",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="ask again what was asked before")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write all answers and numbers as JSON"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [role for role in roles if role not in ROLES]
    if wrong or not roles:
        raise argparse.ArgumentTypeError(f"roles are {', '.join(ROLES)}, with commas between them")
    return roles


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    # what it takes is no other command's business: their start need not wait for it
    from trimtab.commands import evaluate_run

    return evaluate_run.run(arguments)
