"""mergekit's YAML: each key becomes what it means there, or an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.errors import UserError
from trimtab.merging.mergekit import to_recipe
from trimtab.merging.mergekit_methods import METHODS
from trimtab.merging.recipe import Recipe, parse_recipe
from trimtab.merging.settings import Filtered, ModelToken, TokenSource, ZeroRow
from trimtab.methods import get_method


def _recipe(text: str, folder: Path = Path("/nowhere"), notes: list[str] | None = None) -> Recipe:
    return to_recipe(yaml.safe_load(text), folder, notes=notes)


def _refused(text: str, folder: Path = Path("/nowhere")) -> str:
    with pytest.raises(UserError) as raised:
        _recipe(text, folder)
    assert raised.value.code in ("bad_recipe", "parameter_out_of_range")
    return str(raised.value)


_TIES = """
merge_method: ties
base_model: org/start
models:
  - model: org/start
  - {model: org/a, parameters: {weight: 0.3, density: [0.2, 0.8]}}
  - model: org/b
    parameters:
      weight:
        - {filter: mlp, value: [0, 1]}
        - {value: 0.1}
parameters: {normalize: true, lambda: 1.1, density: 0.6}
"""


def test_a_merge_from_a_base_keeps_weights_densities_and_defaults() -> None:
    recipe = _recipe(_TIES)
    assert recipe.method == "ties"
    assert recipe.base is not None
    assert recipe.base.path == "org/start"
    assert [m.path for m in recipe.finetuned] == ["org/a", "org/b"]
    a, b = recipe.finetuned
    assert (a.weight, a.parameters) == (0.3, {"density": [0.2, 0.8]})
    assert b.weight == [Filtered(filter="mlp", value=[0, 1]), Filtered(value=0.1)]
    assert b.parameters == {"density": 0.6}
    assert recipe.parameters == {"normalize": True, "scale": 1.1, "rescale": "none"}


@pytest.mark.parametrize(
    ("method", "shared", "each"),
    [
        ("task_arithmetic", {"normalize": False}, {}),
        ("ties", {"normalize": True, "rescale": "none"}, {"density": 1.0}),
        ("dare_linear", {"normalize": False, "rescale": "l1"}, {"density": 1.0}),
        ("dare_ties", {"normalize": False, "rescale": "l1"}, {"density": 1.0}),
        ("breadcrumbs", {"normalize": False, "rescale": "none"}, {"density": 1.0, "gamma": 0.01}),
        (
            "breadcrumbs_ties",
            {"normalize": False, "rescale": "none"},
            {"density": 1.0, "gamma": 0.01},
        ),
        ("della", {"normalize": True, "rescale": "l1"}, {"density": 1.0, "epsilon": 0.15}),
        ("della_linear", {"normalize": False, "rescale": "l1"}, {"density": 1.0, "epsilon": 0.15}),
    ],
)
def test_defaults_of_mergekit_are_written_out_where_ours_follow_the_papers(
    method: str, shared: dict[str, Any], each: dict[str, Any]
) -> None:
    recipe = _recipe(
        f"{{merge_method: {method}, base_model: o/start, models: [{{model: o/a}}],"
        " parameters: {weight: 1}}"
    )
    assert recipe.parameters == {"scale": 1.0} | shared
    assert recipe.finetuned[0].parameters == each
    assert recipe.finetuned[0].weight == 1


def test_rescaling_there_is_by_l1_norms() -> None:
    text = "{merge_method: della, base_model: o/start, models: [{model: o/a}], parameters: "
    assert _recipe(text + "{weight: 1, rescale: false}}").parameters["rescale"] == "none"
    assert _recipe(text + "{weight: 1, rescale: [true, false]}}").parameters["rescale"] == [
        "l1",
        "none",
    ]


def test_every_method_and_parameter_of_theirs_is_one_of_ours() -> None:
    for name, theirs in METHODS.items():
        ours = {p.name for p in get_method(name).parameters}
        for parameter in (*theirs.shared, *theirs.each):
            if parameter.kind != "hint" and parameter.name != "weight":
                assert parameter.ours in ours, (name, parameter.name)


def test_without_a_base_the_first_model_only_gives_the_form() -> None:
    recipe = _recipe("""
merge_method: linear
models:
  - {model: o/a, parameters: {weight: 0.3}}
  - {model: o/b, parameters: {weight: 0.7}}
""")
    assert recipe.base is not None
    assert (recipe.base.path, recipe.base.name) == ("o/a", "a (layout)")
    assert [(m.path, m.name, m.weight) for m in recipe.finetuned] == [
        ("o/a", "a", 0.3),
        ("o/b", "b", 0.7),
    ]
    assert recipe.parameters == {"normalize": True, "reference_ratio": 0}


def test_the_base_of_a_linear_merge_is_one_more_model_with_a_weight() -> None:
    listed = _recipe("""
merge_method: linear
base_model: o/a
models:
  - {model: o/b, parameters: {weight: 0.7}}
  - {model: o/a, parameters: {weight: [0, 1]}}
