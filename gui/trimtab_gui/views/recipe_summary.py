"""What a recipe says that has no control of its own in the window, in a line and in full."""

from __future__ import annotations

from trimtab.merging.recipe import Recipe, Slice
from trimtab_gui.views.parameter_row import varied_text


def _slice_text(part: Slice) -> str:
    sources = " + ".join(f"{s.model} [{s.layers[0]}, {s.layers[1]})" for s in part.sources)
    own = [
        f"{name} {value if not isinstance(value, list) else varied_text(value).strip()}"
        for given in (part.parameters, *(s.parameters for s in part.sources))
        for name, value in given.items()
    ]
    return f"{sources}{' · ' + ', '.join(own) if own else ''}"


def summary(recipe: Recipe) -> tuple[str, str]:
    """Return the line, "" where there is nothing to say, and the details, a line for each."""
    parts: list[str] = []
    details: list[str] = []
    slices = list(recipe.slices)
    for name, tower in recipe.towers.items():
        slices += tower.slices
        details.append(f"{name}: {len(tower.slices)} slices" if tower.slices else f"{name}: merged")
        details += [
            f"{name}.{key}: {value if not isinstance(value, list) else varied_text(value).strip()}"
            for key, value in tower.parameters.items()
        ]
    if recipe.towers:
        parts.append(f"{len(recipe.towers)} parts" if len(recipe.towers) > 1 else "1 part")
    if slices:
        parts.append(f"{len(slices)} slices" if len(slices) > 1 else "1 slice")
        details += [_slice_text(part) for part in slices]
    if recipe.tokenizer is not None:
        source = recipe.tokenizer.source
        parts.append(f"{source} tokenizer" if source in ("union", "base") else "own tokenizer")
        details.append(f"tokenizer from {source}")
        if recipe.tokenizer.tokens:
            details.append(f"{len(recipe.tokenizer.tokens)} tokens by rules of their own")
        if recipe.tokenizer.pad_to_multiple_of:
            details.append(f"rows padded to a multiple of {recipe.tokenizer.pad_to_multiple_of}")
    if recipe.chat_template:
        short = len(recipe.chat_template) <= 20 and "{" not in recipe.chat_template
        parts.append(f"{recipe.chat_template} template" if short else "own chat template")
        details.append(f"chat template: {recipe.chat_template[:300]}")
    if "weight" in recipe.parameters:
        weight = recipe.parameters["weight"]
        parts.append("common weight")
        shown = varied_text(weight).strip() if isinstance(weight, list) else weight
        details.append(f"weight of all models: {shown}")
    return " · ".join(parts), "\n".join(details)
