"""LoRA adapters: what we read is what PEFT's own merge gives; what we cannot apply is refused."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from builders import LLAMA_CONFIG, lineup, llama_tensors, write_model
from trimtab.checkpoints import Lineup, Member, build_lineup, open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

transformers.logging.set_verbosity_error()

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")  # on its own defaults

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
        "vocab_size": 40}  # fmt: skip
QWEN2 = LLAMA_CONFIG | {"model_type": "qwen2"}  # with biases in q, k and v
MIXTRAL = LLAMA_CONFIG | {"model_type": "mixtral", "num_local_experts": 4}
QWEN2_MOE = LLAMA_CONFIG | {"model_type": "qwen2_moe", "num_experts": 3,
                            "moe_intermediate_size": 12,
                            "shared_expert_intermediate_size": 8}  # fmt: skip
# experts [expert, in, out], of which down_proj is square
GPT_OSS = LLAMA_CONFIG | {"model_type": "gpt_oss", "num_local_experts": 4,
                          "intermediate_size": 16}  # fmt: skip
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (LLAMA_CONFIG, {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "rank-stabilised": (LLAMA_CONFIG, {"target_modules": ["q_proj"], "use_rslora": True}),
    "rank and alpha patterns": (
        LLAMA_CONFIG,
        {
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "rank_pattern": {"q_proj": 2, r"model\.layers\.1\.mlp\.up_proj": 6},
            "alpha_pattern": {"layers.0.self_attn.k_proj": 3, r".*\.1\..*k_proj": 20},
        },
    ),
    "everything linear": (LLAMA_CONFIG, {"target_modules": "all-linear"}),
    "modules to save": (
        LLAMA_CONFIG,
        {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "input_layernorm"]},
    ),
    "embedding": (LLAMA_CONFIG, {"target_modules": ["embed_tokens", "q_proj"]}),
    "output head": (LLAMA_CONFIG, {"target_modules": ["lm_head", "q_proj"]}),
    "layers stored [in, out]": (
        GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "both kinds of layers": (
        GPT2 | {"tie_word_embeddings": False},
        {"target_modules": ["c_fc", "lm_head", "wte"], "fan_in_fan_out": True},
    ),
    # PEFT writes fan_in_fan_out as the last layer wanted it, which is a straight one
    "a square layer stored [in, out] beside a straight one": (
        GPT2 | {"tie_word_embeddings": False}, {"target_modules": ["attn.c_proj", "lm_head"]},
    ),
    "DoRA": (LLAMA_CONFIG, {"target_modules": ["q_proj", "v_proj"], "use_dora": True}),
    "DoRA on layers stored [in, out]": (
        GPT2, {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True},
    ),
    "DoRA on an embedding": (
        LLAMA_CONFIG, {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    ),
    "DoRA, rank-stabilised, with patterns": (
        LLAMA_CONFIG,
        {"target_modules": ["q_proj", "up_proj"], "use_dora": True, "use_rslora": True,
         "rank_pattern": {"up_proj": 7}},
    ),
    "LoRA biases": (QWEN2, {"target_modules": ["q_proj", "k_proj"], "lora_bias": True}),
    "trained biases of all layers": (QWEN2, {"target_modules": ["q_proj"], "bias": "all"}),
    "trained biases of LoRA layers": (
        QWEN2, {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
    ),
    "both kinds of biases on layers stored [in, out]": (
        GPT2, {"target_modules": ["c_attn"], "bias": "lora_only", "lora_bias": True,
               "fan_in_fan_out": True},
    ),
    "token rows": (
        LLAMA_CONFIG, {"target_modules": ["q_proj"], "trainable_token_indices": [39, 3, 0]},
    ),
    "token rows of embedding and head": (
        LLAMA_CONFIG,
        {"target_modules": ["q_proj"],
         "trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [5]}},
    ),
    "token rows of a tied embedding": (
        LLAMA_CONFIG | {"tie_word_embeddings": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": [7]},
    ),
    "minor components": (LLAMA_CONFIG, {"target_modules": ["q_proj"], "init_lora_weights": "mica"}),
    "stacked experts stored one by one": (
        MIXTRAL, {"target_modules": ["q_proj"], "target_parameters": EXPERTS},
    ),
    "one of two stacked parameters": (
        MIXTRAL, {"target_modules": ["q_proj"], "target_parameters": EXPERTS[1:],
                  "rank_pattern": {"experts.down_proj": 2}, "use_rslora": True},
    ),
    "router": (
        MIXTRAL, {"target_modules": ["v_proj"], "target_parameters": ["mlp.gate.weight"]},
    ),
    "stacked experts of another family": (
        QWEN2_MOE, {"target_modules": ["q_proj"], "target_parameters": EXPERTS},
    ),
    "stacked experts stored [expert, in, out]": (
        GPT_OSS, {"target_modules": ["q_proj"], "target_parameters": EXPERTS,
                  "alpha_pattern": {"experts.gate_up_proj": 3}},
    ),
}  # fmt: skip


def train(model: Any, **settings: Any) -> Any:
    """A PEFT model whose factors and saved modules are random instead of at their start."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT comments on its own defaults
        adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 10} | settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return adapted


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Path, Path, dict[str, torch.Tensor]]]:
    def build(
        config: dict[str, Any], dtype: torch.dtype = torch.float32, **settings: Any
    ) -> tuple[Path, Path, dict[str, torch.Tensor]]:
        torch.manual_seed(1)
        rest = {k: v for k, v in config.items() if k != "model_type"}
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **rest)
        ).to(dtype)
        model.save_pretrained(tmp_path / "aligned")
        adapted = train(model, **settings)
        adapted.save_pretrained(tmp_path / "adapter")
        path = tmp_path / "adapter" / "adapter_config.json"
        saved = json.loads(path.read_text())
        path.write_text(json.dumps(saved | {"base_model_name_or_path": "somebody/aligned"}))
        adapted.float().merge_and_unload().save_pretrained(tmp_path / "merged")
        merged = load_file(tmp_path / "merged" / "model.safetensors")
        return tmp_path / "aligned", tmp_path / "adapter", merged

    return build


