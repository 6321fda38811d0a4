"""The project: edits can be taken back exactly, changes are announced, files round-trip."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import lineup, llama_tensors, moved, write_model
from trimtab.errors import UserError
from trimtab.merging.recipe import (
    FineTuned,
    ModelRef,
    Output,
    Recipe,
    Slice,
    SliceSource,
    parse_recipe,
)
from trimtab.project import Edit, Project, edits


def start() -> Recipe:
    return Recipe(
        base=ModelRef(path="/m/base"),
        aligned=ModelRef(path="/m/aligned"),
        finetuned=(FineTuned(path="/m/one", ratio=0.5), FineTuned(path="/m/two", name="second")),
    )


def random_edit(recipe: Recipe, rng: random.Random) -> Edit:
    index = rng.randrange(len(recipe.finetuned)) if recipe.finetuned else None
    value = round(rng.uniform(-2, 2), 3)
    parameter = "scale" if recipe.method == "task_arithmetic" else "reference_ratio"
    choices: list[Any] = [
        lambda: edits.set_method(recipe, rng.choice(["linear", "task_arithmetic"])),
        lambda: edits.set_parameter(recipe, parameter, abs(value)),
        lambda: edits.set_parameter(recipe, "normalize", rng.choice([True, False])),
        lambda: edits.clear_parameter(recipe, parameter),
        lambda: edits.clear_model_parameters(recipe, parameter),
        lambda: edits.set_seed(recipe, rng.randrange(1000)),
        lambda: edits.set_output(recipe, Output(dtype=rng.choice(["float32", "reference"]))),  # type: ignore[arg-type]
        lambda: edits.set_reference_model(
            recipe,
            rng.choice(["base", "aligned"]),
            rng.choice([None, ModelRef(path="/n")]),  # type: ignore[arg-type]
        ),
        lambda: edits.add_finetuned(recipe, [FineTuned(path=f"/f{rng.random()}")]),
    ]
    if index is not None:
        choices += [
            lambda: edits.set_ratio(recipe, index, value),
            lambda: edits.set_layer_ratios(recipe, index, {rng.randrange(9): value}),
            lambda: edits.reset_layer_ratios(recipe, index, rng.choice([None, [1, 2]])),
            lambda: edits.set_module_factor(recipe, index, rng.choice("qkv"), value),
            lambda: edits.set_model_parameter(recipe, index, parameter, abs(value)),
            lambda: edits.clear_weight(recipe, index),
            lambda: edits.remove_finetuned(recipe, index),
            lambda: edits.set_adapter_base(recipe, index, rng.choice(["base", "aligned"])),  # type: ignore[arg-type]
        ]
    edit: Edit = rng.choice(choices)()
    return edit


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_random_edits_undone_give_the_same_bytes(seed: int) -> None:
    rng = random.Random(seed)
    project = Project(start())
    before = project.recipe.to_yaml()
    done, texts = [], []
    for _ in range(100):
        edit = random_edit(project.recipe, rng)
        assert edit.label
        texts.append(project.recipe.to_yaml())
        project.apply(edit)
        assert project.recipe == edit.after
        done.append(edit)
    after = project.recipe.to_yaml()
    for edit, text in zip(reversed(done), reversed(texts), strict=True):
        project.revert(edit)
        assert project.recipe.to_yaml() == text
    assert project.recipe.to_yaml() == before
    assert not project.dirty
    for edit in done:
        project.apply(edit)
    assert project.recipe.to_yaml() == after
    assert parse_recipe(after) == project.recipe


def test_an_edit_changes_what_it_says_and_nothing_else() -> None:
    recipe = start()
    assert edits.set_ratio(recipe, 0, 0.9).after.finetuned[0].ratio == 0.9
    assert edits.set_ratio(recipe, 0, 0.9).after.finetuned[1] == recipe.finetuned[1]
    curve = edits.set_layer_ratios(recipe, 1, {3: 0.1, 1: 0.2}).after
    assert curve.finetuned[1].layers == {1: 0.2, 3: 0.1}
    more = edits.set_layer_ratios(curve, 1, {1: 0.5}).after
    assert more.finetuned[1].layers == {1: 0.5, 3: 0.1}
    assert edits.reset_layer_ratios(more, 1, [3]).after.finetuned[1].layers == {1: 0.5}
    assert edits.reset_layer_ratios(more, 1).after.finetuned[1].layers == {}
    factor = edits.set_module_factor(recipe, 0, "q", 0.5).after
    assert factor.finetuned[0].modules == {"q": 0.5}
    assert edits.set_module_factor(factor, 0, "q", 1.0).after == recipe
    assert edits.remove_finetuned(recipe, 0).after.finetuned == recipe.finetuned[1:]
    assert edits.set_method(recipe, "linear").after.method == "linear"
    scaled = edits.set_parameter(recipe, "scale", 0.5).after
    assert scaled.parameters == {"scale": 0.5}
    assert edits.set_method(scaled, "linear").after.parameters == {}
    assert recipe == start()


def test_a_model_gets_a_parameter_of_its_own_and_gives_it_up_again() -> None:
    recipe = edits.set_method(start(), "dare_ties").after
    own = edits.set_model_parameter(recipe, 1, "density", 0.3)
    assert own.label == "density of second"
    assert own.after.finetuned[1].parameters == {"density": 0.3}
    assert own.after.finetuned[0] == recipe.finetuned[0]
    shared = edits.set_parameter(own.after, "density", 0.7).after
    assert edits.clear_model_parameters(shared, "density").after.finetuned == recipe.finetuned
    assert edits.clear_parameter(shared, "density").after == own.after


def test_another_method_starts_with_its_own_defaults_at_every_level() -> None:
    source = SliceSource(model="one", layers=(0, 2), parameters={"density": 0.1, "weight": 2})
    part = Slice(sources=(source,), parameters={"normalize": True})
    recipe = edits.set_method(start(), "ties").after.model_copy(update={"slices": (part,)})
    recipe = edits.set_parameter(recipe, "weight", 0.5).after
    recipe = edits.set_model_parameter(recipe, 0, "density", 0.3).after
    after = edits.set_method(recipe, "linear").after
    assert after.parameters == {"weight": 0.5}
    assert after.finetuned == start().finetuned
    assert after.slices[0].parameters == {}
    assert after.slices[0].sources[0].parameters == {"weight": 2}
    assert parse_recipe(after.to_yaml()) == after


def test_a_parameter_keeps_its_kind() -> None:
    recipe = edits.set_method(start(), "karcher").after
    for name, value in (("max_iter", 20), ("tol", 0.001)):
        given = edits.set_parameter(recipe, name, value).after.parameters[name]
        assert (given, type(given)) == (value, type(value))
    switched = edits.set_parameter(start(), "normalize", True).after
    assert switched.parameters["normalize"] is True
    assert edits.set_seed(start(), 7).after.seed == 7
    weighed = start().finetuned[0].model_copy(update={"weight": [0.1, 0.9]})
    recipe = start().model_copy(update={"finetuned": (weighed, start().finetuned[1])})
    assert edits.clear_weight(recipe, 0).after == start()


def test_edits_of_one_gesture_are_one_step() -> None:
    recipe = start()
    first = edits.set_ratio(recipe, 0, 0.6, key="drag 1")
    second = edits.set_ratio(first.after, 0, 0.7, key="drag 1")
    joined = first.merged_with(second)
    assert joined is not None
    assert (joined.before, joined.after, joined.key) == (recipe, second.after, "drag 1")
    assert first.merged_with(edits.set_ratio(first.after, 0, 0.7, key="drag 2")) is None
    assert first.merged_with(edits.set_ratio(recipe, 0, 0.7, key="drag 1")) is None
    plain = edits.set_ratio(recipe, 0, 0.6)
    assert plain.merged_with(edits.set_ratio(plain.after, 0, 0.7)) is None


def test_numbers_of_numpy_can_be_saved() -> None:
    """A window's arrays hold numpy's numbers; YAML has to come out all the same."""
    recipe = start()
    for edit in (
        edits.set_ratio(recipe, 0, np.float64(0.25)),
        edits.set_ratio(recipe, 0, np.float32(0.25)),  # type: ignore[arg-type]
        edits.set_layer_ratios(recipe, 0, {np.int64(3): np.float64(0.25)}),  # type: ignore[dict-item]
        edits.set_module_factor(recipe, 0, "q", np.float64(0.25)),
        edits.set_parameter(recipe, "scale", np.float64(0.25)),
    ):
        assert parse_recipe(edit.after.to_yaml()) == edit.after


def listen(project: Project) -> list[Any]:
    heard: list[Any] = []
    project.recipe_changed.connect(lambda old, new: heard.append(("recipe", old, new)))
    project.models_changed.connect(lambda: heard.append("models"))
    project.lineup_changed.connect(lambda: heard.append("lineup"))
    project.inspection_changed.connect(lambda: heard.append("inspection"))
    project.dirty_changed.connect(lambda dirty: heard.append(("dirty", dirty)))
    return heard


def test_what_changes_is_announced_and_nothing_else(tmp_path: Path) -> None:
    project = Project(start())
    heard = listen(project)
    edit = edits.set_ratio(project.recipe, 0, 0.9)
    project.apply(edit)
    assert heard == [("recipe", edit.before, edit.after), ("dirty", True)]
    heard.clear()
    project.apply(edit)
    assert heard == []
    project.revert(edit)
    assert heard == [("recipe", edit.after, edit.before), ("dirty", False)]
    heard.clear()
    remove = edits.remove_finetuned(project.recipe, 1)
    project.apply(remove)
    assert "models" in heard
    assert ("dirty", True) in heard
    heard.clear()
    project.save(tmp_path / "p.yaml")
    assert heard == [("dirty", False)]
    assert not project.dirty
    project.revert(remove)
    assert project.dirty


def test_other_models_make_the_lineup_and_inspection_void(tmp_path: Path) -> None:
    aligned = write_model(tmp_path / "aligned", llama_tensors(1))
    task = write_model(tmp_path / "task", moved(llama_tensors(1), 2))
    project = Project(start())
    heard = listen(project)
    opened = lineup(aligned, task)
    project.set_lineup(opened)
    assert heard == ["lineup"]
    project.apply(edits.set_ratio(project.recipe, 0, 0.1))
    assert project.lineup is opened
    project.apply(edits.set_adapter_base(project.recipe, 0, "base"))
    assert project.lineup is None
    assert project.inspection is None


def test_a_project_file_round_trips_and_moves_with_its_models(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    project = Project(
        Recipe(aligned=ModelRef(path=str(folder / "a")), finetuned=(FineTuned(path="/far/f"),))
    )
    assert project.title == "untitled"
    project.save(folder / "p.trimtab.yaml")
    assert project.title == "p.trimtab.yaml"
    assert Project.load(folder / "p.trimtab.yaml").recipe == project.recipe
    folder.rename(tmp_path / "moved")
    loaded = Project.load(tmp_path / "moved" / "p.trimtab.yaml")
    assert not loaded.dirty
    assert loaded.recipe.aligned == ModelRef(path=str(tmp_path / "moved" / "a"))
    assert loaded.recipe.finetuned[0].path == "/far/f"


def test_a_save_that_fails_leaves_the_project_dirty(tmp_path: Path) -> None:
    project = Project(start())
    project.apply(edits.set_ratio(project.recipe, 0, 0.9))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as caught:
        project.save(tmp_path / "file" / "p.yaml")
    assert caught.value.code == "cannot_write"
    assert project.dirty
    assert project.path is None
