"""Recipes as mergekit's YAML: they come back as they went, or it is said what cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trimtab.checkpoints.naming import parse
from trimtab.errors import UserError
from trimtab.merging.mergekit import to_recipe
from trimtab.merging.mergekit_export import from_recipe
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe
from trimtab.merging.settings import Filtered, evaluate

_NAMES = (
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(12)
        for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
    ),
    "model.norm.weight",
    "lm_head.weight",
)


def _back(recipe: Recipe, names: tuple[str, ...] = _NAMES) -> Recipe:
    return to_recipe(yaml.safe_load(from_recipe(recipe, names)), Path("/nowhere"))


def _recipe(text: str) -> Recipe:
    return to_recipe(yaml.safe_load(text), Path("/nowhere"))


@pytest.mark.parametrize(
    "text",
    [
        "{merge_method: ties, base_model: o/start, models: [{model: o/a, parameters: {weight: 0.3,"
        " density: [0.2, 0.8]}}, {model: o/b@v+o/l, parameters: {weight: [{filter: mlp, value: 1},"
        " {value: 2}]}}], parameters: {normalize: false, lambda: 1.1}, dtype: bfloat16,"
        " tokenizer: {source: union, pad_to_multiple_of: 8, tokens: {x: {source: o/a}}},"
        " chat_template: chatml}",
        "{merge_method: linear, base_model: o/a, models: [{model: o/b}], parameters: {weight: 1}}",
        "{merge_method: karcher, models: [{model: o/a}, {model: o/b}], parameters: {tol: 1e-3}}",
        "{merge_method: nuslerp, models: [{model: o/a}, {model: o/b}], parameters:"
        " {weight: [0, 1], nuslerp_row_wise: true}}",
        "{merge_method: multislerp, base_model: o/start, models: [{model: o/a}, {model: o/b}],"
        " parameters: {weight: 1}}",
        "{merge_method: della, base_model: o/start, models: [{model: o/a}], parameters:"
        " {weight: 1, rescale: [true, false], epsilon: 0.1}, out_dtype: float16}",
        "{merge_method: slerp, base_model: o/a, slices: [{sources: [{model: o/a, layer_range:"
        " [0, 4]}, {model: o/b, layer_range: [2, 6]}]}], parameters: {t: [{filter: mlp,"
        " value: [0, 1]}, {value: 0.5}]}}",
        "{merge_method: passthrough, slices: [{sources: [{model: o/a, layer_range: [0, 4]}]},"
        " {sources: [{model: o/b, layer_range: [2, 6], parameters: {scale: 0.5}}]}]}",
        "{merge_method: nuslerp, slices: [{sources: [{model: o/a, layer_range: [0, 2]}, {model:"
        " o/b, layer_range: [0, 2]}]}], parameters: {weight: 1}}",
        "{merge_method: ties, base_model: o/a, parameters: {weight: 1}, slices: [{base_model: o/b,"
        " sources: [{model: o/b, layer_range: [0, 1]}, {model: o/c, layer_range: [0, 1]}]}]}",
        "{merge_method: task_arithmetic, base_model: o/start, modules: {text_decoder: {models:"
        " [{model: o/a, parameters: {weight: 1}}]}, vision_tower: {models: [{model: o/a,"
        " parameters: {weight: 1}}], parameters: {lambda: 0.5}}}}",
    ],
)
def test_what_was_imported_is_exported_to_the_same_recipe(text: str) -> None:
    recipe = _recipe(text)
    again = _back(recipe)
    if recipe.output.dtype == "reference":
        recipe = recipe.model_copy(update={"output": again.output})
    assert again == recipe


def test_a_linear_merge_without_a_base_stays_the_same_mean() -> None:
    recipe = _recipe("{merge_method: linear, models: [{model: o/a, parameters: {weight: 1}},"
                     " {model: o/b, parameters: {weight: 3}}]}")  # fmt: skip
    again = _back(recipe)
    assert again.base is not None
    assert again.base.path == "o/a"
    assert [(m.path, m.weight) for m in again.finetuned] == [("o/b", 3)]
    assert again.parameters["reference_ratio"] == 1


def _weights(recipe: Recipe, model: int) -> np.ndarray[Any, Any]:
    """Each tensor's weight as the recipe has it: curves, modules and settings multiplied."""
    places = [parse(name) for name in _NAMES]
    layers = np.array([-1 if p.layer is None else p.layer for p in places], dtype=np.int32)
    ratios = recipe.ratios(layers, tuple(p.module for p in places))[:, model]
    setting = recipe.finetuned[model].weight
    if setting is not None:
        said = [
            evaluate(setting, name, max(layer, 0) / 11)
            for name, layer in zip(_NAMES, layers.tolist(), strict=True)
        ]
        ratios = ratios * np.array(said, dtype=np.float64)
    return ratios