parameters: {normalize: false}
""")
    assert [m.path for m in listed.finetuned] == ["o/b"]
    assert listed.parameters == {"normalize": False, "reference_ratio": [0, 1]}
    added = _recipe("{merge_method: linear, base_model: o/a, models: [{model: o/b}],"
                    " parameters: {weight: 2}}")  # fmt: skip
    assert added.parameters["reference_ratio"] == 2
    message = _refused("{merge_method: linear, base_model: o/a, models:"
                       " [{model: o/b, parameters: {weight: 2}}]}")  # fmt: skip
    assert "weight is missing for o/a (base_model)" in message


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_on_spheres_the_origin_is_the_base_or_zero(method: str) -> None:
    models = "models: [{model: o/a}, {model: o/b}], parameters: {weight: 1}"
    with_base = _recipe(f"{{merge_method: {method}, base_model: o/c, {models}}}")
    assert with_base.parameters["origin"] == "reference"
    assert with_base.base is not None
    assert with_base.base.path == "o/c"
    without = _recipe(f"{{merge_method: {method}, {models}}}")
    assert without.parameters["origin"] == "zero"
    assert [m.path for m in without.finetuned] == ["o/a", "o/b"]


def test_a_karcher_mean_has_the_base_among_its_models() -> None:
    recipe = _recipe("{merge_method: karcher, base_model: o/c, models: [{model: o/a}]}")
    assert [m.path for m in recipe.finetuned] == ["o/a", "o/c"]
    assert recipe.base is not None
    assert (recipe.base.path, recipe.base.name) == ("o/c", "c (layout)")


def test_slices_keep_layers_bases_and_the_more_particular_parameter() -> None:
    recipe = _recipe("""
merge_method: ties
base_model: o/start
slices:
  - sources:
      - {model: o/start, layer_range: [0, 2]}
      - {model: o/a, layer_range: [2, 4], parameters: {weight: [{filter: mlp, value: 3}]}}
    parameters: {weight: [{filter: attn, value: 2}], normalize: false}
  - base_model: o/b
    sources:
      - {model: o/b, layer_range: [0, 1]}
      - {model: o/a, layer_range: [5, 6]}
parameters: {weight: 1, density: 0.5}
""")
    first, second = recipe.slices
    assert (first.base, second.base) == ("start", "b")
    assert [(s.model, s.layers) for s in first.sources] == [("start", (0, 2)), ("a", (2, 4))]
    assert first.sources[0].parameters == {}
    assert first.sources[1].parameters["weight"] == [
        Filtered(filter="mlp", value=3),
        Filtered(filter="attn", value=2),
        Filtered(value=1),
    ]
    assert first.parameters == {"normalize": False}
    assert second.sources[1].parameters == {"weight": 1, "density": 0.5}
    assert [m.name for m in recipe.finetuned] == ["a", "b"]
    assert recipe.parameters["normalize"] is True


def test_layers_are_stacked_by_passthrough() -> None:
    recipe = _recipe("""
merge_method: passthrough
slices:
  - sources: [{model: o/a, layer_range: [0, 3]}]
  - sources:
      - model: o/b
        layer_range: [1, 4]
        parameters: {scale: [{filter: o_proj, value: 0.0}, {value: 1.0}]}
""")
    assert [s.sources[0].layers for s in recipe.slices] == [(0, 3), (1, 4)]
    assert [s.base for s in recipe.slices] == [None, None]
    assert recipe.slices[0].sources[0].parameters == {"scale": 1.0}
    assert [m.name for m in recipe.finetuned] == ["a", "b"]


def test_slices_of_a_linear_merge_say_what_the_base_weighs() -> None:
    slices = """
slices:
  - sources:
      - {model: o/a, layer_range: [0, 2], parameters: {weight: 0.25}}
      - {model: o/b, layer_range: [0, 2], parameters: {weight: 1}}
"""
    with_base = _recipe("merge_method: linear\nbase_model: o/a" + slices).slices[0]
    assert (with_base.base, with_base.parameters) == ("a", {"reference_ratio": 0.25})
    assert with_base.sources[0].parameters == {}
    without = _recipe("merge_method: linear" + slices).slices[0]
    assert (without.base, without.parameters) == (None, {"reference_ratio": 0})
    assert [s.parameters for s in without.sources] == [{"weight": 0.25}, {"weight": 1}]


def test_modules_of_a_model_with_one_part_are_its_whole() -> None:
    recipe = _recipe("""
merge_method: task_arithmetic
base_model: o/start
modules:
  default:
    models: [{model: o/a, parameters: {weight: 1}}]
    parameters: {lambda: 0.5}
parameters: {lambda: 2, normalize: true}
""")
    assert recipe.towers == {}
    assert recipe.parameters == {"scale": 0.5, "normalize": True}
    assert [m.path for m in recipe.finetuned] == ["o/a"]


def test_modules_of_several_parts_are_towers() -> None:
    recipe = _recipe("""
