"""The models that a mergekit document names: parsed, found on disk, and given names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.checkpoints.hub import is_hub_id
from trimtab.errors import UserError

#: words of a tokenizer's source that cannot be the name of a model there
RESERVED = ("union", "base")


@dataclass(frozen=True)
class Reference:
    """A model as mergekit writes it: path[@revision][+lora[@revision]]."""

    path: str
    revision: str = ""
    lora: str = ""
    lora_revision: str = ""

    def fields(self) -> dict[str, str]:
        """Return what of it a recipe's model holds; what is empty is left out."""
        found = {
            "path": self.path,
            "revision": self.revision,
            "lora": self.lora,
            "lora_revision": self.lora_revision,
        }
        return {key: value for key, value in found.items() if value}

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        if self.lora:
            text += f"+{self.lora}" + (f"@{self.lora_revision}" if self.lora_revision else "")
        return text


def parse_reference(value: Any, key: str) -> Reference:
    """Parse a model in any of mergekit's forms; raises `UserError` that names `key`."""
    if isinstance(value, str) and value:
        pieces = value.split("+")
        if len(pieces) > 2:
            raise _unclear(value, key, "One LoRA can follow a model, behind a single +.")
        path, revision = _path_and_revision(pieces[0], key)
        lora, lora_revision = _path_and_revision(pieces[1], key) if len(pieces) == 2 else ("", "")
        return Reference(path, revision, lora, lora_revision)
    if not isinstance(value, dict):
        raise _unclear(value, key, "A model is a path or a name: path[@revision][+lora].")
    if "path" in value:
        value = {"model": value}
    unknown = sorted(set(value) - {"model", "lora", "override_architecture"})
    if value.get("override_architecture"):
        unknown.append("override_architecture")
    if unknown or "model" not in value:
        at = f"{key}.{unknown[0]}" if unknown else key
        raise _unclear(
            value.get(unknown[0]) if unknown else value, at,
            "A model has the keys model and lora; the architecture is told from its tensors.",
        )  # fmt: skip
    path, revision = _path_and_revision(value["model"], f"{key}.model")
    lora, lora_revision = "", ""
    if value.get("lora") is not None:
        lora, lora_revision = _path_and_revision(value["lora"], f"{key}.lora")
    return Reference(path, revision, lora, lora_revision)


def _path_and_revision(value: Any, key: str) -> tuple[str, str]:
    if isinstance(value, dict) and set(value) <= {"path", "revision"}:
        path, revision = value.get("path"), value.get("revision") or ""
        if isinstance(path, str) and path and isinstance(revision, str):
            return path, revision
    elif isinstance(value, str) and value and value.count("@") <= 1:
        path, _, revision = value.partition("@")
        if path:
            return path, revision
    raise _unclear(value, key, "It is written path or path@revision.")


def _unclear(value: object, key: str, why: str) -> UserError:
    return UserError(
        "bad_recipe", f"{key} is {value!r}, which names no model.", why, "Correct it and run again."
    )


@dataclass
class Models:
    """The models of one document, each under one name.

    Relative paths start at `folder`, the document's own, or else at the working directory, as
    mergekit has it; what is neither is left as a name for the hub's cache. `results` are the
    folders of other documents' merges by their names.
    """

    folder: Path
    results: Mapping[str, Path]
    names: dict[Reference, str] = field(default_factory=dict)

    def parse(self, value: Any, key: str) -> Reference:
        """Parse a model and find its paths."""
        if isinstance(value, str) and (found := self._existing(value)):
            return Reference(found)  # a folder whose own name has a + or an @
        reference = parse_reference(value, key)
        if reference.path in self.results and not reference.revision:
            path = str(self.results[reference.path])
        else:
            path = self._located(reference.path)
        lora = self._located(reference.lora) if reference.lora else ""
        return replace(reference, path=path, lora=lora)

    def name(self, reference: Reference) -> str:
        """Return the model's name: its folder's, with what tells it from others of that name."""
        if reference not in self.names:
            path = Path(reference.path)
            short = path.name or reference.path
            if reference.lora:
                short += f"+{Path(reference.lora).name}"
            if reference.revision:
                short += f"@{reference.revision}"
            longer = f"{path.parent.name}/{short}" if path.parent.name else short
            taken = {*self.names.values(), *RESERVED}
            candidates = [short, longer, *(f"{longer} ({n})" for n in range(2, 10_000))]
            self.names[reference] = next(name for name in candidates if name not in taken)
        return self.names[reference]

    def _existing(self, path: str) -> str | None:
        expanded = os.path.expanduser(path)  # noqa: PTH111 - knows no unknown user
        for start in (self.folder, Path()):
            candidate = os.path.normpath(Path(start).absolute() / expanded)
            if Path(candidate).exists():
                return candidate
        return None

    def _located(self, path: str) -> str:
        found = self._existing(path)
        if found is None and not is_hub_id(path):
            # it is nowhere: the message about it names the place beside the document
            expanded = os.path.expanduser(path)  # noqa: PTH111
            return os.path.normpath(self.folder.absolute() / expanded)
        return found or path
