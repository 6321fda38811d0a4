from __future__ import annotations

import random

from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe
from trimtab.project import Edit, Project
from trimtab.project.edits import (
    add_finetuned,
    remove_finetuned,
    reset_layer_ratios,
    set_layer_ratios,
    set_method,
    set_module_factor,
    set_output,
    set_ratio,
    set_reference_model,
)
from trimtab_gui.undo import History, gesture


def start() -> Recipe:
    return Recipe(
        aligned=ModelRef(path="/m/aligned"),
        finetuned=(FineTuned(path="/m/math", ratio=0.5), FineTuned(path="/m/code")),
    )


def random_edit(recipe: Recipe, dice: random.Random) -> Edit:
    kind = dice.randrange(9)
    if not recipe.finetuned or kind == 0:
        return add_finetuned(recipe, [FineTuned(path=f"/m/{dice.random()}")])
    index = dice.randrange(len(recipe.finetuned))
    if kind == 1:
        return remove_finetuned(recipe, index)
    if kind == 2:
        layers = {dice.randrange(12): dice.random() for _ in range(3)}
        return set_layer_ratios(recipe, index, layers)
    if kind == 3:
        return reset_layer_ratios(recipe, index)
    if kind == 4:
        return set_module_factor(recipe, index, dice.choice("qkv"), dice.choice([1.0, 0.5]))
    if kind == 5:
        return set_method(recipe, dice.choice(["linear", "task_arithmetic"]))
    if kind == 6:
        return set_output(recipe, Output(dtype=dice.choice(["float16", "bfloat16"])))
    if kind == 7:
        return set_reference_model(recipe, "base", ModelRef(path=f"/m/{dice.random()}"))
    return set_ratio(recipe, index, dice.random(), gesture("drag"))


def test_a_hundred_random_edits_undone_give_the_same_bytes(qapp: object) -> None:
    project, history = Project(start()), History()
    before = project.recipe.model_dump_json()
    dice = random.Random(20261123)
    for _ in range(100):
        history.do(project, random_edit(project.recipe, dice))
    after = project.recipe.model_dump_json()
    assert after != before
    while history.canUndo():
        history.undo()
    assert project.recipe.model_dump_json() == before
    while history.canRedo():
        history.redo()
    assert project.recipe.model_dump_json() == after


def test_one_drag_is_one_step(qapp: object) -> None:
    project, history = Project(start()), History()
    key = gesture("drag")
    for value in (0.6, 0.7, 0.8):
        history.do(project, set_ratio(project.recipe, 0, value, key))
    assert history.count() == 1
    history.undo()
    assert project.recipe.finetuned[0].ratio == 0.5


def test_two_drags_are_two_steps(qapp: object) -> None:
    project, history = Project(start()), History()
    for value in (0.6, 0.7):
        history.do(project, set_ratio(project.recipe, 0, value, gesture("drag")))
    assert history.count() == 2


def test_a_drag_that_comes_back_leaves_no_step(qapp: object) -> None:
    project, history = Project(start()), History()
    key = gesture("drag")
    for value in (0.6, 0.7, 0.5):
        history.do(project, set_ratio(project.recipe, 0, value, key))
    assert history.count() == 0
    assert not project.dirty


def test_an_edit_without_effect_leaves_no_step(qapp: object) -> None:
    project, history = Project(start()), History()
    history.do(project, set_ratio(project.recipe, 0, 0.5))
    assert history.count() == 0


def test_the_menu_names_the_step(qapp: object) -> None:
    project, history = Project(start()), History()
    history.do(project, set_ratio(project.recipe, 0, 0.9))
    assert history.undoText() == "Ratio of math"
