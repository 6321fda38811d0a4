"""The live numbers against the merge itself: what is foretold is what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_lineups import inspect, recipe_of, write_lineup
from safetensors.numpy import load_file

from trimtab.checkpoints import Lineup
from trimtab.jobs.control import JobControl
from trimtab.merging.recipe import Recipe, Slice, SliceSource, open_lineup
from trimtab.merging.settings import Filtered, Tokenizer
from trimtab.methods import methods
from trimtab.project import edits
from trimtab_gui.figures import Figures
from trimtab_gui.movement import why_unknown


def merged(recipe: Recipe, lineup: Lineup, folder: Path) -> dict[str, np.ndarray]:
    from trimtab.merging.engine import run_merge
    from trimtab.merging.planner import plan_merge

    run_merge(plan_merge(recipe, lineup), folder, JobControl(lambda *_: None))
    return load_file(folder / "model.safetensors")


def one_model(recipe: Recipe) -> Recipe:
    return edits.remove_finetuned(recipe, 1).after


def with_method(recipe: Recipe, method: str, **parameters: Any) -> Recipe:
    recipe = edits.set_method(recipe, method).after
    for name, value in parameters.items():
        recipe = edits.set_parameter(recipe, name, value).after
    return recipe


def varied(recipe: Recipe) -> Recipe:
    """Ratios by layer and module, a weight that is a gradient, another that goes by name."""
    recipe = edits.set_layer_ratios(recipe, 0, {1: 0.2, 2: 0.0}).after
    recipe = edits.set_module_factor(recipe, 1, "q", 0.5).after
    first = recipe.finetuned[0].model_copy(update={"weight": [0.2, 1.0]})
    by_name = [Filtered(filter="mlp", value=0.5), Filtered(value=1.0)]
    second = recipe.finetuned[1].model_copy(update={"weight": by_name})
    return recipe.model_copy(update={"finetuned": (first, second)})


def own_scale(recipe: Recipe) -> Recipe:
    return edits.set_model_parameter(one_model(recipe), 0, "scale", 0.8).after


CASES = {
    "linear": lambda r: with_method(r, "linear"),
    "a linear sum": lambda r: with_method(r, "linear", normalize=False),
    "task arithmetic, varied": lambda r: varied(with_method(r, "task_arithmetic", scale=0.7)),
    "slerp": lambda r: one_model(with_method(r, "slerp", t=0.3)),
    "nuslerp": lambda r: with_method(r, "nuslerp"),
    "nuslerp of the models": lambda r: with_method(r, "nuslerp", origin="zero"),
    "multislerp, varied": lambda r: varied(with_method(r, "multislerp")),
    "multislerp of the models": lambda r: with_method(r, "multislerp", origin="zero"),
    "karcher": lambda r: with_method(r, "karcher"),
    "model stock": lambda r: with_method(r, "model_stock"),
    "passthrough": lambda r: one_model(with_method(r, "passthrough")),
    "passthrough, scaled": lambda r: own_scale(with_method(r, "passthrough")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_foretold_is_what_a_merge_writes(case: str, tmp_path: Path) -> None:
    recipe = CASES[case](recipe_of(write_lineup(tmp_path / "models")))
    lineup = open_lineup(recipe)
    figures = Figures(lineup, inspect(lineup))
    movement = figures.movement(recipe)
    assert movement is not None
    written = merged(recipe, lineup, tmp_path / "out")
    stored = {m.name: load_file(m.checkpoint.files[0]) for m in lineup.members}
    grid = lineup.grid
    shift2, along_a = np.zeros(grid.n_groups), np.zeros(grid.n_groups)
    along_tau = np.zeros((grid.n_groups, len(lineup.finetuned)))
    for row, name in enumerate(lineup.names):
        reference = stored["aligned"][name].astype(np.float64)
        moved = written[name] - reference
        group = grid.group_of[row]
        shift2[group] += (moved**2).sum()
        along_a[group] += (moved * (reference - stored["base"][name])).sum()
        for i, member in enumerate(lineup.finetuned):
            along_tau[group, i] += (moved * (stored[member.name][name] - reference)).sum()
    near = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(movement.shift, np.sqrt(shift2), **near)
    np.testing.assert_allclose(movement.along_a, along_a, **near)
    np.testing.assert_allclose(movement.along_tau, along_tau, **near)


def test_what_only_a_merge_can_tell_is_not_foretold(tmp_path: Path) -> None:
    recipe = recipe_of(write_lineup(tmp_path / "models"))
    lineup = open_lineup(recipe)
    figures = Figures(lineup, inspect(lineup))
    for method in methods():
        if method.form is None and method.takes[0] <= 2:
            changed = with_method(recipe, method.name)
            changed = one_model(changed) if method.takes[1] == 1 else changed
            assert figures.movement(changed) is None
            assert "known when it is merged" in why_unknown(changed, method.title)
    assert figures.movement(with_method(recipe, "model_stock", filter_wise=True)) is None
    slices = (Slice(sources=(SliceSource(model="math", layers=(0, 3)),)),)
    stacked = with_method(recipe, "passthrough").model_copy(update={"slices": slices})
    assert figures.movement(stacked) is None
    assert "stacked" in why_unknown(stacked, "Passthrough")
    tokens = recipe.model_copy(update={"tokenizer": Tokenizer()})
    assert figures.movement(tokens) is None
    assert "Tokens" in why_unknown(tokens, "Linear")


def test_every_method_without_a_form_says_what_it_does_to_entries() -> None:
    from trimtab_gui.movement import _WHY_UNKNOWN

    assert {m.name for m in methods() if m.form is None} <= set(_WHY_UNKNOWN)
