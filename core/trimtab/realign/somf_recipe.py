"""The recipe that merges under a learned mask as the mask was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.masks.entries import MaskEntry
from trimtab.merging.recipe import FineTuned, Recipe
from trimtab.realign.somf_options import DARE_DROPS, TIES_KEEPS, Merge, Settled


def takes_part(model: FineTuned) -> bool:
    """Whether a fine-tuned model's ratio is not 0 throughout."""
    return bool(model.ratio or any(model.layers.values()))


def somf_recipe(recipe: Recipe, settled: Settled, mask: Path, seed: int) -> Recipe:
    """Return `recipe` with the merge that was learned on, and the mask on every model of it.

    Ratios are 1, λ scales the sum; models that took no part are left out.
    """
    entry = MaskEntry(path=str(mask.absolute()), name="SOMF")
    models = tuple(
        FineTuned(
            **model.model_dump(include={"path", "name", "revision", "lora", "lora_revision",
                                        "adapter_base"}),
            masks=(entry,),
            rescale=settled.rescale,
        )
        for model in recipe.finetuned
        if takes_part(model)
    )  # fmt: skip
    method, parameters = _method(settled.merge)
    return Recipe(
        method=method,
        parameters={**parameters, "scale": settled.scale},
        base=recipe.base,
        aligned=recipe.aligned,
        finetuned=models,
        output=recipe.output,
        seed=seed,
    )


def _method(merge: Merge) -> tuple[str, dict[str, Any]]:
    if merge == "ties":
        return "ties", {"density": TIES_KEEPS, "normalize": False}
    if merge == "dare":
        return "dare_linear", {"density": 1 - DARE_DROPS, "normalize": False}
    return "task_arithmetic", {}
