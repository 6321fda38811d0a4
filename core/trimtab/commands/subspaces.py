"""`trimtab subspaces`: how much of a fine-tune lies where alignment does, beside chance."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.commands.activation_subspaces import add_activation_arguments, run_activations
from trimtab.commands.lineup_arguments import add_lineup_arguments, lineup_recipe, row_groups
from trimtab.commands.running import lineup_text, print_json, run_job
from trimtab.console import number, table
from trimtab.inspection import spectral_metrics as metrics
from trimtab.inspection.spectra import RANK, Floats, Spectra
from trimtab.merging.recipe import open_lineup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_lineup_arguments(parser)
    parser.add_argument(
        "--of", choices=("changes", "activations"), default="changes",
        help="of what: what fine-tuning and alignment changed, or what safe and useful answers "
        "activate (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--level", choices=("coarse", "fine", "exact"), default="exact",
        help="how closely to look: a small sketch, the 64 largest singular values by a large one, "
        "or all of them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rank", type=int, default=RANK, metavar="K",
        help="directions of the alignment vector, or of activations; at most an eighth of a "
        "matrix's smaller side, or of its outputs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sketches and chance")
    add_activation_arguments(parser)
    parser.add_argument(
        "--list", action="store_true", help="list what a safety subspace can mean, and stop"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    if arguments.list:
        return _list(arguments.json)
    recipe = lineup_recipe(arguments)
    if arguments.of == "activations":
        return run_activations(arguments, recipe)
    lineup = open_lineup(recipe)
    found = run_job(
        "spectra",
        {
            "recipe": recipe.model_dump(),
            "level": arguments.level,
            "rank": arguments.rank,
            "seed": arguments.seed,
        },
    )
    spectra = Spectra.load(Path(found["path"]))
    assert spectra is not None  # the job has just written it
    rows = spectra.summed(*row_groups(spectra.names, arguments.by))
    if arguments.json:
        print_json(_json(rows, found["path"]))
        return 0
    print(lineup_text(lineup))
    for i, member in enumerate(lineup.finetuned):
        print(f"\n{member.name} − {lineup.reference.name}   ({spectra.stage} spectra)")
        print(_table(rows, i, arguments.by))
    if spectra.has_alignment:
        print(
            "\nsr, er: stable and effective rank. share: of |τ|² in the leading output directions"
            "\nof a. MSO: how far the leading directions of τ and a coincide. Beside each what a"
            "\nrandom subspace of that size gives, ± one standard deviation, and the middle 18 of"
            "\n20 draws with a's output coordinates dealt out anew: a share no larger than those"
            "\ncomes from what all outputs have in common, not from alignment's directions."
        )
    return 0


def _list(as_json: bool) -> int:
    found = run_job("subspaces", {})
    if as_json:
        print_json(found)
        return 0
    for one in found["subspaces"]:
        print(f"{one['name']}: {one['title']}  [{one['mode']}]\n  {one['sentence']}")
        print(f"  {one['formula']}\n  {one['reference']}")
        given = ", ".join(f"{p['name']} = {p['default']}" for p in one["parameters"])
        print(f"  needs {', '.join(one['needs'])}{'; ' + given if given else ''}\n")
    return 0


def _rows_with_matrices(rows: Spectra) -> list[int]:
    return [n for n in range(len(rows.names)) if rows.matrices[n]]


def _table(rows: Spectra, i: int, by: str) -> str:
    ranks = [("sr(τ)", metrics.stable_rank), ("er(τ)", metrics.effective_rank)]
    if rows.has_alignment:
        ranks += [("sr(a)", metrics.alignment_stable_rank)]
    columns = [compute(rows, i) for _, compute in ranks]
    head = [by, *(title for title, _ in ranks)]
    if rows.has_alignment:
        head += ["share", "chance", "dealt out", "MSO", "chance", "dealt out"]
    share, overlap = metrics.safety_energy(rows, i), metrics.overlap(rows, i)
    expected, mso = metrics.expected_energy(rows, i), metrics.expected_overlap(rows, i)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(rows.inside_variance[:, i]) / rows.whole[:, i]
        dealt = rows.inside_permuted[:, i] / rows.whole[:, i, None]
        dealt_overlap = rows.overlap_permuted[:, i] / rows.overlap_most[:, i, None]
    lines = []
    for n in _rows_with_matrices(rows):
        line = [rows.names[n], *(number(float(column[n]), 1) for column in columns)]
        if rows.has_alignment:
            spread = "" if np.isnan(deviation[n]) else f" ± {number(float(deviation[n]))}"
            line += [
                number(float(share[n])),
                number(float(expected[n])) + spread,
                _interval(dealt[n]),
                number(float(overlap[n])),
                number(float(mso[n])),
                _interval(dealt_overlap[n]),
            ]
        lines.append(line)
    return table(head, lines)


def _interval(draws: Floats) -> str:
    if np.isnan(draws).any():
        return "–"
    ordered = np.sort(draws)
    return f"{number(float(ordered[1]))}–{number(float(ordered[-2]))}"


def _json(rows: Spectra, path: str) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    def one(n: int, i: int) -> dict[str, Any]:
        found: dict[str, Any] = {"name": rows.names[n]}
        for metric in metrics.available(rows):
            found[metric.id] = plain(metric.compute(rows, i)[n])
            if metric.expected is not None:
                found[f"{metric.id}_expected"] = plain(metric.expected(rows, i)[n])
        return found

    kept = _rows_with_matrices(rows)
    return {
        "path": path,
        "stage": rows.stage,
        "rank": rows.rank,
        "seed": rows.seed,
        "finetuned": {name: [one(n, i) for n in kept] for i, name in enumerate(rows.finetuned)},
    }
