"""What may vary in a sweep: files and words, dimensions over a recipe, recipes of points."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.search.dimensions import Searched, curve, lay_out
from trimtab.search.space import Space, default_space, open_space, parse_varies

MODEL = "task-poisoned"


def laid(*words: str, recipe: Recipe | None = None) -> Searched:
    chosen = recipe or demo_recipe(0.6)
    return lay_out(parse_varies(words), chosen, open_lineup(chosen))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(2, 40))
def test_a_curve_is_numpys_interpolation_between_its_knots(heights: list[float], n: int) -> None:
    knots = np.linspace(0, n - 1, len(heights))
    wanted = np.interp(np.arange(n), knots, heights)
    found = curve(heights, n)
    assert list(found) == list(range(n))
    np.testing.assert_allclose(list(found.values()), wanted, atol=1e-6)


def test_a_point_sets_ratios_of_layers_and_outside_and_leaves_the_rest() -> None:
    searched = laid("curve:2")
    names = [d.name for d in searched.dimensions]
    assert names == [
        f"{MODEL} · layer 0", f"{MODEL} · layer 9", f"{MODEL} · outside the layers"
    ]  # fmt: skip
    model, second = searched.recipe(dict(zip(names, (0.0, 0.9, 0.3), strict=True))).finetuned
    assert model.ratio == 0.3
    assert model.layers == {i: round(0.1 * i, 6) for i in range(10)}
    assert second == demo_recipe(0.6).finetuned[1]


def test_factors_of_groups_reach_every_module_of_the_group() -> None:
    searched = laid("modules")
    assert [d.name for d in searched.dimensions] == [f"{MODEL} · attention", f"{MODEL} · mlp"]
    recipe = searched.recipe({f"{MODEL} · attention": 0.5, f"{MODEL} · mlp": 0.75})
    assert recipe.finetuned[0].modules == {
        **dict.fromkeys(("q", "k", "v", "o"), 0.5),
        **dict.fromkeys(("gate", "up", "down"), 0.75),
    }


def test_the_recipe_itself_is_a_point_of_the_default_space_and_so_is_any_one_ratio() -> None:
    recipe = demo_recipe(0.6)
    lineup = open_lineup(recipe)
    searched = lay_out(default_space(method_weighted=True), recipe, lineup)
    assert searched.start is not None
    for point, ratio in ((searched.start, 0.6), (searched.flat(0.4), 0.4)):
        assert point is not None
        made = searched.recipe(point)
        layers = np.array([-1, *range(10)], dtype=np.int32)
        found = made.ratios(layers, ("embed", *["q"] * 10))
        np.testing.assert_allclose(found[:, 0], ratio)


def test_parameters_take_the_methods_own_range_and_those_of_another_method_are_left_out() -> None:
    searched = laid("method:dare_linear,task_arithmetic", "density")
    density = next(d for d in searched.dimensions if d.name == "density")
    assert (density.low, density.high) == (0.0, 1.0)
    assert searched.recipe({"method": "dare_linear", "density": 0.3}).parameters["density"] == 0.3
    assert searched.recipe({"method": "task_arithmetic", "density": 0.3}).parameters == {}


def test_masks_are_chosen_among_files_switched_and_thinned() -> None:
    recipe = demo_recipe(0.6)
    entry = MaskEntry(rule=Rule(layers=(0, 1)), invert=True)
    masked = recipe.model_copy(
        update={
            "finetuned": (
                recipe.finetuned[0].model_copy(update={"masks": (entry,)}),
                recipe.finetuned[1],
            )
        }
    )
    switched = Space.model_validate({"varies": [{"vary": "mask"}]})
    searched = lay_out(switched, masked, open_lineup(masked))
    [name] = [d.name for d in searched.dimensions]
    assert searched.start == {name: True}
    [off] = searched.recipe({name: False}).finetuned[0].masks
    assert off == entry.model_copy(update={"on": False})

    searched = laid("mask:a.mask.safetensors,b.mask.safetensors,off")
    [name] = [d.name for d in searched.dimensions]
    chosen = str(Path("b.mask.safetensors").absolute())
    assert searched.recipe({name: chosen}).finetuned[0].masks == (MaskEntry(path=chosen),)
    assert not searched.recipe({name: "off"}).finetuned[0].masked

    thinned = Space.model_validate({"varies": [{"vary": "mask", "keep": [0.2, 0.9]}]})
    searched = lay_out(thinned, recipe, open_lineup(recipe))
    [name] = [d.name for d in searched.dimensions]
    [random] = searched.recipe({name: 0.25}).finetuned[0].masks
    assert random == MaskEntry(random=Chance(keep=0.25))


def test_a_file_says_the_same_as_words(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "trimtab_space: 1\nvaries:\n- {vary: ratio, by: layers, knots: 4}\n"
        "- {vary: parameter, name: density, low: 0.2, high: 1}\n"
        "- {vary: mask, files: [a.mask.safetensors, off]}\n"
    )
    mask = f"mask:{tmp_path / 'a.mask.safetensors'},off"
    assert open_space(path) == parse_varies(["curve:4", "density:0.2..1", mask])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("nobody/ratio",), "nobody"),
        (("densty",), "densty"),
        (("modules:qq",), "qq"),
        (("ratio", "curve"), ""),
        (("density:0.2..3",), "density"),
        (("scale:1..0",), "scale"),
        (("ratio:1",), "LOW..HIGH"),
        (("method:ties",), "choices"),
        (("mask:off",), "files"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(words: tuple[str, ...], names: str) -> None:
    recipe = demo_recipe(0.6)
    if "density" in words[0]:
        recipe = recipe.model_copy(update={"method": "dare_linear"})
    if words == ("ratio", "curve"):
        words = ("ratio", "ratio")
    with pytest.raises(UserError) as raised:
        laid(*words, recipe=recipe)
    assert raised.value.code == "bad_space"
    assert names in f"{raised.value}"


@pytest.mark.parametrize("text", ["varies: 3", "[", "trimtab_space: 1", "trimtab_space: 2"])
def test_a_file_that_is_no_space_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        open_space(path)
    assert raised.value.code == "bad_space"


def test_a_space_survives_json(tmp_path: Path) -> None:
    space = parse_varies(["curve:4", "density:0.2..1", "method:ties,dare_ties", "mask:x,off"])
    data: Any = space.model_dump(mode="json")
    assert Space.model_validate(data) == space


def test_the_space_that_the_documentation_shows_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sweep.md").read_text("utf-8")
    shown = re.search(r"^    trimtab_space: 1\n(?:    .*\n)+", text, re.MULTILINE)
    assert shown is not None
    path = tmp_path / "space.yaml"
    path.write_text(textwrap.dedent(shown[0]))
    assert len(open_space(path).varies) == 7
    words = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    named = [word for cell in words for word in re.findall(r"`([^`]+)`", cell)]
    varied = [word for word in named if word.partition(":")[0] in (
        "ratio", "curve", "modules", "density", "normalize", "method", "mask")]  # fmt: skip
    assert len(varied) == 11
    assert len(parse_varies(varied).varies) == 11