def effective(opened: Lineup, member: Member | None = None) -> dict[str, torch.Tensor]:
    """Every tensor of a model of the lineup in float32, of the only fine-tuned one if not told."""
    index = opened.reference.checkpoint.index
    out = {}
    with TensorReader() as reader:
        for row, name in enumerate(index.names):
            source = opened.source(name, member or opened.finetuned[0])
            assert source is not None, name
            values = reader.read(source, 0, int(index.numel[row]))
            # any slice of it is the same
            half = int(index.numel[row]) // 2 + 1
            parts = [reader.read(source, 0, half), reader.read(source, half, len(values))]
            assert np.concatenate(parts).tobytes() == values.tobytes()
            out[name] = torch.from_numpy(values).view(index.shapes[row])
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_effective_weights_are_those_of_peft(case: str, dtype: torch.dtype, make: Any) -> None:
    config, settings = CASES[case]
    aligned, adapter, wanted = make(config, dtype, **settings)
    opened = lineup(aligned, adapter)
    assert not opened.errors, opened.findings
    found = effective(opened)
    original = load_file(aligned / "model.safetensors")
    assert found.keys() == wanted.keys() == original.keys()
    changed = 0
    for name, values in found.items():
        reached = not torch.equal(wanted[name], original[name].float())
        scale = float(wanted[name].abs().max()) if reached else 0.0
        assert float((values - wanted[name]).abs().max()) <= 1e-6 * scale, name
        changed += reached
    assert changed >= 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layer_replication": [[0, 2]]}, "replication"),
        ({"alora_invocation_tokens": [1]}, "activated"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "loftq"}, "loftq"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(
    change: dict[str, Any], word: str, make: Any
) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (finding,) = lineup(aligned, adapter).errors
    assert finding.code == "adapter_unsupported"
    assert word in finding.what
    assert finding.model == "adapter"


@pytest.mark.parametrize(
    "change",
    [
        {"r": 5},
        {"r": "many"},
        {"lora_alpha": "x"},
        {"lora_alpha": None},
        {"lora_alpha": math.inf},
        {"rank_pattern": {"q_proj": 3}},
        {"rank_pattern": {"(": 3}},
        {"rank_pattern": [1]},
        {"alpha_pattern": {"q_proj": [1]}},
        {"use_dora": True},
        {"target_parameters": "q_proj.weight"},
    ],
)
def test_config_that_contradicts_the_factors_is_refused(change: dict[str, Any], make: Any) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert [f.code for f in lineup(aligned, adapter).errors] == ["adapter_malformed"]


