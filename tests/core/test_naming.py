"""Names: every tensor of the known model families has its place, a foreign one a sane fallback."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.naming import MODULE_ORDER, TensorName, module_key, natural_key, parse

transformers.logging.set_verbosity_error()

TINY: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 32, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MOE = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2,
       "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
       "decoder_sparse_step": 1}  # fmt: skip

GATED = {"q", "k", "v", "o", "gate", "up", "down", "norm"}
FAMILIES: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    # model_type: (settings, modules inside the blocks, modules outside)
    "llama": ({}, GATED, {"embed", "norm", "head"}),
    "mistral": ({}, GATED, {"embed", "norm", "head"}),
    "qwen2": ({}, GATED, {"embed", "norm", "head"}),
    "qwen3": ({}, GATED, {"embed", "norm", "head"}),
    "gemma2": ({}, GATED, {"embed", "norm"}),
    "gemma3_text": ({}, GATED, {"embed", "norm"}),
    "phi": ({"num_key_value_heads": 2}, {"q", "k", "v", "o", "fc1", "fc2", "norm"},
            {"embed", "norm", "head"}),
    "phi3": ({}, {"qkv", "o", "gate_up", "down", "norm"}, {"embed", "norm", "head"}),
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
             {"qkv", "o", "fc1", "fc2", "norm"}, {"embed", "position", "norm"}),
    "gpt_neox": ({}, {"qkv", "o", "fc1", "fc2", "norm"}, {"embed", "norm", "head"}),
    "mixtral": (MOE, GATED | {"router"}, {"embed", "norm", "head"}),
    "qwen2_moe": (MOE, GATED | {"router"}, {"embed", "norm", "head"}),
    "qwen3_moe": (MOE, GATED | {"router"}, {"embed", "norm", "head"}),
}  # fmt: skip
MIXTURES = [family for family, (settings, _, _) in FAMILIES.items() if settings is MOE]


@cache
def saved_names(family: str, folder: Path) -> tuple[str, ...]:
    """The names that `save_pretrained` gives the tensors of a random model of this family."""
    settings = TINY | FAMILIES[family][0]
    if family == "gpt2":
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                    "max_position_embeddings", "num_key_value_heads", "head_dim"):  # fmt: skip
            settings.pop(key)
    if family in ("phi", "gpt_neox", "phi3"):
        settings.pop("head_dim")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    model.save_pretrained(folder / family)
    return open_checkpoint(folder / family).index.names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_family_has_its_place(family: str, folder: Path) -> None:
    names = saved_names(family, folder)
    _, inside, outside = FAMILIES[family]
    places = {name: parse(name) for name in names}
    assert {p.module for p in places.values() if p.zone == "layer"} == inside
    assert {p.module for p in places.values() if p.zone != "layer"} == outside
    assert {p.layer for p in places.values() if p.zone == "layer"} == {0, 1}
    for name, place in places.items():
        assert place.module in MODULE_ORDER, name
        assert (place.layer is None) == (place.zone != "layer")
        assert ("layers.0." in name or "h.0." in name) == (place.layer == 0)
        assert (place.zone == "in") == (place.module in ("embed", "position"))
        for sign, module in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("o_proj", "o")):
            if f".{sign}." in name:
                assert place.module == module


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_of_a_mixture_are_told_apart(family: str, folder: Path) -> None:
    experts: dict[int | None, set[str]] = {}
    for name in saved_names(family, folder):
        place = parse(name)
        experts.setdefault(place.expert, set()).add(place.module)
    assert set(experts) == {None, 0, 1, 2}
    for number in range(3):
        assert experts[number] == {"gate", "up", "down"}
    assert "router" in experts[None]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.17.mlp.down_proj.weight", TensorName("layer", 17, "down", None)),
        ("model.language_model.layers.3.self_attn.q_norm.weight",
         TensorName("layer", 3, "norm", None)),
        ("model.layers.1.block_sparse_moe.experts.7.w2.weight", TensorName("layer", 1, "down", 7)),
        ("model.layers.1.block_sparse_moe.gate.weight", TensorName("layer", 1, "router", None)),
        ("model.layers.1.mlp.shared_expert_gate.weight", TensorName("layer", 1, "router", None)),
        ("h.0.attn.c_proj.bias", TensorName("layer", 0, "o", None)),
        ("h.0.mlp.c_proj.bias", TensorName("layer", 0, "fc2", None)),
        ("gpt_neox.layers.5.attention.dense.weight", TensorName("layer", 5, "o", None)),
        ("vision_tower.encoder.layers.4.self_attn.q_proj.weight",
         TensorName("in", None, "vision_tower", None)),
        ("model.visual.blocks.4.attn.qkv.weight", TensorName("in", None, "visual", None)),
        # foreign names keep their last component, and nothing breaks
        ("encoder.thing.7.frobnicator", TensorName("out", None, "frobnicator", None)),
        ("model.layers.2.mixer.A_log", TensorName("layer", 2, "A_log", None)),
        ("weight", TensorName("out", None, "weight", None)),
        ("", TensorName("out", None, "", None)),
        ("....", TensorName("out", None, "", None)),
        (f"model.layers.{'9' * 30}.mlp.down_proj.weight", TensorName("out", None, "down", None)),
    ],
)  # fmt: skip
def test_single_names(name: str, place: TensorName) -> None:
    assert parse(name) == place


def test_labels_and_rows() -> None:
    assert parse("model.layers.18.mlp.down_proj.weight").label == "L18 · down"
    assert parse("model.layers.1.block_sparse_moe.experts.7.w2.weight").row == "down e7"
    assert parse("lm_head.weight").label == "head"


def test_natural_order_is_total() -> None:
    names = ["l.10", "l.9", "l.09", "l.9a", "l", "l.x", "", "7", f"l.{'1' * 5000}", "l.٣"]
    ordered = sorted(names, key=natural_key)
    names.reverse()
    assert ordered == sorted(names, key=natural_key)
    assert ordered.index("l.9") < ordered.index("l.10") < ordered.index(f"l.{'1' * 5000}")
    assert len({repr(natural_key(name)) for name in names}) == len(names)


def test_rows_are_in_reading_order() -> None:
    rows = ["zebra", "down e10", "down e9", "norm", "q", "o", "alpha"]
    assert sorted(rows, key=module_key) == [
        "q", "o", "down e9", "down e10", "norm", "alpha", "zebra",
    ]  # fmt: skip
