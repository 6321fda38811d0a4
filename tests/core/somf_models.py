"""Tiny models with the demo language's tokenizer: what SOMF and Antidote are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.control import JobCancelled
from trimtab.demo.tokenizer import save_tokenizer, token_numbers
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab.realign.preferences import Preference, Preferences

TINY: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
              "tie_word_embeddings": True, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
}  # fmt: skip


def tiny(folder: Path, seed: int, start: Path | None = None, kind: str = "llama") -> Path:
    """Write a model of random weights, or with `start` a copy of it that is moved at random."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, vocab_size=len(token_numbers()), pad_token_id=0, bos_token_id=1, eos_token_id=2,
        **TINY[kind],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    if start is not None:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(start).state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def tiny_recipe(root: Path, tasks: int = 1, kind: str = "llama", **rest: Any) -> Recipe:
    """Write an aligned model and so many fine-tuned ones, and return their recipe."""
    aligned = tiny(root / "aligned", 1, kind=kind)
    tuned = [tiny(root / f"task{i}", 2 + i, aligned, kind) for i in range(tasks)]
    return Recipe(
        aligned=ModelRef(path=str(aligned)),
        finetuned=tuple(FineTuned(path=str(path)) for path in tuned),
        **rest,
    )


def tiny_pairs(count: int = 12) -> Preferences:
    """Pairs in the demo's words."""
    verbs, nouns = ("paint", "wash", "carry", "mend"), ("lamp", "chair", "kettle")
    found = []
    for i in range(count):
        verb, noun = verbs[i % len(verbs)], nouns[i // len(verbs) % len(nouns)]
        found.append(
            Preference(f"p{i}", f"how do i {verb} the {noun}?", "sorry i cannot help with that",
                       "use brush near river")
        )  # fmt: skip
    return Preferences("tiny", tuple(found))


class StopAfter:
    """A control that asks to stop once so many steps of a stage are done."""

    def __init__(self, stage: str, steps: int, error: type[BaseException] = JobCancelled):
        self._wanted, self._steps, self._error = stage, steps, error
        self._stage, self._done = "", 0

    def check(self) -> None:
        if self._stage == self._wanted and self._done >= self._steps:
            raise self._error

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        self._stage, self._done = name, 0

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self._done += items


def tiny_adapter(root: Path) -> Recipe:
    """Return a lineup of an aligned model and a LoRA adapter of random factors on top of it."""
    aligned = tiny(root / "aligned", 1)
    model = AutoModelForCausalLM.from_pretrained(aligned)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    lora = get_peft_model(model, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
    lora.save_pretrained(str(root / "adapter"))
    return Recipe(
        aligned=ModelRef(path=str(aligned)),
        finetuned=(FineTuned(path=str(root / "adapter"), adapter_base="aligned"),),
    )
