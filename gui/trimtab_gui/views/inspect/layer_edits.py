"""Edits that give a range of layers back to the reference."""

from __future__ import annotations

from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import Recipe
from trimtab.project import Edit
from trimtab.project.edits import set_layer_ratios


def mask_layers(recipe: Recipe, index: int, layers: tuple[int, int]) -> Edit:
    """Leave a fine-tuned model's change out of the layers from the first to the last one."""
    first, last = layers
    name = f"Without layers {first}–{last}"
    entry = MaskEntry(rule=Rule(layers=layers), invert=True, name=name)
    models = list(recipe.finetuned)
    models[index] = models[index].model_copy(update={"masks": (*models[index].masks, entry)})
    return Edit(f"Mask out layers {first}–{last}", recipe,
                recipe.model_copy(update={"finetuned": tuple(models)}))  # fmt: skip


def cut_layers(recipe: Recipe, index: int, layers: tuple[int, int]) -> Edit:
    """Set a fine-tuned model's ratio to 0 from the first to the last layer."""
    return set_layer_ratios(recipe, index, dict.fromkeys(range(layers[0], layers[1] + 1), 0.0))
