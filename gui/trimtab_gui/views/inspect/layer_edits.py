"""Edits that give a range of layers back to the reference."""

from __future__ import annotations

from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import Recipe
from trimtab.project import Edit
from trimtab.project.edits import set_layer_ratios, set_masks


def mask_layers(recipe: Recipe, index: int, layers: tuple[int, int]) -> Edit:
    """Leave a fine-tuned model's change out of the layers from the first to the last one."""
    first, last = layers
    name = f"Without layers {first}–{last}"
    entry = MaskEntry(rule=Rule(layers=layers), op="minus", name=name)
    stack = (*recipe.finetuned[index].masks, entry)
    return set_masks(recipe, index, stack, f"Mask out layers {first}–{last}")


def cut_layers(recipe: Recipe, index: int, layers: tuple[int, int]) -> Edit:
    """Set a fine-tuned model's ratio to 0 from the first to the last layer."""
    return set_layer_ratios(recipe, index, dict.fromkeys(range(layers[0], layers[1] + 1), 0.0))
