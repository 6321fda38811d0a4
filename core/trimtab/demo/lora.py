"""Low-rank adapters for the demo: training factors, and PEFT's file format read and written.

An adapted weight is W + (alpha / rank) * B @ A with A (rank, in) and B (out, rank), as in
Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

TARGET_MODULES: tuple[str, ...] = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
_PREFIX = "base_model.model."


class _LowRank(nn.Module):
    """A parametrization that adds scale * B @ A to a frozen weight."""

    def __init__(self, weight: torch.Tensor, rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        out_features, in_features = weight.shape
        start = torch.rand(rank, in_features, generator=generator) * 2 - 1
        self.a = nn.Parameter(start / math.sqrt(in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.scale * (self.b @ self.a)


def attach(model: nn.Module, *, rank: int, alpha: float, seed: int) -> list[nn.Parameter]:
    """Freeze `model`, put low-rank factors on its target modules and return those factors."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    factors: list[nn.Parameter] = []
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in TARGET_MODULES and isinstance(module, nn.Linear):
            update = _LowRank(module.weight, rank, alpha / rank, generator)
            parametrize.register_parametrization(module, "weight", update)
            factors += [update.a, update.b]
    return factors


def save(model: nn.Module, folder: Path, *, rank: int, alpha: float, base_name: str) -> None:
    """Write the factors of a model from `attach` as a PEFT adapter in bfloat16."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, _LowRank):
            target = name.removesuffix(".parametrizations.weight.0")
            for side, factor in (("A", module.a), ("B", module.b)):
                key = f"{_PREFIX}{target}.lora_{side}.weight"
                tensors[key] = factor.detach().to(torch.bfloat16).contiguous()
    config = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(TARGET_MODULES),
        "task_type": "CAUSAL_LM",
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def merge(model: nn.Module, folder: Path) -> None:
    """Add the update of a PEFT LoRA adapter to the weights of `model`, in the dtype they have."""
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(folder / "adapter_model.safetensors")
    ending = ".lora_A.weight"
    with torch.no_grad():
        for key, a in tensors.items():
            if key.endswith(ending):
                b = tensors[key.removesuffix(ending) + ".lora_B.weight"]
                weight = model.get_parameter(
                    key.removeprefix(_PREFIX).removesuffix(ending) + ".weight"
                )
                weight.add_((scale * (b.float() @ a.float())).to(weight.dtype))
