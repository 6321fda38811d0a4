"""LoRA adapters: what we read is what PEFT's own merge gives; what we cannot apply is refused."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from builders import LLAMA_CONFIG, lineup, llama_tensors, write_model
from trimtab.checkpoints import Lineup
from trimtab.checkpoints.reader import TensorReader

transformers.logging.set_verbosity_error()

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
        "vocab_size": 40}  # fmt: skip

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
        merged = adapted.float().merge_and_unload().state_dict()
        return tmp_path / "aligned", tmp_path / "adapter", merged

    return build


def effective(opened: Lineup) -> dict[str, torch.Tensor]:
    """Every tensor of the only fine-tuned model, as float32."""
    index = opened.reference.checkpoint.index
    out = {}
    with TensorReader() as reader:
        for row, name in enumerate(index.names):
            source = opened.source(name, opened.finetuned[0])
            assert source is not None, name
            values = reader.read(source, 0, int(index.numel[row]))
            assert values.dtype == torch.float32
            # any slice of it is the same
            half = int(index.numel[row]) // 2 + 1
            parts = [reader.read(source, 0, half), reader.read(source, half, len(values))]
            torch.testing.assert_close(torch.cat(parts), values, rtol=1e-6, atol=1e-7)
            out[name] = values.view(index.shapes[row])
    return out


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_effective_weights_are_those_of_peft(case: str, dtype: torch.dtype, make: Any) -> None:
    config, settings = CASES[case]
    aligned, adapter, wanted = make(config, dtype, **settings)
    opened = lineup(aligned, adapter)
    assert not opened.errors, opened.findings
    found = effective(opened)
    original = load_file(aligned / "model.safetensors")
    changed = 0
    for name, values in found.items():
        scale = float(wanted[name].abs().max())
        torch.testing.assert_close(values, wanted[name], rtol=1e-6, atol=1e-6 * scale, msg=name)
        changed += not torch.equal(values, original[name].float())
    assert changed >= 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "bias"),
        ({"bias": "all"}, "bias"),
        ({"trainable_token_indices": [1, 2]}, "token"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "parameters"),
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


def test_real_dora_is_refused(make: Any) -> None:
    aligned, adapter, _ = make(LLAMA_CONFIG, target_modules=["q_proj"], use_dora=True)
    assert [f.code for f in lineup(aligned, adapter).errors] == ["adapter_unsupported"]


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
