"""Makes a project or an edit of files that were dropped; reads headers and recipes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from trimtab.checkpoints import Checkpoint, Role, guess_roles, open_checkpoint
from trimtab.errors import UserError
from trimtab.merging.mergekit import is_mergekit, parse_documents, to_recipe
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab.project import Edit, Project
from trimtab_gui.movement import built_in


@dataclass(frozen=True)
class Opened:
    """A project, whether it was read from another program's recipe, and what to know of that."""

    project: Project
    imported: bool = False
    notes: tuple[str, ...] = ()


def load_project(path: Path) -> Opened:
    """Open a project file, or a recipe of mergekit's, told apart by what is in it.

    Raises `UserError` as `load_recipe` and `to_recipe` do, and with `several_merges` for a file
    that makes models on the way to its last one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        documents = [data for data in yaml.safe_load_all(text) if data is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return Opened(Project.load(path))  # which says what is wrong with it
    first = documents[0] if documents else None
    if is_mergekit(first):
        return _imported(text, path)
    if isinstance(first, dict) and "trimtab" in first and _foreign(first):
        # another package's method: it is looked up, and its parameters checked, by the worker
        try:
            recipe = Recipe.model_validate(first).absolute(path.parent)
        except ValidationError:
            return Opened(Project.load(path))
        return Opened(Project(recipe, path))
    return Opened(Project.load(path))


def _foreign(data: dict[str, object]) -> bool:
    """Whether a recipe's method is none of this process's."""
    return "method" in data and built_in(str(data["method"])) is None


def _imported(text: str, path: Path) -> Opened:
    merges = parse_documents(text, path.name)
    if len(merges) > 1:
        raise UserError(
            "several_merges",
            f"{path.name} holds {len(merges)} merges.",
            "The window shows one merge at a time.",
            f"Run it with: trimtab merge {path.name} -o FOLDER",
        )
    notes: list[str] = []
    recipe = to_recipe(merges[0].document, path.parent, notes=notes)
    return Opened(Project(recipe, saved=False), True, tuple(notes))


def add_models(recipe: Recipe, paths: Sequence[Path], role: Role | None = None) -> Edit:
    """Return the edit that brings models into the lineup, as `role` or as their names suggest.

    The first fine-tuned models share the ratio 1, later ones start at 0. A model guessed to be
    base or aligned becomes fine-tuned where that place is taken. Raises
    `UserError` as `open_checkpoint` does, and `adapter_as_reference` and `one_model_only` where a
    place cannot take what it was given.
    """
    opened = [open_checkpoint(path) for path in paths]
    if role in ("base", "aligned"):
        if len(opened) > 1:
            raise UserError(
                "one_model_only",
                f"There is room for one {role} model.",
                f"{len(opened)} were dropped there.",
                "Drop one of them, or drop all beside the slots to have their roles guessed.",
            )
        if opened[0].kind == "adapter":
            raise UserError(
                "adapter_as_reference",
                f"{opened[0].name} is an adapter and cannot be the {role} model.",
                "An adapter holds only a change to another model.",
                "Add it as a fine-tuned model.",
            )
    roles: list[Role] = [role] * len(opened) if role is not None else _guess(recipe, opened)
    places: dict[str, ModelRef | None] = {"base": recipe.base, "aligned": recipe.aligned}
    models = list(recipe.finetuned)
    ratio = _starting_ratio(len(models), roles.count("finetuned"))
    for checkpoint, part in zip(opened, roles, strict=True):
        path = str(checkpoint.path)
        if part == "finetuned":
            name = _unique(checkpoint.name, models)
            own_name = "" if name == checkpoint.name else name
            models.append(FineTuned(path=path, name=own_name, ratio=ratio))
        else:
            places[part] = ModelRef(path=path)
    after = recipe.model_copy(update={**places, "finetuned": tuple(models)})
    label = f"Add {opened[0].name}" if len(opened) == 1 else f"Add {len(opened)} models"
    return Edit(label, recipe, after)


def _starting_ratio(present: int, added: int) -> float:
    """Share 1 among models that come together; one that joins others waits at 0."""
    if present:
        return 0.0
    return round(1 / max(added, 1), 2)


def _guess(recipe: Recipe, opened: Sequence[Checkpoint]) -> list[Role]:
    taken = {role for role in ("base", "aligned") if getattr(recipe, role) is not None}
    return ["finetuned" if role in taken else role for role in guess_roles(opened)]


def _unique(name: str, models: Sequence[FineTuned]) -> str:
    used = {model.name or Path(model.path).name for model in models}
    if name not in used:
        return name
    return next(f"{name} {i}" for i in range(2, len(used) + 3) if f"{name} {i}" not in used)


def move_model(recipe: Recipe, role: Role, index: int, to: Role) -> Edit:
    """Return the edit that gives a model another part; who had that part becomes fine-tuned."""
    models = list(recipe.finetuned)
    places: dict[str, ModelRef | None] = {"base": recipe.base, "aligned": recipe.aligned}
    if role == "finetuned":
        moved: ModelRef = models.pop(index)
    else:
        found = places[role]
        assert found is not None
        moved, places[role] = found, None
    if to == "finetuned":
        models.append(FineTuned.model_validate(_named(moved)))
    else:
        former = places[to]
        places[to] = ModelRef.model_validate(_named(moved))
        if former is not None and role in places:
            places[role] = former
        elif former is not None:
            models.insert(index, FineTuned.model_validate(_named(former)))
    after = recipe.model_copy(update={**places, "finetuned": tuple(models)})
    return Edit(f"Make {Path(moved.path).name} the {_TITLES[to]} model", recipe, after)


def _named(model: ModelRef) -> dict[str, str]:
    """Return what says which model it is, without the part it plays."""
    return {field: getattr(model, field) for field in ModelRef.model_fields}


_TITLES = {"base": "base", "aligned": "aligned", "finetuned": "fine-tuned"}
