"""The document that is open: its recipe, lineup and inspection, with events for what changes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from psygnal import Signal

from trimtab.checkpoints import Lineup
from trimtab.inspection.result import Inspection
from trimtab.merging.recipe import Recipe, load_recipe
from trimtab.project.edits import Edit


def _models(recipe: Recipe) -> tuple[object, ...]:
    """What decides whether the lineup must be opened again."""
    return (
        recipe.base,
        recipe.aligned,
        tuple(
            (m.path, m.name, m.revision, m.lora, m.lora_revision, m.adapter_base)
            for m in recipe.finetuned
        ),
    )


class Project:
    """The one place where the state of the work lives.

    Only `apply` and `revert` change the recipe. `recipe_changed(old, new)` follows each change;
    `models_changed()` follows when the models themselves are others, after which the owner opens
    the lineup and hands it to `set_lineup`.
    """

    recipe_changed: ClassVar[Signal] = Signal(Recipe, Recipe)
    models_changed: ClassVar[Signal] = Signal()
    lineup_changed: ClassVar[Signal] = Signal()
    inspection_changed: ClassVar[Signal] = Signal()
    dirty_changed: ClassVar[Signal] = Signal(bool)

    def __init__(
        self, recipe: Recipe | None = None, path: Path | None = None, *, saved: bool = True
    ):
        self._recipe = recipe or Recipe()
        # recovered work is nowhere on the disk as it is: it differs from any saved state
        self._saved = self._recipe if saved else None
        self.path = path
        self.lineup: Lineup | None = None
        self.inspection: Inspection | None = None

    @classmethod
    def load(cls, path: Path) -> Project:
        """Open a project file; raises `UserError` as `load_recipe` does."""
        return cls(load_recipe(path), path)

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands."""
        return self._recipe

    @property
    def dirty(self) -> bool:
        """Whether there is anything to save."""
        return self._recipe != self._saved

    @property
    def title(self) -> str:
        """The document's name for the window's title."""
        return self.path.name if self.path else "untitled"

    def apply(self, edit: Edit) -> None:
        """Carry an edit out."""
        self._set(edit.after)

    def revert(self, edit: Edit) -> None:
        """Take an edit back."""
        self._set(edit.before)

    def _set(self, recipe: Recipe) -> None:
        old, was_dirty = self._recipe, self.dirty
        if recipe == old:
            return
        self._recipe = recipe
        if _models(old) != _models(recipe):
            self.lineup = None
            self.inspection = None
            self.models_changed.emit()
        self.recipe_changed.emit(old, recipe)
        if self.dirty != was_dirty:
            self.dirty_changed.emit(self.dirty)

    def set_lineup(self, lineup: Lineup | None) -> None:
        """Hand over the opened lineup; what was inspected before no longer counts."""
        self.lineup = lineup
        self.inspection = None
        self.lineup_changed.emit()

    def set_inspection(self, inspection: Inspection | None) -> None:
        """Hand over what the inspection found."""
        self.inspection = inspection
        self.inspection_changed.emit()

    def save(self, path: Path) -> None:
        """Save to `path` and be clean; raises `UserError` with `cannot_write`."""
        self._recipe.save(path)
        was_dirty = self.dirty
        self.path, self._saved = path, self._recipe
        if was_dirty:
            self.dirty_changed.emit(False)
