"""`trimtab mask`: builds masks, joins them, shows what they remove, makes random controls."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trimtab.commands.realigning import percent, recipe_of
from trimtab.commands.running import print_json, run_job
from trimtab.console import table
from trimtab.formatting import count

SCORES = ("magnitude", "wanda", "delta-wanda", "stored")
OPS = ("and", "or", "minus", "xor", "times")
NORMS = {"paper": "paper", "code": "authors' code", "ours": "ours"}
_GROUPS = {"layer": "layers", "module": "modules", "tensor": "tensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    def action(name: str, help_text: str, run_it: Any) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help_text, description=help_text)
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS,
            help="print the result as JSON",
        )  # fmt: skip
        sub.set_defaults(act=run_it)
        return sub

    build = action("build", "Choose the entries of a task vector that survive.", _build)
    _of_model(build)
    build.add_argument(
        "--by", choices=SCORES, default="magnitude",
        help="magnitude needs no data; stored scores, and the input strengths of the Wandas, come "
        "from 'trimtab attribute' (default: %(default)s)",
    )  # fmt: skip
    build.add_argument("--scores", type=Path, metavar="FILE", help="the file that --by needs")
    much = build.add_mutually_exclusive_group(required=True)
    much.add_argument("--keep", type=float, metavar="SHARE", help="keep the highest scores")
    much.add_argument("--remove", type=float, metavar="SHARE", help="remove the highest scores")
    much.add_argument("--threshold", type=float, metavar="T", help="keep scores of T and more")
    much.add_argument("--random", type=float, metavar="P", help="keep each with probability P")
    build.add_argument(
        "--per", choices=("row", "tensor", "model"), default="tensor",
        help="of what the shares are (default: %(default)s)",
    )  # fmt: skip
    build.add_argument("--smallest", action="store_true", help="the lowest scores instead")
    build.add_argument(
        "--minus", type=float, metavar="SHARE",
        help="but not the highest SHARE of other scores: the set difference of Wei et al.",
    )  # fmt: skip
    build.add_argument("--minus-by", choices=SCORES, default="stored", help="which other scores")
    build.add_argument("--minus-scores", type=Path, metavar="FILE", help="the file of these")
    _norm(build)
    _of_tensors(build)
    build.add_argument("--seed", type=int, default=0, metavar="N", help="of --random")
    _to_file(build)

    show = action("show", "Show what masks remove, beside what chance would.", _show)
    _of_model(show)
    _masks(show, "masks one on top of the other; by default the recipe's own")
    inputs = show.add_mutually_exclusive_group()
    inputs.add_argument(
        "--calibration", default="", metavar="SET",
        help="run the model on these prompts for the output energy: demo-harmful, demo-refused, "
        "demo-benign, a JSONL file, or suite:NAME",
    )  # fmt: skip
    inputs.add_argument(
        "--norms", type=Path, metavar="FILE", help="input strengths in place of prompts"
    )
    show.add_argument(
        "--outputs", choices=("auto", "exact", "diagonal"), default="auto",
        help="with prompts: exact, with Σ x xᵀ; diagonal, as if inputs were uncorrelated; auto, "
        "exact where it is small (default: %(default)s)",
    )  # fmt: skip
    show.add_argument(
        "--limit", type=int, default=128, metavar="N", help="of the prompts (default: %(default)s)"
    )
    _norm(show)
    show.add_argument("--by", choices=tuple(_GROUPS), default="layer", help="rows of the table")

    combine = action("combine", "Write several masks as one.", _combine)
    combine.add_argument("masks", nargs="+", type=Path, metavar="MASK")
    combine.add_argument(
        "--op", choices=OPS, default="and",
        help="what joins each mask to those before it: kept by both, by either, by the first and "
        "not the others, by exactly one, or the product (default: %(default)s)",
    )  # fmt: skip
    combine.add_argument("--invert", action="store_true", help="the complement of the result")
    _to_file(combine)

    control = action("control", "Write a random mask that removes as much as another.", _control)
    _of_model(control)
    _masks(control, "the mask to match; by default the recipe's own")
    control.add_argument(
        "--match", choices=("energy", "entries"), default="energy",
        help="the energy of the task vector, or the number of entries (default: %(default)s)",
    )  # fmt: skip
    control.add_argument(
        "--over", choices=("tensor", "model"), default="tensor",
        help="in each tensor, or over all with one probability (default: %(default)s)",
    )  # fmt: skip
    control.add_argument("--seed", type=int, default=0, metavar="N")
    _to_file(control)


def _of_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe with its lineup, or demo")
    parser.add_argument(
        "--model", default="", metavar="NAME", help="which of several fine-tuned models"
    )


def _masks(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("masks", nargs="*", type=Path, metavar="MASK", help=help_text)


def _norm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--norm", choices=tuple(NORMS), default="ours",
        help="how the inputs' strengths are taken (default: %(default)s)",
    )  # fmt: skip


def _of_tensors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layers", type=_layers, metavar="A-B", help="only in layers A to B, both of them included"
    )
    parser.add_argument("--modules", default="", metavar="LIST", help="only in these, as in q,k,v")
    parser.add_argument(
        "--tensors", default="", metavar="NAME", help="only in these; * is anything"
    )


def _to_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="NAME.mask.safetensors"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _layers(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        raise argparse.ArgumentTypeError("layers are written as 3 or 0-5")
    return int(first), int(last or first)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    status: int = arguments.act(arguments)
    return status


def _build(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments.recipe).model_dump()
    only = _rule(arguments)
    shared = {
        "recipe": recipe,
        "output": str(arguments.output),
        "model": arguments.model,
        "overwrite": arguments.overwrite,
    }
    if arguments.random is not None:
        chance = {"random": {"keep": arguments.random, "seed": arguments.seed}}
        elsewhere = [{"rule": only, "invert": True, "op": "or"}] if only else []
        job, params = "mask_combine", {**shared, "entries": [chance, *elsewhere]}
    else:
        of = {
            "score": arguments.by, "file": _path(arguments.scores), "mode": NORMS[arguments.norm],
            "keep": arguments.keep, "remove": arguments.remove, "threshold": arguments.threshold,
            "extent": arguments.per, "smallest": arguments.smallest,
        }  # fmt: skip
        minus = None
        if arguments.minus is not None:
            minus = {
                "score": arguments.minus_by, "file": _path(arguments.minus_scores),
                "mode": NORMS[arguments.norm], "keep": arguments.minus, "extent": arguments.per,
            }  # fmt: skip
        job, params = "mask_build", {**shared, "of": of, "minus": minus, "only": only}
    result = run_job(job, params)
    return _written(arguments, result)


def _rule(arguments: argparse.Namespace) -> dict[str, Any] | None:
    rule = {
        "layers": arguments.layers,
        "modules": tuple(m for m in arguments.modules.split(",") if m),
        "tensors": arguments.tensors,
    }
    return rule if any(rule.values()) else None


def _path(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _entries(paths: list[Path], op: str = "and") -> list[dict[str, Any]]:
    return [
        {"path": str(path.absolute()), "op": op if number else "and"}
        for number, path in enumerate(paths)
    ]


def _show(arguments: argparse.Namespace) -> int:
    result = run_job(
        "mask_account",
        {
            "recipe": recipe_of(arguments.recipe).model_dump(),
            "entries": _entries(arguments.masks) if arguments.masks else None,
            "model": arguments.model,
            "norms": _path(arguments.norms),
            "mode": NORMS[arguments.norm],
            "calibration": arguments.calibration,
            "limit": arguments.limit,
            "output": arguments.outputs,
        },
    )
    if arguments.json:
        print_json(result)
        return 0
    for mask in result["masks"]:
        seed = "" if mask["seed"] is None else f", seed {mask['seed']}"
        print(f"{Path(mask['path']).name}: {mask['builder']} ({mask['mode']}{seed})")
        for prompts in mask["prompts"]:
            print(f"  found with {len(prompts['ids'])} prompts of {prompts['name']}")
    print(account_table(result, arguments.by))
    if result["knows"]["output"]:
        print(outputs_note(result))
    return 0


def outputs_note(account: dict[str, Any]) -> str:
    """Say of what the output energy is, and whether it is exact."""
    how = {
        "exact": "‖X((1 − m) ⊙ τ)ᵀ‖² / ‖Xτᵀ‖², exact",
        "diagonal": "as if inputs were uncorrelated: Σ((1 − m) τ_ij s_j)² / Σ(τ_ij s_j)²",
    }[account["knows"]["output"]]
    measured = account["measured"]
    where = "" if measured is None else (
        f" on {measured['examples']} prompts of {measured['calibration']}, over "
        + ("their answers' tokens" if measured["tokens"] == "answers" else "all tokens")
    )  # fmt: skip
    return f"output energy: {how}; of the Linears in the blocks{where}"


def account_table(account: dict[str, Any], by: str = "layer") -> str:
    """Return what a mask removes as a table, the total last; by chance in brackets."""
    knows = account["knows"]
    head = [by, "entries", "kept", "energy of τ removed (by chance)"]
    head += ["energy of a removed (by chance)"] if knows["alignment"] else []
    head += ["output energy removed (by chance)"] if knows["output"] else []

    def row(name: str, part: dict[str, Any]) -> list[str]:
        cells = [name, count(int(part["entries"])), percent(part["density"], 2)]
        for of in ("tau", "alignment", "output"):
            if of == "tau" or knows[of]:
                cells.append(_shares(part[f"share_of_{of}"], part[f"share_of_{of}_by_chance"]))
        return cells

    rows = [
        row("outside" if by == "layer" and name == "-1" else name, part)
        for name, part in account[_GROUPS[by]].items()
    ]
    return table(head, [*rows, row("all", account["total"])])


def _shares(removed: float | None, chance: float | None) -> str:
    if removed is None or chance is None:
        return "–"
    return f"{percent(removed, 2)} ({percent(chance, 2)})"


def _combine(arguments: argparse.Namespace) -> int:
    entries = _entries(arguments.masks, arguments.op)
    if arguments.invert:
        # what everything has and the stack has not, or the other way round
        entries.append({"rule": {}, "op": "xor"})
    result = run_job(
        "mask_combine",
        {
            "entries": entries,
            "output": str(arguments.output),
            "overwrite": arguments.overwrite,
        },
    )
    return _written(arguments, result)


def _control(arguments: argparse.Namespace) -> int:
    result = run_job(
        "mask_control",
        {
            "recipe": recipe_of(arguments.recipe).model_dump(),
            "output": str(arguments.output),
            "entries": _entries(arguments.masks) if arguments.masks else None,
            "model": arguments.model,
            "match": arguments.match,
            "over": arguments.over,
            "seed": arguments.seed,
            "overwrite": arguments.overwrite,
        },
    )
    if not arguments.json:
        print(
            f"matched in {result['match']}: {percent(result['error'], 4)} off in all, "
            f"at most {percent(result['worst_error'], 4)} in a tensor"
        )
    return _written(arguments, result)


def _written(arguments: argparse.Namespace, result: dict[str, Any]) -> int:
    if arguments.json:
        print_json(result)
        return 0
    if result["account"] is not None:
        print(account_table(result["account"]))
    print(result["path"])
    return 0
