"""Reads a lineup, and the rows of a table of its tensors, from a command's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import guess_roles, open_checkpoint
from trimtab.checkpoints.naming import module_key, parse
from trimtab.merging.files import open_recipe
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, is_recipe


def add_lineup_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models of a lineup and the rows of a table."""
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL",
        help="model folders, .safetensors files, adapters, or one recipe; roles are guessed "
        "from names unless --base and --aligned are given",
    )  # fmt: skip
    parser.add_argument("--base", type=Path, metavar="MODEL", help="the model before alignment")
    parser.add_argument("--aligned", type=Path, metavar="MODEL", help="the safe model")
    parser.add_argument(
        "--by", choices=("layer", "module", "tensor"), default="layer", help="rows of the table"
    )


def lineup_recipe(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe that the arguments name, or one of the models that they name."""
    paths: list[Path] = arguments.models
    if len(paths) == 1 and is_recipe(paths[0]):
        return open_recipe(paths[0])[0]
    base, aligned = arguments.base, arguments.aligned
    rest = list(paths)
    if base is None and aligned is None:
        roles = guess_roles([open_checkpoint(path) for path in paths])
        chosen = dict(zip(roles, paths, strict=True))
        base, aligned = chosen.get("base"), chosen.get("aligned")
        rest = [p for p, role in zip(paths, roles, strict=True) if role == "finetuned"]
    return Recipe(
        base=ModelRef(path=str(base)) if base else None,
        aligned=ModelRef(path=str(aligned)) if aligned else None,
        finetuned=tuple(FineTuned(path=str(path)) for path in rest),
    ).absolute(Path.cwd())


def row_groups(names: Sequence[str], by: str) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Return which row of a table by "layer", "module" or "tensor" each tensor belongs to.

    int32 [tensors], and the rows' labels in reading order.
    """
    if by == "tensor":
        return np.arange(len(names), dtype=np.int32), tuple(names)
    places = [parse(name) for name in names]
    if by == "layer":
        labels = [p.zone if p.layer is None else str(p.layer) for p in places]
        zones = ("in", "layer", "out")
        keys = {
            label: (zones.index(p.zone), p.layer) for label, p in zip(labels, places, strict=True)
        }
        ordered = sorted(keys, key=keys.__getitem__)
    else:
        labels = [p.module for p in places]
        ordered = sorted(set(labels), key=module_key)
    row_of = {label: row for row, label in enumerate(ordered)}
    return np.array([row_of[label] for label in labels], dtype=np.int32), tuple(ordered)