merge_method: task_arithmetic
base_model: o/start
modules:
  text_decoder:
    slices:
      - sources:
          - {model: o/start, layer_range: [0, 2]}
          - {model: o/a, layer_range: [0, 2], parameters: {weight: 0.5}}
  vision_tower:
    models: [{model: o/a, parameters: {weight: 1}}]
    parameters: {lambda: 0.5}
""")
    text, vision = recipe.towers["text_decoder"], recipe.towers["vision_tower"]
    assert text.slices[0].sources[1].parameters == {"weight": 0.5}
    assert (vision.slices, vision.parameters) == ((), {"scale": 0.5})
    assert recipe.finetuned[0].weight == 1


def test_models_are_found_beside_the_file_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, beside = tmp_path / "work", tmp_path / "recipes"
    for folder in (work / "a", work / "b", beside / "a", beside / "c+d@1"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    recipe = _recipe("{merge_method: karcher, models: [{model: a}, {model: ./b}, {model: c+d@1},"
                     " {model: o/hub@v1}, {model: ../gone/x}]}", beside)  # fmt: skip
    assert [(m.path, m.revision) for m in recipe.finetuned] == [
        (str(beside / "a"), ""),
        (str(work / "b"), ""),
        (str(beside / "c+d@1"), ""),
        ("o/hub", "v1"),
        (str(tmp_path / "gone" / "x"), ""),
    ]


def test_a_lora_and_revisions_come_with_the_model() -> None:
    recipe = _recipe("""
merge_method: karcher
models:
  - model: o/a@main+o/l@v2
  - model: {model: {path: o/a, revision: dev}, lora: o/l}
  - model: {model: o/a, lora: null}
""")
    assert [(m.path, m.revision, m.lora, m.lora_revision) for m in recipe.finetuned] == [
        ("o/a", "main", "o/l", "v2"),
        ("o/a", "dev", "o/l", ""),
        ("o/a", "", "", ""),
    ]
    assert len({m.name for m in recipe.finetuned}) == 3


def test_models_of_one_name_are_told_apart() -> None:
    recipe = _recipe(
        "{merge_method: karcher, models: [{model: o/m}, {model: p/m}, {model: q/base}]}"
    )
    assert [m.name for m in recipe.finetuned] == ["m", "p/m", "q/base"]


def test_the_output_has_out_dtype_or_else_dtype() -> None:
    text = "{merge_method: karcher, models: [{model: o/m}]"
    assert _recipe(text + "}").output.dtype == "reference"
    notes: list[str] = []
    assert _recipe(text + ", dtype: bfloat16}", notes=notes).output.dtype == "bfloat16"
    assert "arithmetic is float32" in notes[0]
    assert _recipe(text + ", dtype: float32, out_dtype: torch.float16}").output.dtype == "float16"


def test_tokenizers_and_templates_are_kept(tmp_path: Path) -> None:
    text = """
merge_method: linear
base_model: o/start
models: [{model: o/a}, {model: o/b}]
parameters: {weight: 1}
chat_template: chatml
tokenizer:
  source: o/b
  pad_to_multiple_of: 64
  tokens:
    <x>: {source: o/a, force: true}
    <y>: {source: {kind: zero}}
    <z>: {source: {kind: model_token, model: o/start, token_id: 7}}
"""
    tokenizer = _recipe(text).tokenizer
    assert tokenizer is not None
    assert (tokenizer.source, tokenizer.pad_to_multiple_of) == ("b", 64)
    assert tokenizer.tokens == {
        "<x>": TokenSource(source="a", force=True),
        "<y>": TokenSource(source=ZeroRow(kind="zero")),
        "<z>": TokenSource(source=ModelToken(kind="model_token", model="start", token_id=7)),
    }
    assert _recipe(text).chat_template == "chatml"
    short = "{merge_method: karcher, models: [{model: o/m}], tokenizer_source: "
    for source in ("union", "base"):
        found = _recipe(short + source + "}").tokenizer
        assert found is not None
        assert found.source == source
    (tmp_path / "elsewhere").mkdir()
    found = _recipe(short + "elsewhere}", tmp_path).tokenizer
    assert found is not None
    assert found.source == str(tmp_path / "elsewhere")


def test_the_memory_hint_is_taken_and_said_to_do_nothing() -> None:
    notes: list[str] = []
    _recipe("{merge_method: ties, base_model: o/start, models: [{model: o/a}], int8_mask: true,"
            " parameters: {weight: 1, int8_mask: true}}", notes=notes)  # fmt: skip
    assert notes == ["int8_mask saves memory in mergekit; it has no effect on the result."]
    notes.clear()
    _recipe("{merge_method: task_arithmetic, base_model: o/start, models: [{model: o/a,"
            " parameters: {weight: 1, density: 0.5}}]}", notes=notes)  # fmt: skip
    assert notes == ["density does nothing in task_arithmetic, here as in mergekit."]


def test_what_is_read_is_a_recipe_that_can_be_saved() -> None:
    recipe = _recipe(_TIES)
    assert parse_recipe(recipe.to_yaml()) == recipe