def damaged(adapter: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t.pop(FIRST + "A.weight"), "adapter_malformed"),
        (lambda t: t.update({FIRST + "A.weight": torch.zeros(0, 16)}), "adapter_malformed"),
        (lambda t: t.update({FIRST + "B.weight": torch.zeros(16, 3)}), "adapter_malformed"),
        (lambda t: t.update({FIRST + "A.weight": torch.zeros(4, 16, 1, 1)}), "adapter_unsupported"),
        (lambda t: t.update({FIRST + "A.weight": torch.tensor(1.0)}), "adapter_unsupported"),
        (lambda t: t.update({FIRST + "A.weight": torch.zeros(4, 15)}), "adapter_other_base"),
        (lambda t: t.update({FIRST + "A.weight": torch.zeros(4, 16, dtype=torch.int8)}),
         "quantised"),
        (lambda t: t.update({"base_model.model.some.other.weight": torch.zeros(2)}),
         "adapter_other_base"),
    ],
)  # fmt: skip
def test_damaged_factors_are_refused(change: Any, code: str, make: Any) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    damaged(adapter, change)
    assert [f.code for f in lineup(aligned, adapter).errors] == [code]


def test_adapter_for_a_model_that_is_not_there_is_refused(make: Any, tmp_path: Path) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "somebody/else"}))
    (finding,) = lineup(aligned, adapter).errors
    assert finding.code == "adapter_other_base"
    assert "somebody/else" in finding.what
    # said by the user, it is taken as told
    assert not lineup(aligned, adapter, adapter_base="aligned").errors
    # but not where it does not fit
    wide = LLAMA_CONFIG | {"hidden_size": 32}
    other = write_model(tmp_path / "wide", {"model.norm.weight": torch.ones(32)}, wide)
    (finding,) = lineup(other, adapter, adapter_base="aligned").errors
    assert finding.code == "adapter_other_base"
    (finding,) = lineup(aligned, adapter, adapter_base="base").errors
    assert finding.code == "adapter_other_base"


def test_adapter_on_the_base_is_measured_from_the_aligned_model(make: Any, tmp_path: Path) -> None:
    base, adapter, wanted = make(LLAMA_CONFIG, target_modules=["q_proj"])
    aligned = write_model(tmp_path / "other", llama_tensors(5, torch.float32))
    opened = lineup(aligned, adapter, base=base, adapter_base="base")
    assert not opened.errors
    for name, values in effective(opened).items():
        torch.testing.assert_close(values, wanted[name], rtol=1e-6, atol=1e-6)


def test_adapter_on_a_base_of_other_shapes_is_refused(make: Any, tmp_path: Path) -> None:
    base, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    tensors = llama_tensors(5, torch.float32)
    tensors["lm_head.weight"] = torch.zeros(44, 16)
    tensors["model.extra.weight"] = torch.zeros(4)
    aligned = write_model(tmp_path / "other", tensors)
    opened = lineup(aligned, adapter, base=base, adapter_base="base")
    assert [f.code for f in opened.errors] == ["shapes_differ"]
    assert opened.errors[0].tensors == ("lm_head.weight",)
    assert opened.source("lm_head.weight", opened.finetuned[0]) is None
    assert opened.source("model.extra.weight", opened.finetuned[0]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"trainable_token_indices": [1]},
        {"trainable_token_indices": [1, 40]},
        {"trainable_token_indices": [1, -1]},
        {"trainable_token_indices": [1, 1]},
        {"trainable_token_indices": [1, "2"]},
        {"trainable_token_indices": {"lm_head": [1, 2]}},
        {"trainable_token_indices": None},
    ],
)
def test_token_rows_without_their_places_are_refused(change: dict[str, Any], make: Any) -> None:
    aligned, adapter, _ = make(
        LLAMA_CONFIG, target_modules=["q_proj"], trainable_token_indices=[1, 2]
    )
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert [f.code for f in lineup(aligned, adapter).errors] == ["adapter_malformed"]


def test_bias_for_a_layer_without_one_is_refused(make: Any) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    damaged(adapter, lambda t: t.update({FIRST + "B.bias": torch.ones(16)}))
    (finding,) = lineup(aligned, adapter).errors
    assert finding.code == "adapter_unsupported"
    assert "bias" in finding.what


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"target_parameters": EXPERTS[:1]}, "adapter_malformed"),
        ({"target_parameters": []}, "adapter_malformed"),
        ({"r": 3}, "adapter_malformed"),
    ],
)
def test_experts_that_contradict_the_config_are_refused(
    change: dict[str, Any], code: str, make: Any
) -> None:
    aligned, adapter, _ = make(MIXTRAL, target_modules=["q_proj"], target_parameters=EXPERTS)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert [f.code for f in lineup(aligned, adapter).errors] == [code]


