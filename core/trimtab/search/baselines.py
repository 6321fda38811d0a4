"""What a sweep has to beat: the models as they are, and one ratio for all, at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.checkpoints import Lineup
from trimtab.merging.recipe import Recipe
from trimtab.search.objectives import Number, balanced, gains

LINEAR = "linear "


def at_ratio(recipe: Recipe, ratio: float, models: Sequence[int] | None = None) -> Recipe:
    """Return plain task arithmetic of these models, or of those that take part in the recipe.

    All at one ratio in every tensor, without masks; the other models are left out.
    """
    chosen = set(taking_part(recipe) if models is None else models)
    plain: dict[str, Any] = {
        "layers": {}, "modules": {}, "weight": None, "parameters": {}, "masks": (),
        "rescale": False,
    }  # fmt: skip
    return recipe.model_copy(
        update={
            "method": "task_arithmetic",
            "parameters": {},
            "finetuned": tuple(
                model.model_copy(update={**plain, "ratio": ratio if i in chosen else 0.0})
                for i, model in enumerate(recipe.finetuned)
            ),
        }
    )


def taking_part(recipe: Recipe) -> list[int]:
    """Return the models whose ratio is not 0 everywhere; all of them where it is so of each."""
    found = [i for i, m in enumerate(recipe.finetuned) if m.ratio or any(m.layers.values())]
    return found or list(range(len(recipe.finetuned)))


def baselines(recipe: Recipe, lineup: Lineup, steps: int) -> list[tuple[str, Recipe]]:
    """Return what is measured besides trials, by name: the reference, each fine-tuned model that
    takes part, and `steps` ratios from 1/steps to 1.
    """
    part = taking_part(recipe)
    found = [(lineup.reference.name, at_ratio(recipe, 0.0))]
    found += [(lineup.finetuned[i].name, at_ratio(recipe, 1.0, [i])) for i in part]
    # of one model, ratio 1 is that model
    last = steps if len(part) > 1 else steps - 1
    found += [
        (f"{LINEAR}{round(k / steps, 6):g}", at_ratio(recipe, round(k / steps, 6)))
        for k in range(1, last + 1)
    ]
    return found


def best_linear(points: Sequence[dict[str, Any]], objectives: Sequence[Number]) -> str | None:
    """Return the name of the one ratio for all that is the best compromise on the search prompts.

    Of those that keep the constraints, if any does, the one whose worst objective is best, on
    the scale that the models as they are and all ratios span (`balanced`).
    """
    known = [(p, g) for p in points if (g := gains(p["values"], objectives)) is not None]
    linear = [(p, g) for p, g in known if p["name"].startswith(LINEAR)]
    allowed = [pair for pair in linear if pair[0]["feasible"]] or linear
    if not allowed:
        return None
    place = balanced([gain for _, gain in allowed], [gain for _, gain in known])
    return str(allowed[place][0]["name"])
