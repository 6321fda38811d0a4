from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gui_lineups import inspect, recipe_of, write_lineup
from safetensors.numpy import load_file

from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.project.edits import set_layer_ratios, set_module_factor
from trimtab_gui.figures import SHIFT, Figures
from trimtab_gui.movement import Movement


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    recipe = recipe_of(write_lineup(tmp_path))
    recipe = set_layer_ratios(recipe, 0, {2: 0.1, 3: 1.2}).after
    return set_module_factor(recipe, 1, "q", 0.5).after


def movement_of(figures: Figures, recipe: Recipe) -> Movement:
    found = figures.movement(recipe)
    assert found is not None
    return found


def differences(recipe: Recipe) -> dict[str, list[np.ndarray]]:
    """merged − aligned, a and the first τ of each tensor, by the formulas, in float64."""
    lineup = open_lineup(recipe)
    stored = {m.name: load_file(m.checkpoint.files[0]) for m in lineup.members}
    grid = lineup.grid
    ratios = recipe.ratios(grid.layers[grid.group_of],
                           tuple(grid.modules[g] for g in grid.group_of))  # fmt: skip
    out: dict[str, list[np.ndarray]] = {"merged": [], "a": [], "tau": []}
    for row, name in enumerate(lineup.names):
        aligned = stored["aligned"][name].astype(np.float64)
        taus = [stored[m][name].astype(np.float64) - aligned for m in ("math", "code")]
        out["merged"].append(ratios[row, 0] * taus[0] + ratios[row, 1] * taus[1])
        out["a"].append(aligned - stored["base"][name].astype(np.float64))
        out["tau"].append(taus[0])
    return out


def test_the_live_curve_is_the_norm_of_what_a_merge_would_change(recipe: Recipe) -> None:
    lineup = open_lineup(recipe)
    figures = Figures(lineup, inspect(lineup))
    curve = figures.by_column(figures.values(SHIFT, 0, movement_of(figures, recipe)))
    expected = np.zeros(len(lineup.grid.columns))
    for row, change in enumerate(differences(recipe)["merged"]):
        expected[lineup.grid.column_of[lineup.grid.group_of[row]]] += (change**2).sum()
    np.testing.assert_allclose(curve, np.sqrt(expected), rtol=1e-9)


def test_the_gauges_are_the_shares_their_formulas_say(recipe: Recipe) -> None:
    lineup = open_lineup(recipe)
    figures = Figures(lineup, inspect(lineup))
    totals = figures.totals(movement_of(figures, recipe), 0)
    parts = {k: np.concatenate([x.ravel() for x in v]) for k, v in differences(recipe).items()}
    merged, a, tau = parts["merged"], parts["a"], parts["tau"]
    assert totals.moved == pytest.approx(np.linalg.norm(merged) / np.linalg.norm(a))
    assert totals.rollback == pytest.approx(-(merged @ a) / (a @ a))
    assert totals.kept == pytest.approx((merged @ tau) / (tau @ tau))


def test_a_selection_sums_its_groups(recipe: Recipe) -> None:
    lineup = open_lineup(recipe)
    figures = Figures(lineup, inspect(lineup))
    whole = figures.subset(tuple(range(figures.grid.n_groups)))
    np.testing.assert_allclose(whole.gram, figures.tensors.total().gram)
    assert int(whole.numel[0]) == int(figures.tensors.numel.sum())
