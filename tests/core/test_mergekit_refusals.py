"""What mergekit passes over in silence, or cannot be honoured, is an error naming the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trimtab.errors import UserError
from trimtab.merging.mergekit import to_recipe

_BASED = "merge_method: ties, base_model: o/start"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{models: [{model: o/a}]}", "merge_method"),
        ("{merge_method: tiez, models: [{model: o/a}]}", "merge_method is 'tiez'"),
        (f"{{{_BASED}}}", "models, slices and modules"),
        (f"{{{_BASED}, models: [{{model: o/a}}], slices: [{{sources: []}}]}}", "models and slices"),
        (f"{{{_BASED}, models: [{{model: o/a}}], tokenizer_src: union}}", "tokenizer_src"),
        (f"{{{_BASED}, models: [{{model: o/a, weight: 1}}]}}", "models[0].weight"),
        (f"{{{_BASED}, normalize: true, models: [{{model: o/a}}]}}", "normalize"),
        (f"{{{_BASED}, models: [{{model: o/a}}]}}", "weight is missing for o/a (models[0])"),
        (f"{{{_BASED}, models: [{{modle: o/a}}]}}", "models[0].modle"),
        (f"{{{_BASED}, models: [{{model: 7}}]}}", "models[0].model"),
        (f"{{{_BASED}, models: [{{model: a+b+c}}]}}", "models[0].model"),
        (f"{{{_BASED}, models: [{{model: a@b@c}}]}}", "models[0].model"),
        (
            f"{{{_BASED}, models: [{{model: {{model: a, override_architecture: X}}}}]}}",
            "models[0].model.override_architecture",
        ),
        (f"{{{_BASED}, models: [{{model: o/a}}, {{model: o/a}}], parameters: {{weight: 1}}}}",
         "models[1]"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{wieght: 1}}}}",
         "parameters.wieght"),
        (f"{{{_BASED}, models: [{{model: o/a, parameters: {{weight: 1, lambda: 2}}}}]}}",
         "models[0].parameters.lambda"),
        (f"{{{_BASED}, models: [{{model: o/a, parameters: {{weight: big}}}}]}}",
         "models[0].parameters.weight"),
        (f"{{{_BASED}, models: [{{model: o/a, parameters: {{weight: .nan}}}}]}}",
         "models[0].parameters.weight"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1, normalize: 0.5}}}}",
         "parameters.normalize"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1, density: 1.5}}}}",
         "density is 1.5"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}}, dtype: float64}}",
         "dtype is 'float64'"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}}, out_dtype: int64}}",
         "out_dtype is 'int64'"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}}, tokenizer_source: base,"
         " tokenizer: {source: base}}", "tokenizer_source and tokenizer"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}},"
         " tokenizer: {pad: 2}}", "tokenizer.pad"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}},"
         " tokenizer: {pad_to_multiple_of: 0}}", "tokenizer.pad_to_multiple_of"),
        (f"{{{_BASED}, models: [{{model: o/a}}], parameters: {{weight: 1}},"
         " tokenizer: {tokens: {x: {source: o/z}}}}", "tokenizer.tokens['x'].source"),
        ("{merge_method: ties, models: [{model: o/a}], parameters: {weight: 1}}", "base_model"),
        ("{merge_method: slerp, base_model: o/start, models: [{model: o/a}]}", "t is missing"),
        ("{merge_method: slerp, base_model: o/start, models: [{model: o/a}, {model: o/b}],"
         " parameters: {t: 0.5}}", "models gives slerp 2 models"),
        ("{merge_method: slerp, base_model: o/start, models: [{model: o/a}],"
         " parameters: {t: 0.5, weight: 1}}", "parameters.weight"),
        ("{merge_method: model_stock, base_model: o/start, models: [{model: o/a}]}", "models"),
        ("{merge_method: passthrough, models: [{model: o/a}, {model: o/b}]}", "models"),
        ("{merge_method: karcher, models: [{model: o/a}], chat_template: 7}", "chat_template"),
        ("{merge_method: passthrough, slices: [{sources: [{model: o/a}]}]}",
         "slices[0].sources[0].layer_range"),
        ("{merge_method: passthrough, slices: [{sources: [{model: o/a, layer_range: [2, 2]}]}]}",
         "slices[0].sources[0].layer_range"),
        ("{merge_method: passthrough, slices: [{residual_weight: 0.5, sources:"
         " [{model: o/a, layer_range: [0, 2]}]}]}", "slices[0].residual_weight"),
        ("{merge_method: karcher, slices: [{sources: [{model: o/a, layer_range: [0, 2]},"
         " {model: o/b, layer_range: [0, 3]}]}]}", "slices[0]"),
        ("{merge_method: ties, base_model: o/c, parameters: {weight: 1}, slices: [{sources:"
         " [{model: o/a, layer_range: [0, 2]}]}]}", "slices[0]"),
        ("{merge_method: slerp, slices: [{sources: [{model: o/a, layer_range: [0, 2]},"
         " {model: o/b, layer_range: [0, 2]}]}], parameters: {t: 1}}", "base_model of slices[0]"),
        ("{merge_method: karcher, slices: [{sources: [{model: o/a, layer_range: [0, 2]},"
         " {model: o/a, layer_range: [2, 4]}]}]}", "slices[0].sources[1]"),
        ("{merge_method: karcher, modules: {default: {}}}", "modules.default"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_named(text: str, named: str) -> None:
    with pytest.raises(UserError) as raised:
        to_recipe(yaml.safe_load(text), Path("/nowhere"))
    assert raised.value.code in ("bad_recipe", "parameter_out_of_range")
    assert named in str(raised.value)
