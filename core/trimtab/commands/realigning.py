"""What the commands that learn from data have in common: recipes, pairs, and how cards read."""

from __future__ import annotations

import sys
from pathlib import Path

from trimtab.merging.files import open_recipe
from trimtab.merging.recipe import Recipe

DEMO = "demo"


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a file, or the demo's with the poisoned model at ratio 1."""
    if name == DEMO:
        from trimtab.demo.recipe import demo_recipe

        return demo_recipe(1.0)
    recipe, notes = open_recipe(Path(name))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return recipe.absolute(Path.cwd())


def pairs_of(name: str) -> str:
    """Return the path of a file of pairs, or of the demo's own."""
    if name == DEMO:
        from trimtab.demo.pairs import demo_pairs_file

        return str(demo_pairs_file())
    return str(Path(name).absolute())


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as percent, such as "27.1 %"."""
    return f"{100 * share:.{decimals}f} %"


def card(rows: list[tuple[str, str]]) -> str:
    """Return labelled lines, the labels in one column."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label.ljust(width)}  {text}".rstrip() for label, text in rows)
