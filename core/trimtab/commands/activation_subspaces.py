"""`trimtab subspaces --of activations`: what safe and useful answers share, beside chance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimtab.commands.lineup_arguments import row_groups
from trimtab.commands.running import print_json, run_job
from trimtab.console import number, table
from trimtab.errors import UserError
from trimtab.inspection.activation_subspaces import ActivationSubspaces, MatrixOverlap
from trimtab.merging.recipe import Recipe, open_lineup

_NOTES = """
MSO: ‖U_sᵀU_u‖² over the lesser size, U_s and U_u the leading output directions on safe and on
useful prompts. chance: random subspaces of that size. dealt out: the middle 18 of 20 draws with
U_s's output coordinates dealt out anew. relabelled: all 9 other ways to deal the prompts, in
groups, out into two sets: an overlap among those says that the two kinds of prompts use the same
directions as far as can be told. first, rms: the least and the root mean square principal angle;
of several matrices the least of all.
energies: the share of Σ|y|² of safe answers in the safe directions, in the useful ones, and what
ActSVD's (I − Π_u)Π_s keeps; then the same of useful answers.
changes: the share of τ, and of a, in the safe and in the useful directions.
|r|: difference of the mean states on harmful and benign prompts at the prompts' last token, and
the 95th percentile of that with the prompts dealt out anew; turn: cosine with r behind the block
before; cos: with {model}'s r there. Random directions give 0 ± {spread}.
It is measured, never written."""


def add_activation_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is asked of activations alone."""
    group = parser.add_argument_group("activations")
    group.add_argument(
        "--calibration", metavar="SET",
        help="harmful prompts with the refusals: a JSONL file, suite:NAME, or demo-refused",
    )  # fmt: skip
    group.add_argument(
        "--utility", metavar="SET", help="benign prompts with their answers, or demo-benign"
    )
    group.add_argument(
        "--model", default="", metavar="NAME",
        help="a name or role of the lineup's models (default: the reference)",
    )  # fmt: skip
    group.add_argument(
        "--limit", type=int, default=128, metavar="N",
        help="take N examples of each set (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--tokens",
        choices=("answers", "all"),
        default="answers",
        help="the tokens whose activations count (default: %(default)s)",
    )
    group.add_argument(
        "--centre", action="store_true", help="take the mean activation of each set away first"
    )
    group.add_argument(
        "--template", choices=("model", "plain", "alpaca"), default="model",
        help="how prompts are put to the model (default: its own chat template)",
    )  # fmt: skip
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)"
    )
    group.add_argument(
        "--bfloat16", action="store_true", help="compute in bfloat16 instead of float32"
    )


def run_activations(arguments: argparse.Namespace, recipe: Recipe) -> int:
    """Carry the command out. Raises `UserError` with `no_calibration`."""
    if not (arguments.calibration and arguments.utility):
        raise UserError(
            "no_calibration",
            "Two sets of prompts are needed.",
            "What answers activate is compared between harmful prompts and benign ones.",
            "Give --calibration (harmful, refused) and --utility (benign, answered).",
        )
    report = run_job(
        "activation_subspaces",
        {
            "recipe": recipe.model_dump(),
            "safe": arguments.calibration,
            "useful": arguments.utility,
            **{
                key: getattr(arguments, key)
                for key in ("model", "limit", "rank", "centre", "tokens", "seed", "template",
                            "device", "bfloat16")
            },
        },
    )  # fmt: skip
    found = ActivationSubspaces.load(Path(report["path"]))
    if arguments.json:
        print_json({"path": report["path"], **found.to_json()})
        return 0
    about = found.about
    print(
        f"{about['model']}: outputs on {_TOKENS[about['tokens']]}, {about['examples']} examples "
        f"each of {about['safe']} and {about['useful']} ({about['digest'][:12]})\n"
    )
    rows = _rows(found, arguments.by)
    parts = [_overlaps(arguments.by, rows), _energies(arguments.by, rows)]
    if any(m.changes for m in found.matrices):
        parts.append(_changes(arguments.by, rows, _base_of(recipe)))
    print("\n\n".join([*parts, _refusal(found)]))
    spread = number(found.refusal[0].spread)
    print(_NOTES.format(model=about["model"], spread=spread))
    return 0


