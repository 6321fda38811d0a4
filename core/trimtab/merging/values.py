"""Works out each tensor's ratios and parameters from what a recipe says at its several levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.naming import parse
from trimtab.errors import UserError
from trimtab.merging.recipe import FineTuned, Recipe
from trimtab.merging.settings import evaluate
from trimtab.merging.slots import Input, Slot
from trimtab.methods import MergeMethod, Parameter
from trimtab.methods.registry import Scalar

Group = Mapping[str, Any]


class Values:
    """The values of a recipe for each output tensor; the more particular level counts.

    Levels, from most to least particular: a slice's source, the model, the slice, the tower, the
    recipe. Where none says anything of a tensor the method's default counts.
    """

    def __init__(self, recipe: Recipe, method: MergeMethod, slots: list[Slot]):
        self._recipe = recipe
        self._method = method
        places = [parse(slot.reference_name) for slot in slots]
        layers = np.array([-1 if p.layer is None else p.layer for p in places], dtype=np.int32)
        check_names(recipe, set(layers.tolist()), {p.module for p in places})
        self.ratios: npt.NDArray[np.float64] = recipe.ratios(
            layers, tuple(p.module for p in places)
        )

    def weight(self, row: int, slot: Slot, given: Input) -> float:
        """Return the ratio of one model in slot number `row`; finite."""
        model = self._recipe.finetuned[given.model]
        levels: list[Group] = [given.given.parameters if given.given else {}]
        levels += [{"weight": model.weight} if model.weight is not None else {}]
        levels += self._shared_levels(slot)
        said = _first(levels, "weight", given.name, slot.t)
        if said is None and any("weight" in level for level in levels):
            raise _says_nothing("weight", slot.name, given.member.name)
        if isinstance(said, bool | str):
            raise UserError(
                "bad_recipe",
                f"The weight of {given.member.name} in {slot.name} is {said!r}.",
                "A weight is a number.",
                "Correct the recipe.",
            )
        return float(self.ratios[row, given.model]) * (1.0 if said is None else float(said))

    def shared(self, slot: Slot) -> dict[str, Scalar]:
        """Return the parameters that all models have in common."""
        levels = self._shared_levels(slot)
        found = {}
        for p in self._method.parameters:
            if p.per_model:
                continue
            value = _first(levels, p.name, slot.name, slot.t)
            if value is None and p.name in _NEEDED and any(p.name in level for level in levels):
                raise _says_nothing(p.name, slot.name)
            found[p.name] = self._checked(p, value)
        return found

    def own(self, slot: Slot, given: Input) -> dict[str, Scalar]:
        """Return the parameters of one model."""
        model: FineTuned = self._recipe.finetuned[given.model]
        levels: list[Group] = [given.given.parameters if given.given else {}, model.parameters]
        levels += self._shared_levels(slot)
        return {
            p.name: self._checked(p, _first(levels, p.name, given.name, slot.t))
            for p in self._method.parameters
            if p.per_model
        }

    def _shared_levels(self, slot: Slot) -> list[Group]:
        found: list[Group] = [slot.slice.parameters] if slot.slice else []
        found += [slot.tower.parameters] if slot.tower else []
        return [*found, self._recipe.parameters]

    def _checked(self, parameter: Parameter, value: object) -> Scalar:
        return parameter.check(parameter.default if value is None else value, self._method.title)


# parameters whose default is no neutral choice: who sets them for some tensors must for all
_NEEDED = frozenset(("t",))


def _says_nothing(key: str, tensor: str, model: str = "") -> UserError:
    of = f" of {model}" if model else ""
    return UserError(
        "no_value",
        f"The {key}{of} says nothing about {tensor}.",
        "It is given for some tensors by their names, and this one is not among them.",
        "Add an entry without a filter at the end.",
    )


def _first(levels: Iterable[Group], key: str, tensor: str, t: float) -> Any:
    for level in levels:
        if key in level:
            value = evaluate(level[key], tensor, t)
            if value is not None:
                return value
    return None


def check_names(recipe: Recipe, layers: set[int], modules: set[str]) -> None:
    """Raise `UserError` for a ratio of a layer or module that the models do not have."""
    for model in recipe.finetuned:
        for layer in model.layers:
            if layer not in layers or layer < 0:
                known = layers - {-1}
                raise UserError(
                    "unknown_layer",
                    f"There is no layer {layer}.",
                    f"The reference has layers {min(known)} to {max(known)}."
                    if known
                    else "The reference has no layers.",
                    f"Correct the layers of {model.name or model.path} in the recipe.",
                )
        for module in model.modules:
            if module not in modules:
                raise UserError(
                    "unknown_module",
                    f"There is no module {module}.",
                    f"The reference has: {', '.join(sorted(modules))}.",
                    f"Correct the modules of {model.name or model.path} in the recipe.",
                )
