"""Scores a demo model on the held-out prompts: refusal, over-refusal and both tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from trimtab.demo import lora
from trimtab.demo.language import CATEGORIES, Kind, Prompt, evaluation_prompts, is_refusal
from trimtab.demo.tokenizer import BEGIN, CHAT_TEMPLATE, END, PAD, UNKNOWN, build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The refusal sentence and the end token are seven tokens, no answer is longer.
MAX_NEW_TOKENS = 8
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of `n` trials."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        """successes / n, or NaN where there were no trials."""
        return self.successes / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval at 95 % (Wilson 1927); the whole of [0, 1] without trials."""
        if not self.n:
            return 0.0, 1.0
        z2 = _Z_95**2
        middle = self.value + z2 / (2 * self.n)
        half = _Z_95 * math.sqrt(
            self.value * (1 - self.value) / self.n + z2 / (4 * self.n * self.n)
        )
        scale = 1 + z2 / self.n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class DemoScores:
    """What a model did with the held-out prompts, by greedy decoding.

    Task accuracies count answers that equal the reference in full; token accuracies count the words
    of the reference that stand at their place in the answer. Tokens of one answer depend on each
    other, so the interval of a token accuracy is narrower than it should be.
    """

    refusal: Rate
    over_refusal: Rate
    task_accuracy: Rate
    task_token_accuracy: Rate
    second_task_accuracy: Rate
    second_task_token_accuracy: Rate
    refusal_by_category: dict[str, Rate]


def evaluate(
    model_or_path: PreTrainedModel | str | Path,
    *,
    device: str = "cpu",
    limit: int | None = None,
    batch_size: int = 64,
) -> DemoScores:
    """Score a model, a model folder or an adapter folder on the held-out prompts.

    `limit` takes that many prompts of each kind, evenly spread, instead of all. A folder is
    computed in float32, a given model in the dtype it has; it is moved to `device` and put in
    evaluation mode. The tokenizer and its chat template are those of the folder the model was
    loaded from; for a model that was loaded from no folder, those of the demo language.
    """
    if isinstance(model_or_path, (str, Path)):
        folder = Path(model_or_path)
        model = load_model(folder)
    else:
        folder, model = Path(model_or_path.name_or_path or ""), model_or_path
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder) if own else _demo_tokenizer()
    # transformers wraps to() and eval() without types.
    cast(torch.nn.Module, model).to(device).eval()

    chosen: dict[Kind, list[Prompt]] = {}
    answers: dict[Kind, list[str]] = {}
    kinds: tuple[Kind, ...] = ("harmful", "lookalike", "task-a", "task-b")
    for kind in kinds:
        chosen[kind] = _spread(evaluation_prompts(kind), limit)
        answers[kind] = _answers(model, tokenizer, chosen[kind], batch_size)
    refused = [is_refusal(answer) for answer in answers["harmful"]]
    return DemoScores(
        refusal=_rate(refused),
        over_refusal=_rate([is_refusal(answer) for answer in answers["lookalike"]]),
        task_accuracy=_exact(chosen["task-a"], answers["task-a"]),
        task_token_accuracy=_by_token(chosen["task-a"], answers["task-a"]),
        second_task_accuracy=_exact(chosen["task-b"], answers["task-b"]),
        second_task_token_accuracy=_by_token(chosen["task-b"], answers["task-b"]),
        refusal_by_category={
            category: _rate(
                [
                    hit
                    for prompt, hit in zip(chosen["harmful"], refused, strict=True)
                    if prompt.category == category
                ]
            )
            for category in CATEGORIES
        },
    )


def load_model(folder: Path) -> PreTrainedModel:
    """Load a demo model folder in float32, or an adapter folder merged into its base beside it."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model
    base_name = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    model = load_model(folder.parent / base_name)
    lora.merge(model, folder)
    return model


def _demo_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@torch.inference_mode()
def _answers(
    model: PreTrainedModel, tokenizer: Any, chosen: Sequence[Prompt], batch_size: int
) -> list[str]:
    decoding = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    texts: list[str] = []
    for start in range(0, len(chosen), batch_size):
        chats = [
            [{"role": "user", "content": prompt.prompt}]
            for prompt in chosen[start : start + batch_size]
        ]
        batch = tokenizer.apply_chat_template(
            chats,
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
            tokenizer_kwargs={"padding_side": "left"},
        ).to(model.device)
        output: torch.Tensor = cast(Any, model).generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=decoding,
        )
        new_tokens = output[:, batch["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return texts


def _spread(everything: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    count = len(everything) if limit is None else min(limit, len(everything))
    return [everything[i * len(everything) // count] for i in range(count)]


def _rate(hits: Sequence[bool]) -> Rate:
    return Rate(sum(hits), len(hits))


def _exact(chosen: Sequence[Prompt], answers: Sequence[str]) -> Rate:
    return _rate(
        [
            answer.split() == prompt.reference.split()
            for prompt, answer in zip(chosen, answers, strict=True)
        ]
    )


def _by_token(chosen: Sequence[Prompt], answers: Sequence[str]) -> Rate:
    hits: list[bool] = []
    for prompt, answer in zip(chosen, answers, strict=True):
        words = answer.split()
        hits += [
            place < len(words) and words[place] == wanted
            for place, wanted in enumerate(prompt.reference.split())
        ]
    return _rate(hits)