Row = tuple[str, list[MatrixOverlap]]


def _rows(found: ActivationSubspaces, by: str) -> list[Row]:
    of, names = row_groups([m.name for m in found.matrices], by)
    rows = [(name, [m for m, row in zip(found.matrices, of, strict=True) if row == i])
            for i, name in enumerate(names)]  # fmt: skip
    return [*rows, ("all", list(found.matrices))] if len(rows) > 1 else rows


def _overlaps(by: str, rows: Sequence[Row]) -> str:
    lines = []
    for name, matrices in rows:
        most = sum(m.most for m in matrices)
        mso = sum(m.overlap for m in matrices) / most
        dealt = np.sum([m.dealt for m in matrices], axis=0) / most
        relabelled = np.sum([m.relabelled for m in matrices], axis=0) / most
        lines.append(
            [
                name,
                number(mso),
                number(sum(m.expected for m in matrices) / most),
                _between(np.sort(dealt)[1:-1]),
                _between(relabelled),
                f"{min(min(m.angles) for m in matrices):.1f}",
                f"{np.degrees(np.arccos(np.sqrt(mso))):.1f}",
            ]
        )
    return table([by, "MSO", "chance", "dealt out", "relabelled", "first °", "rms °"], lines)


def _between(values: np.ndarray) -> str:
    return f"{number(float(values.min()))}–{number(float(values.max()))}"


def _base_of(recipe: Recipe) -> str:
    """Return the name of the model that a starts from; empty where there is no a."""
    lineup = open_lineup(recipe)
    return lineup.base.name if lineup.base is not None and lineup.has_alignment else ""


def _energies(by: str, rows: Sequence[Row]) -> str:
    head = [
        by, "safe: in safe", "in useful", "only safe", "useful: in useful", "in safe",
        "chance: safe", "useful",
    ]  # fmt: skip
    lines = []
    for name, matrices in rows:
        safe, useful = (sum(getattr(m, f"{of}_energy") for m in matrices) for of in _KINDS)
        line = [name]
        for key, whole in (
            ("safe_in_safe", safe), ("safe_in_useful", safe), ("safe_only", safe),
            ("useful_in_useful", useful), ("useful_in_safe", useful),
        ):  # fmt: skip
            line.append(_share(sum(getattr(m, key) for m in matrices), whole))
        for whole, of in ((safe, "safe"), (useful, "useful")):
            expected = sum(
                getattr(m, f"{of}_energy") * getattr(m, f"{of}_k") / m.outputs for m in matrices
            )
            line.append(_share(expected, whole))
        lines.append(line)
    return table(head, lines)


def _changes(by: str, rows: Sequence[Row], base: str) -> str:
    names = list(dict.fromkeys(name for _, found in rows for m in found for name in m.changes))
    head = [by]
    for name in names:
        head += [f"{'a' if name == base else f'τ {name}'}: safe", "useful"]
    lines = []
    for label, matrices in rows:
        line = [label]
        for name in names:
            changes = [m.changes[name] for m in matrices if name in m.changes]
            whole = sum(c.whole for c in changes)
            line += [_share(sum(getattr(c, of) for c in changes), whole) for of in _KINDS]
        some = [c for m in matrices for c in m.changes.values()]
        whole = sum(c.whole for c in some)
        line.append(_share(sum(c.expected_safe for c in some), whole))
        lines.append(line)
    return table([*head, "chance"], lines)


_KINDS = ("safe", "useful")
_TOKENS = {"answers": "the answers' tokens", "all": "all tokens"}


def _share(part: float, whole: float) -> str:
    return number(part / whole) if whole > 0 else "–"


def _refusal(found: ActivationSubspaces) -> str:
    models = list(dict.fromkeys(layer.model for layer in found.refusal))
    blocks = sorted({layer.block for layer in found.refusal})
    by = {(layer.model, layer.block): layer for layer in found.refusal}
    head = ["layer"]
    for model in models:
        head += [f"|r| {model}", "by chance", "turn" if model == models[0] else "cos"]
    lines = []
    for block in blocks:
        line = [str(block)]
        for model in models:
            layer = by[model, block]
            turn = layer.turn if model == models[0] else layer.cosine
            line += [number(layer.norm), number(layer.chance), number(turn)]
        lines.append(line)
    return table(head, lines)
