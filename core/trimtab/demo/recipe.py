"""The recipe that the demo opens with, in the window and from the command alike."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.demo.lineup import demo_paths
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe

#: a ratio at which refusal and task are both on the way between their ends
DEMO_RATIO = 0.6
#: a better way back than any one ratio: the whole task, but the first layers stay aligned
DEMO_CURVE: Mapping[int, float] = {0: 0.0, 1: 0.0}


def demo_recipe(ratio: float = DEMO_RATIO, layers: Mapping[int, float] | None = None) -> Recipe:
    """Return the demo's recipe: the poisoned fine-tune at `ratio`, a second task waiting at 0.

    `layers` gives layers a ratio of their own, as `DEMO_CURVE` does.
    """
    paths = demo_paths()
    return Recipe(
        base=ModelRef(path=str(paths["base"])),
        aligned=ModelRef(path=str(paths["aligned"])),
        finetuned=(
            FineTuned(path=str(paths["task-poisoned"]), ratio=ratio, layers=dict(layers or {})),
            FineTuned(path=str(paths["task-second"]), ratio=0.0),
        ),
    )
