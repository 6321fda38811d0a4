"""Edits of the recipe: pure functions that give what undo and redo need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe


@dataclass(frozen=True)
class Edit:
    """One step: the recipe before and after, and what menus call it.

    Successive edits with the same non-empty `key` belong to one gesture and are one undo step.
    """

    label: str
    before: Recipe
    after: Recipe
    key: str = ""

    def merged_with(self, later: Edit) -> Edit | None:
        """Join with the edit that follows when both are parts of one gesture."""
        if not self.key or self.key != later.key or self.after != later.before:
            return None
        return Edit(self.label, self.before, later.after, self.key)


def _update_finetuned(recipe: Recipe, index: int, **changes: object) -> Recipe:
    models = list(recipe.finetuned)
    models[index] = models[index].model_copy(update=changes)
    return recipe.model_copy(update={"finetuned": tuple(models)})


def set_ratio(recipe: Recipe, index: int, value: float, key: str = "") -> Edit:
    """Set the global ratio of fine-tuned model `index`."""
    after = _update_finetuned(recipe, index, ratio=float(value))
    return Edit(f"Ratio of {_name(recipe, index)}", recipe, after, key)


def set_layer_ratios(
    recipe: Recipe, index: int, values: Mapping[int, float], key: str = ""
) -> Edit:
    """Set the ratio of fine-tuned model `index` in the layers that `values` names."""
    # plain numbers: numpy's, as a window's arrays hold them, cannot be written to YAML
    new = {int(layer): float(value) for layer, value in values.items()}
    layers = dict(sorted({**recipe.finetuned[index].layers, **new}.items()))
    after = _update_finetuned(recipe, index, layers=layers)
    return Edit(f"Ratio curve of {_name(recipe, index)}", recipe, after, key)


def reset_layer_ratios(recipe: Recipe, index: int, layers: Iterable[int] | None = None) -> Edit:
    """Let `layers` (all when None) follow the global ratio again."""
    dropped = set(recipe.finetuned[index].layers if layers is None else layers)
    kept = {k: v for k, v in recipe.finetuned[index].layers.items() if k not in dropped}
    after = _update_finetuned(recipe, index, layers=kept)
    return Edit(f"Reset curve of {_name(recipe, index)}", recipe, after)


def set_module_factor(
    recipe: Recipe, index: int, module: str, factor: float, key: str = ""
) -> Edit:
    """Set the factor of one module of fine-tuned model `index`; 1 removes it."""
    modules = {**recipe.finetuned[index].modules, module: float(factor)}
    if factor == 1.0:
        del modules[module]
    after = _update_finetuned(recipe, index, modules=modules)
    return Edit(f"{module} of {_name(recipe, index)}", recipe, after, key)


def set_method(recipe: Recipe, method: str) -> Edit:
    """Choose the merge method; its parameters start at their defaults."""
    after = recipe.model_copy(update={"method": method, "parameters": {}})
    return Edit("Method", recipe, after)


def set_parameter(recipe: Recipe, name: str, value: float, key: str = "") -> Edit:
    """Set one of the method's parameters."""
    after = recipe.model_copy(update={"parameters": {**recipe.parameters, name: float(value)}})
    return Edit(f"Parameter {name}", recipe, after, key)


def set_output(recipe: Recipe, output: Output) -> Edit:
    """Choose how the result is written."""
    return Edit("Output", recipe, recipe.model_copy(update={"output": output}))


def set_reference_model(
    recipe: Recipe, role: Literal["base", "aligned"], model: ModelRef | None
) -> Edit:
    """Put a model into the base or aligned slot, or clear it."""
    label = f"{'Set' if model else 'Remove'} {role} model"
    return Edit(label, recipe, recipe.model_copy(update={role: model}))


def add_finetuned(recipe: Recipe, models: Iterable[FineTuned]) -> Edit:
    """Add fine-tuned models behind the others."""
    after = recipe.model_copy(update={"finetuned": (*recipe.finetuned, *models)})
    return Edit("Add fine-tuned model", recipe, after)


def remove_finetuned(recipe: Recipe, index: int) -> Edit:
    """Take fine-tuned model `index` out."""
    models = recipe.finetuned[:index] + recipe.finetuned[index + 1 :]
    after = recipe.model_copy(update={"finetuned": models})
    return Edit(f"Remove {_name(recipe, index)}", recipe, after)


def set_adapter_base(recipe: Recipe, index: int, role: Literal["aligned", "base"]) -> Edit:
    """Say which model of the lineup an adapter was trained on."""
    after = _update_finetuned(recipe, index, adapter_base=role)
    return Edit(f"Adapter base of {_name(recipe, index)}", recipe, after)


def _name(recipe: Recipe, index: int) -> str:
    model = recipe.finetuned[index]
    return model.name or model.path.rstrip("/").rsplit("/", 1)[-1]
