"""Edits of the recipe: pure functions that give what undo and redo need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.masks.entries import MaskEntry
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe, Slice
from trimtab.methods.registry import Scalar


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


def set_masks(recipe: Recipe, index: int, masks: Iterable[MaskEntry], label: str) -> Edit:
    """Give fine-tuned model `index` a stack of masks in place of its own."""
    return Edit(label, recipe, _update_finetuned(recipe, index, masks=tuple(masks)))


def set_method(recipe: Recipe, method: str) -> Edit:
    """Choose the merge method; its parameters start at their defaults at every level.

    Weights stay: they are the ratios' and not the method's.
    """
    models = tuple(
        m.model_copy(update={"parameters": {}}) if m.parameters else m for m in recipe.finetuned
    )
    towers = {
        name: tower.model_copy(
            update={"parameters": _weights(tower.parameters), "slices": _bare(tower.slices)}
        )
        for name, tower in recipe.towers.items()
    }
    after = recipe.model_copy(
        update={
            "method": method,
            "parameters": _weights(recipe.parameters),
            "finetuned": models,
            "slices": _bare(recipe.slices),
            "towers": towers,
        }
    )
    return Edit("Method", recipe, after)


def _weights(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name == "weight"}


def _bare(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    return tuple(
        part.model_copy(
            update={
                "parameters": _weights(part.parameters),
                "sources": tuple(
                    source.model_copy(update={"parameters": _weights(source.parameters)})
                    for source in part.sources
                ),
            }
        )
        for part in slices
    )


def _plain(value: Scalar) -> Scalar:
    # numpy's numbers, as a window's arrays hold them, cannot be written to YAML
    if isinstance(value, bool | str | int):
        return value
    return float(value)


def set_parameter(recipe: Recipe, name: str, value: Scalar, key: str = "") -> Edit:
    """Set one of the method's parameters, to the same value in every tensor."""
    parameters = {**recipe.parameters, name: _plain(value)}
    after = recipe.model_copy(update={"parameters": parameters})
    return Edit(f"Parameter {name}", recipe, after, key)


def clear_parameter(recipe: Recipe, name: str) -> Edit:
    """Let a parameter of the method, or the models' common weight, be at its default again."""
    kept = {k: v for k, v in recipe.parameters.items() if k != name}
    return Edit(f"Reset {name}", recipe, recipe.model_copy(update={"parameters": kept}))


def set_model_parameter(
    recipe: Recipe, index: int, name: str, value: Scalar, key: str = ""
) -> Edit:
    """Give fine-tuned model `index` a value of its own for one of the method's parameters."""
    parameters = {**recipe.finetuned[index].parameters, name: _plain(value)}
    after = _update_finetuned(recipe, index, parameters=parameters)
    return Edit(f"{name} of {_name(recipe, index)}", recipe, after, key)


def clear_model_parameters(recipe: Recipe, name: str) -> Edit:
    """Let all models have the common value of one of the method's parameters."""
    models = tuple(
        m.model_copy(update={"parameters": {k: v for k, v in m.parameters.items() if k != name}})
        for m in recipe.finetuned
    )
    return Edit(f"One {name} for all", recipe, recipe.model_copy(update={"finetuned": models}))


def clear_weight(recipe: Recipe, index: int) -> Edit:
    """Let fine-tuned model `index` count by its ratio alone."""
    after = _update_finetuned(recipe, index, weight=None)
    return Edit(f"Reset weight of {_name(recipe, index)}", recipe, after)


def set_seed(recipe: Recipe, seed: int, key: str = "") -> Edit:
    """Choose the seed of random masks."""
    return Edit("Seed", recipe, recipe.model_copy(update={"seed": int(seed)}), key)


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
