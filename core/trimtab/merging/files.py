"""Opens recipe files of either form: Trimtab's own, or mergekit's, of one or several documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from trimtab.errors import UserError
from trimtab.merging.mergekit import NamedMerge, is_mergekit, parse_documents, to_recipe
from trimtab.merging.recipe import Recipe, parse_recipe, read_text


@dataclass(frozen=True)
class Step:
    """One merge of a file: its recipe, where its result goes, and what was noted in reading it."""

    name: str
    recipe: Recipe
    output: Path
    notes: tuple[str, ...] = field(default=())


def open_recipe(path: Path) -> tuple[Recipe, tuple[str, ...]]:
    """Return the one recipe of a file, and what was noted in reading it.

    Raises `UserError` with `unreadable`, `bad_recipe`, and `several_merges` for a file that holds
    more than one.
    """
    text = read_text(path)
    merges = _merges(text, path)
    if merges is None:
        return parse_recipe(text, path.name).absolute(path.absolute().parent), ()
    if len(merges) > 1:
        raise UserError(
            "several_merges",
            f"{path.name} holds {len(merges)} merges.",
            f"They are: {', '.join(m.name or 'the last, without a name' for m in merges)}.",
            "Run it with the command: trimtab merge FILE -o DIR.",
        )
    notes: list[str] = []
    recipe = to_recipe(merges[0].document, path.absolute().parent, None, notes)
    return recipe, tuple(notes)


def steps(path: Path, output: Path) -> Iterator[Step]:
    """Give the merges of a file in the order they are carried out; the last goes to `output`.

    A later one may use an earlier one's result, so each is read only when it is asked for. Raises
    as `open_recipe` does.
    """
    text = read_text(path)
    folder = path.absolute().parent
    merges = _merges(text, path)
    if merges is None:
        yield Step("", parse_recipe(text, path.name).absolute(folder), output)
        return
    results: dict[str, Path] = {}
    for merge in merges:
        notes: list[str] = []
        recipe = to_recipe(merge.document, folder, results, notes)
        place = merge.place(output.absolute())
        yield Step(merge.name, recipe, place, tuple(notes))
        results[merge.name] = place


def _merges(text: str, path: Path) -> list[NamedMerge] | None:
    """Return the documents of a file of mergekit's, None for any other file."""
    try:
        first = next(iter(yaml.safe_load_all(text)), None)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # parse_recipe says what is wrong with it
    return parse_documents(text, path.name) if is_mergekit(first) else None
