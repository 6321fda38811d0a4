"""Reads mergekit's YAML: its documents, the order they run in, and the recipe each one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from trimtab.errors import UserError
from trimtab.merging.mergekit_models import Models, parse_reference
from trimtab.merging.mergekit_reader import SECTIONS, Reader
from trimtab.merging.mergekit_scopes import Data, mistake
from trimtab.merging.recipe import Recipe, check_parameters


@dataclass(frozen=True)
class NamedMerge:
    """One document of a file: its name, what it says, and which merges must be done before it.

    `final` marks the one whose result is what was asked for.
    """

    name: str
    document: Data = field(repr=False)
    needs: tuple[str, ...] = ()
    final: bool = True

    def place(self, output: Path) -> Path:
        """Where its result goes: to `output`, or else into a folder beside it."""
        return output if self.final else output.with_name(f"{output.name}.parts") / self.name


def is_mergekit(data: object) -> bool:
    """Whether a parsed YAML document is one of mergekit's."""
    return (
        isinstance(data, dict)
        and "trimtab" not in data
        and any(key in data for key in ("merge_method", *SECTIONS))
    )


def parse_documents(text: str, origin: str = "The recipe") -> list[NamedMerge]:
    """Split a file of one or several merges and bring them into the order they must run in.

    A document with a `name` makes a model that others may use by that name. The last in the
    order is the final one: the one without a name, or the only one that no other needs. Raises
    `UserError` with `bad_recipe` for duplicate names, circles, and more than one final merge.
    """
    try:
        documents = [data for data in yaml.safe_load_all(text) if data is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            "bad_recipe",
            f"{origin} is not YAML.",
            f"The parser says: {' '.join(str(error).split())}.",
            "Correct the line named.",
        ) from error
    if not documents or not all(is_mergekit(data) for data in documents):
        raise UserError(
            "bad_recipe",
            f"{origin} is not a recipe of mergekit's.",
            "Every document of one has the key merge_method.",
            "Check that it is the right file.",
        )
    if len(documents) == 1 and "name" not in documents[0]:
        return [NamedMerge("", documents[0])]
    by_name: dict[str, Data] = {}
    for data in documents:
        name = _merge_name(data)
        if name in by_name:
            raise mistake(
                f"Two merges are called {name}." if name else "Two merges have no name.",
                "Others use a merge by its name; only the final one can do without.",
                "Change the key name of one of them.",
            )
        by_name[name] = data
    needs = {name: _needs(data, by_name) for name, data in by_name.items()}
    order = _order(needs)
    unused = [name for name in order if not any(name in needed for needed in needs.values())]
    final = "" if "" in by_name else unused[-1]
    if len(unused) > 1:
        raise mistake(
            f"{origin} has several merges that no other one uses: "
            f"{', '.join(name or 'the one without a name' for name in unused)}.",
            "A file makes one model, and what is needed for it.",
            "Split the file, or use them all in one final merge.",
        )
    return [NamedMerge(name, by_name[name], needs[name], name == final) for name in order]


def _merge_name(data: Data) -> str:
    name = data.get("name", "")
    if name is None or name == "":
        return ""
    if not isinstance(name, str) or name in (".", "..") or any(c in name for c in "/\\\0+@"):
        raise mistake(
            f"name is {name!r}.",
            "A merge's name is also its folder's, and stands where a model does.",
            "Choose one without / \\ + and @.",
        )
    return name


def _needs(data: Data, known: Mapping[str, Data]) -> tuple[str, ...]:
    """Return the merges that a document uses as models, in the order of `known`."""
    used = set()
    for value in _model_values(data):
        try:
            used.add(parse_reference(value, "model").path)
        except UserError:
            continue  # said with its key when the document itself is read
    return tuple(name for name in known if name and name in used)


def _model_values(data: object) -> Iterable[object]:
    """Yield whatever stands where a document names a model."""
    if isinstance(data, list):
        for entry in data:
            yield from _model_values(entry)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key in ("model", "base_model", "tokenizer_source", "source"):
                yield value
            if key not in ("parameters", "chat_template"):
                yield from _model_values(value)


def _order(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    done: list[str] = []
    while len(done) < len(needs):
        ready = [n for n in needs if n not in done and all(other in done for other in needs[n])]
        if not ready:
            circle = ", ".join(name for name in needs if name not in done)
            raise mistake(
                f"These merges need each other: {circle}.",
                "None of them can be the first.",
                "Take one of them out of the circle.",
            )
        done.append(min(ready, key=lambda name: name == ""))  # the final one comes last
    return done


def to_recipe(
    document: Data,
    folder: Path,
    results: Mapping[str, Path] | None = None,
    notes: list[str] | None = None,
) -> Recipe:
    """Return the recipe that a document of mergekit's is.

    Paths are made absolute: relative ones start at `folder` or else the working directory; a name
    of the hub stays as it is. `results` are the folders of the merges a document uses by name.
    What has no effect on the result is said in `notes`. Raises `UserError` with `bad_recipe` that
    names the key which is unknown or cannot be honoured.
    """
    reader = Reader(document, Models(folder, results or {}))
    data = reader.recipe()
    if notes is not None:
        notes.extend(dict.fromkeys(reader.notes))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise mistake(
            f"The recipe has a mistake at {key}: {first['msg']}.",
            "It was read from mergekit's form.",
            "Correct it and run again.",
        ) from error
    check_parameters(recipe)
    return recipe
