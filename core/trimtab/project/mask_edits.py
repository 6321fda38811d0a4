"""Edits of a model's stack of masks, painting among them, and of the model that was pruned."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import Recipe
from trimtab.project.edits import Edit, set_masks

#: a painted cell: layer, -1 outside the blocks, and module
Cell = tuple[int, str]


def add_mask(recipe: Recipe, index: int, entry: MaskEntry, *, rescale: bool | None = None) -> Edit:
    """Put a mask at the end of the stack of fine-tuned model `index`.

    `rescale` says whether the model is divided by its mask's mean from now on; None leaves that.
    """
    stack = (*recipe.finetuned[index].masks, entry)
    edit = set_masks(recipe, index, stack, f"Add {entry.title}")
    if rescale is None:
        return edit
    models = list(edit.after.finetuned)
    models[index] = models[index].model_copy(update={"rescale": rescale})
    after = recipe.model_copy(update={"finetuned": tuple(models)})
    return Edit(edit.label, recipe, after)


def replace_mask(recipe: Recipe, index: int, number: int, entry: MaskEntry, label: str) -> Edit:
    """Put `entry` in the place of the stack's entry `number`."""
    stack = list(recipe.finetuned[index].masks)
    stack[number] = entry
    return set_masks(recipe, index, stack, label)


def remove_mask(recipe: Recipe, index: int, number: int) -> Edit:
    """Take entry `number` out of the stack."""
    stack = list(recipe.finetuned[index].masks)
    gone = stack.pop(number)
    return set_masks(recipe, index, stack, f"Remove {gone.title}")


def move_mask(recipe: Recipe, index: int, number: int, place: int) -> Edit:
    """Move entry `number` to `place`, counted without it; the other ones keep their order."""
    stack = list(recipe.finetuned[index].masks)
    moved = stack.pop(number)
    stack.insert(place, moved)
    return set_masks(recipe, index, stack, f"Move {moved.title}")


def paint(recipe: Recipe, index: int, cells: Iterable[Cell], keep: bool) -> Edit:
    """Keep or remove whole cells of the heatmap, whatever the masks before them say.

    What is painted lies at the end of the stack, as one entry of cells that are kept ("or") and one
    of cells that are removed ("minus"). A cell is in one of them, the one it was painted into last,
    so that their order does not matter.
    """
    fresh = set(cells)
    below = list(recipe.finetuned[index].masks)
    painted: dict[bool, set[Cell]] = {True: set(), False: set()}
    while below and is_painted(below[-1]):
        last = below.pop()
        assert last.rule is not None
        painted[last.op == "or"] |= set(last.rule.cells or ())
    painted[not keep] -= fresh
    painted[keep] |= fresh
    above = [_entry(found, kept) for kept, found in painted.items() if found]
    label = "Paint to keep" if keep else "Paint to remove"
    return set_masks(recipe, index, [*below, *above], label)


def use_pruned(recipe: Recipe, index: int, folder: str) -> Edit:
    """Put a pruned copy in the place of fine-tuned model `index`, or of its adapter.

    Masks, ratios and all else stay.
    """
    model = recipe.finetuned[index]
    changes = {"path": folder, "revision": ""}
    if model.lora:
        changes = {"lora": folder, "lora_revision": ""}
    models = list(recipe.finetuned)
    models[index] = model.model_copy(update=changes)
    after = recipe.model_copy(update={"finetuned": tuple(models)})
    return Edit("Use the pruned model", recipe, after)


def is_painted(entry: MaskEntry) -> bool:
    """Whether further strokes go into this entry: painted cells as `paint` leaves them."""
    rule = entry.rule
    return (
        rule is not None
        and rule == Rule(cells=rule.cells)
        and rule.cells is not None
        and entry.op in ("or", "minus")
        and entry.on
        and not entry.invert
    )


def _entry(cells: set[Cell], keep: bool) -> MaskEntry:
    layers = sorted({layer for layer, _ in cells if layer >= 0})
    where = "outside the layers"
    if layers:
        where = f"layers {_runs(layers)}" if len(layers) > 1 else f"layer {layers[0]}"
    name = f"Painted to {'keep' if keep else 'remove'}: {where}"
    rule = Rule(cells=tuple(sorted(cells)))
    return MaskEntry(rule=rule, op="or" if keep else "minus", name=name)


def _runs(numbers: list[int]) -> str:
    """Return ascending numbers as ranges, such as "0–3, 6"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{low}–{high}" if high > low else str(low) for low, high in runs)