def test_experts_of_another_model_are_refused(make: Any, tmp_path: Path) -> None:
    _, adapter, _ = make(MIXTRAL, target_modules=[], target_parameters=EXPERTS)
    tensors = {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}.weight": torch.zeros(shape)
        for layer in range(2)
        for expert in range(4)
        for name, shape in {"w1": (23, 16), "w2": (16, 24), "w3": (24, 16)}.items()
    }
    other = write_model(tmp_path / "other", tensors, MIXTRAL)
    (finding,) = lineup(other, adapter, adapter_base="aligned").errors
    assert finding.code == "adapter_other_base"


def test_checkpoint_without_the_head_takes_an_adapter_of_the_model_with_it(
    make: Any, tmp_path: Path
) -> None:
    aligned, adapter, wanted = make(GPT2, target_modules=["c_attn"], fan_in_fan_out=True)
    bare = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(aligned / "model.safetensors").items()
    }
    opened = lineup(write_model(tmp_path / "bare", bare, GPT2), adapter, adapter_base="aligned")
    assert not opened.errors
    for name, values in effective(opened).items():
        torch.testing.assert_close(values, wanted[f"transformer.{name}"], rtol=1e-6, atol=1e-6)


def on_top(role: Any, path: Path, adapter: Path | None, name: str) -> Member:
    lora = None if adapter is None else open_checkpoint(adapter)
    return Member(role, open_checkpoint(path), name, adapter=lora)


def test_adapter_on_top_of_any_member_is_applied_to_that_member(make: Any, tmp_path: Path) -> None:
    base, adapter, wanted = make(LLAMA_CONFIG, target_modules=["q_proj", "lm_head"])
    other = write_model(tmp_path / "other", llama_tensors(5, torch.float32))
    members = {
        "plain": on_top("finetuned", other, None, "plain"),
        "adapted": on_top("finetuned", base, adapter, "adapted"),
    }
    reference = on_top("aligned", base, adapter, "reference")
    opened = build_lineup(None, reference, list(members.values()))
    assert not opened.errors
    for member in (reference, members["adapted"]):
        for name, values in effective(opened, member).items():
            torch.testing.assert_close(values, wanted[name], rtol=1e-6, atol=1e-6)
    own = load_file(other / "model.safetensors")
    for name, values in effective(opened, members["plain"]).items():
        assert torch.equal(values, own[name])
    applied = [f.model for f in opened.findings if f.code == "adapter_applied"]
    assert applied == ["reference", "adapted"]
    without = build_lineup(None, on_top("aligned", base, None, "reference"), [])
    assert without.fingerprint != build_lineup(None, reference, []).fingerprint


def test_head_tied_to_an_adapted_embedding_is_adapted_with_it(make: Any, tmp_path: Path) -> None:
    tied = LLAMA_CONFIG | {"tie_word_embeddings": True}
    base, adapter, wanted = make(tied, target_modules=["embed_tokens"])
    untied = write_model(tmp_path / "untied", llama_tensors(5, torch.float32))
    member = on_top("finetuned", base, adapter, "adapted")
    opened = build_lineup(None, on_top("aligned", untied, None, "reference"), [member])
    assert not opened.errors
    found = effective(opened, member)
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    torch.testing.assert_close(found["lm_head.weight"], wanted["model.embed_tokens.weight"])


def test_only_an_adapter_goes_on_top_and_only_of_a_model(make: Any) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    reference = on_top("aligned", aligned, None, "reference")
    for path, lora, code in (
        (aligned, aligned, "not_an_adapter"),
        (adapter, adapter, "adapter_on_adapter"),
    ):
        with pytest.raises(UserError) as caught:
            build_lineup(None, reference, [on_top("finetuned", path, lora, "x")])
        assert caught.value.code == code


def test_adapter_that_does_not_fit_its_member_is_an_error(make: Any, tmp_path: Path) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"])
    other = write_model(tmp_path / "other", {"model.norm.weight": torch.ones(16)})
    reference = on_top("aligned", aligned, None, "reference")
    opened = build_lineup(None, reference, [on_top("finetuned", other, adapter, "x")])
    assert [f.code for f in opened.errors] == ["adapter_other_base"]
