"""Recipes: read back as written, ratios where they belong, mistakes named by their key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe, load_recipe, parse_recipe

_numbers = st.floats(-3, 3)
_paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
_finetuned = st.builds(
    FineTuned,
    path=_paths,
    name=st.text(max_size=8),
    ratio=_numbers,
    layers=st.dictionaries(st.integers(0, 99), _numbers, max_size=3),
    modules=st.dictionaries(st.text(min_size=1, max_size=5), _numbers, max_size=3),
    adapter_base=st.sampled_from([None, "aligned", "base"]),
)
_refs = st.none() | st.builds(ModelRef, path=_paths, name=st.text(max_size=8))
recipes = st.one_of(
    st.builds(
        Recipe,
        method=st.just(method),
        parameters=st.dictionaries(st.just(parameter), st.floats(0, 2), max_size=1),
        base=_refs,
        aligned=_refs,
        finetuned=st.lists(_finetuned, max_size=3).map(tuple),
        output=st.builds(
            Output,
            dtype=st.sampled_from(["reference", "float32", "float16", "bfloat16"]),
            shard_size=st.just("reference") | st.integers(10**6, 10**12),
        ),
    )
    for method, parameter in (("task_arithmetic", "scale"), ("linear", "reference_ratio"))
)


@given(recipes)
def test_yaml_holds_the_whole_recipe(recipe: Recipe) -> None:
    text = recipe.to_yaml()
    assert parse_recipe(text) == recipe
    assert parse_recipe(text).to_yaml() == text
    assert text.startswith("trimtab: 1\n")


def test_defaults_are_left_out() -> None:
    recipe = Recipe(aligned=ModelRef(path="/a"), finetuned=(FineTuned(path="/f", ratio=0.5),))
    assert yaml.safe_load(recipe.to_yaml()) == {
        "trimtab": 1,
        "method": "task_arithmetic",
        "aligned": {"path": "/a"},
        "finetuned": [{"path": "/f", "ratio": 0.5}],
    }


def test_ratios_are_those_of_layer_times_module() -> None:
    recipe = Recipe(
        finetuned=(
            FineTuned(
                path="a", ratio=0.5, layers={0: 0.1, 2: -0.4}, modules={"q": 2.0, "head": 3.0}
            ),
            FineTuned(path="b"),
        )
    )
    layers = np.array([-1, 0, 0, 1, 1, 2, 2, -1], dtype=np.int32)
    modules = ("embed", "q", "k", "q", "k", "q", "k", "head")
    ratios = recipe.ratios(layers, modules)
    np.testing.assert_allclose(ratios[:, 0], [0.5, 0.2, 0.1, 1.0, 0.5, -0.8, -0.4, 1.5])
    np.testing.assert_allclose(ratios[:, 1], 1.0)
    np.testing.assert_allclose(recipe.coefficients(layers, modules), ratios)
    linear = recipe.model_copy(update={"method": "linear"})
    np.testing.assert_allclose(
        linear.coefficients(layers, modules), ratios / (1 + ratios.sum(axis=1, keepdims=True))
    )


GOOD = "trimtab: 1\naligned: {path: /a}\nfinetuned: [{path: /f}]\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("finetuned:\n- ratio: 0.5", "finetuned.0.path"),
        ("finetuned: [{path: /f, ratio: many}]", "finetuned.0.ratio"),
        ("finetuned: [{path: /f, ratio: .nan}]", "finetuned.0.ratio"),
        ("finetuned: [{path: /f, ratio: .inf}]", "finetuned.0.ratio"),
        ("finetuned: [{path: /f, layers: {first: 1}}]", "finetuned.0.layers.first"),
        ("finetuned: [{path: /f, layers: {1: x}}]", "finetuned.0.layers.1"),
        ("finetuned: [{path: /f, adapter_base: me}]", "finetuned.0.adapter_base"),
        ("finetuned: {path: /f}", "finetuned"),
        ("aligned: /a", "aligned"),
        ("aligned: {path: /a, weight: 1}", "aligned.weight"),
        ("methd: linear", "methd"),
        ("parameters: {scale: x}", "parameters.scale"),
        ("output: {dtype: int8}", "output.dtype"),
        ("output: {shard_size: 5}", "output.shard_size"),
        ("output: {shard_size: huge}", "output.shard_size"),
        ("output: {shard_size: infGB}", "output.shard_size"),
        ("output: {shard_size: nanGB}", "output.shard_size"),
        ("output: {shard_size: ''}", "output.shard_size"),
        ("trimtab: 2", "trimtab"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, key: str) -> None:
    whole = text if text.startswith("trimtab") else f"trimtab: 1\n{text}"
    with pytest.raises(UserError) as caught:
        parse_recipe(whole, "my.yaml")
    assert caught.value.code == "bad_recipe"
    assert f" {key}" in caught.value.what
    assert "my.yaml" in caught.value.what


@pytest.mark.parametrize(
    "text",
    ["", "x", "[1]", "method: linear", "trimtab: 1\n  x", "\t", "trimtab: !!python/object:os.x {}",
     "[" * 10_000, "trimtab: " + "9" * 5000, "trimtab: 2026-99-99", "a: &a [*a]"],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(text)
    assert caught.value.code == "bad_recipe"


def test_method_and_parameters_are_checked_on_reading() -> None:
    for text, code in (
        ("method: magic", "unknown_method"),
        ("parameters: {speed: 1}", "unknown_parameter"),
        ("parameters: {scale: 9}", "parameter_out_of_range"),
    ):
        with pytest.raises(UserError) as caught:
            parse_recipe(GOOD + text)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "size"),
    [("5 GB", 5 * 10**9), ("1.5MB", 1_500_000), ("2gb", 2 * 10**9), ("3000000", 3_000_000)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_recipe(GOOD + f"output: {{shard_size: {text}}}").output.shard_size == size


def test_files_keep_near_paths_relative(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "recipes"
    folder.mkdir(parents=True)
    recipe = Recipe(
        base=ModelRef(path="/elsewhere/base"),
        aligned=ModelRef(path=str(tmp_path / "work" / "models" / "aligned")),
        finetuned=(FineTuned(path=str(folder / "task")),),
    )
    path = folder / "r.yaml"
    recipe.save(path)
    saved = yaml.safe_load(path.read_text())
    assert saved["base"]["path"] == "/elsewhere/base"
    assert saved["aligned"]["path"] == "../models/aligned"
    assert saved["finetuned"][0]["path"] == "task"
    assert load_recipe(path) == recipe
    # moved together, it still finds its models
    (tmp_path / "work").rename(tmp_path / "moved")
    loaded = load_recipe(tmp_path / "moved" / "recipes" / "r.yaml")
    assert loaded.aligned is not None
    assert loaded.aligned.path == str(tmp_path / "moved" / "models" / "aligned")


def test_home_and_names_that_only_look_like_it(tmp_path: Path) -> None:
    recipe = Recipe(aligned=ModelRef(path="~/m"), base=ModelRef(path="~no-such-user/m"))
    absolute = recipe.absolute(tmp_path)
    assert absolute.aligned is not None
    assert absolute.base is not None
    assert absolute.aligned.path == str(Path.home() / "m")
    assert absolute.base.path == str(tmp_path / "~no-such-user" / "m")
    recipe.save(tmp_path / "r.yaml")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "absent.yaml")
    assert caught.value.code == "unreadable"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "binary.yaml")
    assert caught.value.code == "unreadable"
    with pytest.raises(UserError) as caught:
        Recipe().save(tmp_path / "binary.yaml" / "r.yaml")
    assert caught.value.code == "cannot_write"
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError) as caught:
        Recipe().save(tmp_path / "taken")
    assert caught.value.code == "cannot_write"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["binary.yaml", "taken"]
