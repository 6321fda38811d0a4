"""`trimtab extract-lora`: writes what fine-tuning changed as a LoRA adapter."""

from __future__ import annotations

import argparse
from pathlib import Path

from trimtab.commands.running import print_json, run_job
from trimtab.console import number, table
from trimtab.formatting import size


def add_arguments(extract: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    extract.add_argument("finetuned", type=Path, metavar="FINETUNED", help="the fine-tuned model")
    extract.add_argument(
        "--reference", type=Path, required=True, metavar="MODEL",
        help="the model it was fine-tuned from",
    )  # fmt: skip
    extract.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    extract.add_argument(
        "-r", "--rank", type=int, default=32, metavar="R",
        help="largest rank of the factors (default: %(default)s)",
    )  # fmt: skip
    extract.add_argument(
        "--energy", type=float, metavar="SHARE",
        help="choose each tensor's rank so that this share of |ΔW|² is kept, up to -r",
    )  # fmt: skip
    extract.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16",
        help="precision of the factors (default: %(default)s)",
    )  # fmt: skip
    extract.add_argument(
        "--embeddings", action="store_true", help="adapt embedding and head as well"
    )
    extract.add_argument(
        "--whole", action="store_true",
        help="write changed norms and biases whole, as modules_to_save",
    )  # fmt: skip
    extract.add_argument(
        "--base-name", default="", metavar="ID", help="what the adapter calls its base model"
    )
    extract.add_argument("--seed", type=int, default=0, help="of the randomised decomposition")
    extract.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    report = run_job(
        "extract_lora",
        {
            "finetuned": str(arguments.finetuned.absolute()),
            "reference": str(arguments.reference.absolute()),
            "output": str(arguments.output),
            "rank": arguments.rank,
            "energy": arguments.energy,
            "dtype": arguments.dtype,
            "embeddings": arguments.embeddings,
            "whole": arguments.whole,
            "base_name": arguments.base_name,
            "seed": arguments.seed,
            "overwrite": arguments.overwrite,
        },
    )
    if arguments.json:
        print_json(report)
        return 0
    rows = [[name, str(t["rank"]), number(t["error"], 4)] for name, t in report["targets"].items()]
    print(table(["tensor", "rank", "|ΔW − BA|/|ΔW|"], rows))
    for name, left in report["left_out"].items():
        print(f"left out: {name}: {left['why']}")
    print(
        f"\n{report['output']}: {len(rows)} tensors, error {number(report['error'], 4)} over all; "
        f"{size(report['n_bytes'])} in {report['seconds']:.3g} s"
    )
    return 0
