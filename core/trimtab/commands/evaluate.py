"""`trimtab evaluate`: asks models a suite of prompts and says how safe and how able they are."""

from __future__ import annotations

import argparse
from pathlib import Path

CHOICES = ("accepted", "rejected", "deferred", "noted")
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
        "--roles", type=parse_roles, metavar="LIST",
        help="of a recipe: base, aligned, finetuned, merged (default: all but the base)",
    )  # fmt: skip
    parser.add_argument(
        "--judge", action="append", default=[], metavar="JUDGE",
        help="phrases, keywords-29, demo, first-token[:THRESHOLD], imported:FILE, "
        "endpoint:MODEL@URL, guard:PATH or classifier:PATH#LABEL,LABEL; may be given several "
        "times, the first one counts (default: phrases; demo for the suite demo)",
    )  # fmt: skip
    parser.add_argument(
        "--compare", default="", metavar="JUDGE",
        help="endpoint:MODEL@URL, which compares each model's answers with the baseline's, in "
        "both orders",
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
    parser.add_argument(
        "--controls", action="store_true",
        help="ask also what a recipe's merge has to be better than: half of the change, and a "
        "random mask that takes as much of it away",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="BOUND",
        help="a bound set beforehand, such as attack_success<=0.05; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="a file of bounds, one a line"
    )
    parser.add_argument(
        "--calibration", action="append", default=[], metavar="SET",
        help="prompts the models were made with: a file, a shipped set or a sweep's folder; the "
        "suite may hold none of them (those that masks know are looked at anyway)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-overlap", action="store_true",
        help="go on where the suite holds calibration prompts; the results will say so",
    )  # fmt: skip
    parser.add_argument(
        "--lm-eval", type=_tasks, default=(), metavar="TASK,TASK",
        help="run these tasks of the lm-evaluation-harness on each model, where it is installed",
    )  # fmt: skip
    parser.add_argument(
        "--lm-eval-include", type=Path, metavar="FOLDER", help="task files of your own"
    )
    parser.add_argument(
        "--coverage", action="store_true", help="print what the suite asks about, and what not"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE",
        help="add a line to a decision log: when, who, these results, thresholds and verdicts",
    )  # fmt: skip
    parser.add_argument("--by", default="", metavar="NAME", help="who decides, for the log")
    parser.add_argument(
        "--decision", choices=CHOICES, default="noted", help="for the log (default: %(default)s)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="what the log is to say")
    parser.add_argument(
        "--no-hashes", action="store_true", help="leave the SHA-256 of the models' files out"
    )
    parser.add_argument("--fresh", action="store_true", help="ask again what was asked before")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write all answers and numbers as JSON"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def parse_roles(text: str) -> tuple[str, ...]:
    """Read a list of roles; argparse says what is wrong with it."""
    roles = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [role for role in roles if role not in ROLES]
    if wrong or not roles:
        raise argparse.ArgumentTypeError(f"roles are {', '.join(ROLES)}, with commas between them")
    return roles


def _tasks(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    # what it takes is no other command's business: their start need not wait for it
    from trimtab.commands import evaluate_run

    return evaluate_run.run(arguments)
