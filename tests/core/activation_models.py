"""Tiny random models of many families, written and run by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from trimtab.activations.tokens import Tokens
from trimtab.control import JobCancelled, Unattended

_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
#: what a family's config needs besides, so that its peculiarities are at work
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "gemma": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 8, "sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "phi": {},
    "phi3": {},
    "gpt2": _GPT,
    "gpt_neox": {},
    "gptj": {**_GPT, "rotary_dim": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8,
    },
}  # fmt: skip


def make_model(family: str, folder: Path, seed: int = 0) -> Any:
    """Write a random model of a family into a folder and return it, ready to run."""
    disable_progress_bar()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **{**_COMMON, **FAMILIES[family]})
        model = cast(Any, AutoModelForCausalLM.from_config(config, dtype=torch.float32)).eval()
        for parameter in model.parameters():
            # biases and norms are not to be the same for all
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def random_tokens(seed: int = 0) -> list[Tokens]:
    """Return examples of a few lengths, two of them of one length, with answers."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Tokens(tuple(torch.randint(3, 50, (length,), generator=generator).tolist()), answer)
        for length, answer in ((9, 4), (12, 6), (9, 5), (7, 3))
    ]


class Stopping(Unattended):
    """Stops a job when it has asked so many times whether to go on."""

    def __init__(self, checks: int):
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled
