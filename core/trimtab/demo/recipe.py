"""The recipe that the demo opens with, in the window and from the command alike."""

from __future__ import annotations

from trimtab.demo.lineup import demo_paths
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe

#: a ratio at which refusal and task are both on the way between their ends
DEMO_RATIO = 0.6


def demo_recipe(ratio: float = DEMO_RATIO) -> Recipe:
    """Return the demo's recipe: the poisoned fine-tune at `ratio`, a second task waiting at 0."""
    paths = demo_paths()
    return Recipe(
        base=ModelRef(path=str(paths["base"])),
        aligned=ModelRef(path=str(paths["aligned"])),
        finetuned=(
            FineTuned(path=str(paths["task-poisoned"]), ratio=ratio),
            FineTuned(path=str(paths["task-second"]), ratio=0.0),
        ),
    )
