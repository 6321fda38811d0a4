"""`trimtab sweep`: searches what may vary in a recipe for merges that no other one beats."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; those without a value here count only where given."""
    parser.add_argument(
        "recipe", nargs="?", type=Path, metavar="RECIPE",
        help="the recipe to search around, or demo; not needed with --resume",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the sweep's folder"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--vary", action="append", metavar="WHAT",
        help="ratio, curve:KNOTS, modules, method:A,B, mask:FILE,off, or a parameter as in "
        "density:0.2..1; MODEL/ before it for one model; may be given several times "
        "(default: curve and modules)",
    )  # fmt: skip
    what.add_argument("--space", type=Path, metavar="FILE", help="what may vary, as YAML")
    parser.add_argument(
        "--sampler", choices=("tpe", "nsga2", "cmaes", "random", "grid"),
        help="how the next trial is chosen (default: tpe)",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, metavar="N", help="trials in all (default: 100 without --minutes)"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="end the search after M minutes")
    parser.add_argument(
        "--objectives", metavar="LIST",
        help="refusal, over_refusal, task, kl, perplexity, refusal_margin, task_margin, and with "
        "answers harm; with commas (default: refusal,over_refusal,task)",
    )  # fmt: skip
    parser.add_argument(
        "--constraint", action="append", metavar="BOUND",
        help="what a merge must keep, as in 'over_refusal<=0.2'; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--measure", choices=("probes", "answers"),
        help="what a trial costs: one look at each prompt, or whole answers and the judge "
        "(default: probes)",
    )  # fmt: skip
    parser.add_argument(
        "--suite", metavar="SUITE",
        help="core, demo, or a file or folder of prompts (default: demo for the demo's models, "
        "else core)",
    )  # fmt: skip
    parser.add_argument("--format", metavar="NAME", help="what the suite's files are")
    parser.add_argument(
        "--judge", metavar="JUDGE", help="as in evaluate (default: phrases; demo for suite demo)"
    )
    parser.add_argument(
        "--held-out", type=float, metavar="SHARE",
        help="of the prompts, which the search never sees (default: 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="prompts of each kind to search on (default: 128)"
    )
    parser.add_argument(
        "--points", type=int, default=8, metavar="N",
        help="of the front, looked at on the held-out prompts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--linear-steps", type=int, metavar="N", help="ratios of the baseline (default: 10)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="values of each range in a grid")
    parser.add_argument("--population", type=int, metavar="N", help="of cmaes and nsga2")
    parser.add_argument("--seed", type=int, metavar="N", help="of split and sampler (default: 0)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes, each of which holds the models (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of answers (default: 256)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="of answers (default: 8)")
    parser.add_argument("--system", metavar="TEXT", help="system text of every prompt")
    parser.add_argument("--template", choices=("model", "plain"), help="default: model")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace the sweep in DIR")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    # what it takes is no other command's business: their start need not wait for it
    from trimtab.commands import sweep_run

    return sweep_run.run(arguments)