@pytest.mark.parametrize(
    "model",
    [
        FineTuned(path="o/a", ratio=0.25),
        FineTuned(path="o/a", ratio=0.5, layers={0: 0.1, 7: -0.4, 11: 1.0}),
        FineTuned(path="o/a", modules={"q": 2.0, "norm": 0.0}),
        FineTuned(path="o/a", ratio=0.5, layers={3: 0.0}, modules={"up": 0.5, "head": 3.0}),
        FineTuned(
            path="o/a",
            ratio=0.5,
            modules={"embed": 0.0},
            weight=[Filtered(filter="mlp", value=[0.0, 1.0]), Filtered(value=0.3)],
        ),
        FineTuned(path="o/a", ratio=2.0, weight=[0.0, 1.0]),
    ],
)
def test_curves_become_gradients_and_filters_of_the_same_values(model: FineTuned) -> None:
    recipe = Recipe(base=ModelRef(path="o/start"), finetuned=(model,))
    again = _back(recipe)
    np.testing.assert_allclose(_weights(again, 0), _weights(recipe, 0), rtol=1e-12, atol=1e-12)


def test_one_curve_for_all_modules_is_written_as_one_gradient() -> None:
    recipe = Recipe(
        base=ModelRef(path="o/start"), finetuned=(FineTuned(path="o/a", layers={0: 0.0}),)
    )
    data = yaml.safe_load(from_recipe(recipe, _NAMES))
    assert data["models"][0]["parameters"]["weight"] == [
        {"filter": "model.layers.", "value": [0.0] + [1.0] * 11},
        {"value": 1.0},
    ]


def test_our_defaults_are_written_out_where_mergekits_differ() -> None:
    recipe = Recipe(
        method="ties", base=ModelRef(path="o/start"), finetuned=(FineTuned(path="o/a"),)
    )
    data = yaml.safe_load(from_recipe(recipe, _NAMES))
    assert data["models"] == [{"model": "o/a", "parameters": {"weight": 1.0, "density": 0.2}}]


def test_arithmetic_is_asked_for_in_float32(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    base = ModelRef(path=str(tmp_path))
    for output, dtypes in (
        (Output(), ("float32", "bfloat16")),
        (Output(dtype="float16"), ("float32", "float16")),
        (Output(dtype="float32"), ("float32", None)),
    ):
        recipe = Recipe(base=base, finetuned=(FineTuned(path="o/a"),), output=output)
        data = yaml.safe_load(from_recipe(recipe, _NAMES))
        assert (data["dtype"], data.get("out_dtype")) == dtypes


def test_an_adapter_stands_behind_the_model_it_belongs_to(tmp_path: Path) -> None:
    adapter = tmp_path / "tuned@home"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    recipe = Recipe(
        base=ModelRef(path="o/base"),
        aligned=ModelRef(path="o/chat"),
        finetuned=(
            FineTuned(path=str(adapter)),
            FineTuned(path=str(adapter), name="other", adapter_base="base"),
        ),
    )
    data = yaml.safe_load(from_recipe(recipe, _NAMES))
    assert data["base_model"] == "o/chat"
    assert [entry["model"] for entry in data["models"]] == [
        {"model": {"path": "o/chat"}, "lora": {"path": str(adapter)}},
        {"model": {"path": "o/base"}, "lora": {"path": str(adapter)}},
    ]
    again = _back(recipe)
    assert [(m.path, m.lora) for m in again.finetuned] == [
        ("o/chat", str(adapter)),
        ("o/base", str(adapter)),
    ]


@pytest.mark.parametrize(
    ("method", "named"), [("iso_c", "method: iso_c"), ("dare_ties", "rescale is density")]
)
def test_what_mergekit_cannot_do_is_said(method: str, named: str) -> None:
    recipe = Recipe(
        method=method, base=ModelRef(path="o/start"), finetuned=(FineTuned(path="o/a"),)
    )
    with pytest.raises(UserError, match=named) as raised:
        from_recipe(recipe, _NAMES)
    assert raised.value.code == "cannot_export"


def test_tensors_that_only_whole_names_tell_apart_are_named() -> None:
    names = ("layers.0.up_proj.weight", "layers.1.q_proj.weight", "q_proj.weight", "wte.weight")
    recipe = Recipe(
        base=ModelRef(path="o/start"),
        finetuned=(FineTuned(path="o/a", ratio=3.0, layers={0: 0.5, 1: 0.25}),),
    )
    weight = _back(recipe, names).finetuned[0].weight
    assert [entry.filter for entry in weight] == sorted(names, key=len, reverse=True)
    assert [evaluate(weight, name, 1.0) for name in names] == [0.5, 0.25, 3.0, 3.0]
