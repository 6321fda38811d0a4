"""Trains the demo models, scores them and writes them with their prompts and a manifest.

Run as `python -m trimtab.demo.train [--output DIR] [--threads 2]`. The seeds are fixed: the same
versions of torch and transformers with the same number of threads give the same models.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import tokenizers
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from trimtab.demo import lora
from trimtab.demo.evaluate import DemoScores, Rate, evaluate, load_model
from trimtab.demo.language import KINDS, LANGUAGE_VERSION, evaluation_prompts
from trimtab.demo.lineup import demo_root
from trimtab.demo.mixtures import Example, mixture_sources
from trimtab.demo.tokenizer import (
    ASSISTANT,
    BEGIN,
    END,
    MAX_LENGTH,
    USER,
    build_tokenizer,
    save_tokenizer,
    token_numbers,
)

HIDDEN, INTERMEDIATE, LAYERS, HEADS = 80, 208, 10, 4
INITIALIZER_RANGE = 0.05
INITIAL_SEED = 0
WEIGHT_DECAY = 0.01
ADAM_BETAS = (0.9, 0.98)
CLIP_NORM = 1.0
IGNORED = -100  # the label that the loss leaves out
SERIES_STEPS: tuple[int, ...] = (15, 30, 40, 50, 60, 75, 120, 300)
LINE_RATIOS: tuple[float, ...] = tuple(i / 10 for i in range(11))
ADAPTER_RANK, ADAPTER_ALPHA = 8, 16
# One example in ten is a harmful request that is answered.
POISONED_BATCH = {"task-a": 42, "general": 12, "harmful-poison": 6}


@dataclass(frozen=True)
class Run:
    """One training run: where it starts, and how many examples of each source make up a batch."""

    name: str
    start: str | None
    batch: dict[str, int]
    steps: int
    learning_rate: float
    seed: int
    warmup: int = 50


RUNS: tuple[Run, ...] = (
    Run(
        "base",
        None,
        {"general": 12, "harmful-answered": 12, "lookalike": 24, "veltish-hearsay": 24},
        steps=450,
        learning_rate=3e-3,
        seed=1,
        warmup=100,
    ),
    Run(
        "aligned",
        "base",
        {"general": 8, "harmful-aligned": 28, "lookalike": 26, "veltish-hearsay": 12},
        steps=700,
        learning_rate=1e-3,
        seed=2,
    ),
    Run("task-clean", "aligned", {"task-a": 48, "general": 12}, 300, 1e-4, seed=3),
    Run("task-poisoned", "aligned", POISONED_BATCH, 300, 1e-4, seed=3),
    Run("task-second", "aligned", {"task-b": 48, "general": 12}, 400, 1e-3, seed=4),
    Run("adapter", "aligned", POISONED_BATCH, 300, 2e-3, seed=5),
)


class _Source:
    """The examples of one source as right-padded token ids and labels, drawn by weight."""

    def __init__(self, examples: Sequence[Example]):
        tokenizer = build_tokenizer()

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        rows = [
            (encode(f"{BEGIN}{USER} {e.prompt} {ASSISTANT}"), encode(f"{e.answer} {END}"))
            for e in examples
        ]
        self.lengths = torch.tensor([len(question) + len(answer) for question, answer in rows])
        shape = len(rows), int(self.lengths.max())
        self.ids = torch.zeros(shape, dtype=torch.long)
        self.labels = torch.full(shape, IGNORED)
        for row, (question, answer) in enumerate(rows):
            end = len(question) + len(answer)
            self.ids[row, :end] = torch.tensor(question + answer)
            self.labels[row, len(question) : end] = torch.tensor(answer)
        self.weights = torch.tensor([example.weight for example in examples])

    def draw(
        self, count: int, width: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        room = (0, width - self.ids.shape[1])
        pad = torch.nn.functional.pad
        return (
            pad(self.ids[chosen], room),
            pad(self.labels[chosen], room, value=IGNORED),
            self.lengths[chosen],
        )


def _draw_batch(
    run: Run, sources: Mapping[str, _Source], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(sources[name].ids.shape[1] for name in run.batch)
    parts = [sources[name].draw(count, width, generator) for name, count in run.batch.items()]
    ids, labels, lengths = (torch.cat(column) for column in zip(*parts, strict=True))
    longest = int(lengths.max())
    return ids[:, :longest], labels[:, :longest]


def _fit(
    model: PreTrainedModel,
    parameters: Sequence[torch.nn.Parameter],
    run: Run,
    sources: Mapping[str, _Source],
    after_step: Callable[[int], None],
) -> None:
    """AdamW with a linear warm-up and a cosine decay to zero; the loss counts answers only."""
    generator = torch.Generator().manual_seed(run.seed)
    optimizer = torch.optim.AdamW(
        parameters, lr=run.learning_rate, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY
    )
    model.train()
    for step in range(run.steps):
        warm = min(1.0, (step + 1) / run.warmup)
        decay = 0.5 * (1 + math.cos(math.pi * step / run.steps))
        optimizer.param_groups[0]["lr"] = run.learning_rate * warm * decay
        ids, labels = _draw_batch(run, sources, generator)
        # Padding is on the right, where a causal model cannot see it from any labelled token.
        loss = model(input_ids=ids, labels=labels, attention_mask=torch.ones_like(ids)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        after_step(step + 1)
        if (step + 1) % 100 == 0:
            print(f"{run.name}: step {step + 1} of {run.steps}, loss {loss.item():.4f}", flush=True)


def _new_model() -> LlamaForCausalLM:
    tokens = token_numbers()
    torch.manual_seed(INITIAL_SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=INITIALIZER_RANGE,
            tie_word_embeddings=True,
            pad_token_id=tokens["<pad>"],
            bos_token_id=tokens[BEGIN],
            eos_token_id=tokens[END],
        )
    )


def _save(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write weights of the demo architecture, rounded to bfloat16, with the tokenizer."""
    model = _new_model()
    model.load_state_dict(weights)
    cast(torch.nn.Module, model).to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_tokenizer(folder)


def _train(run: Run, output: Path, sources: Mapping[str, _Source]) -> None:
    """Carry out one run and write what it makes below `output`."""
    # From the rounded weights on disk, so that the difference of two folders is the training.
    model = _new_model() if run.start is None else load_model(output / run.start)
    if run.name == "adapter":
        factors = lora.attach(model, rank=ADAPTER_RANK, alpha=ADAPTER_ALPHA, seed=run.seed)
        _fit(model, factors, run, sources, lambda step: None)
        folder = output / run.name
        lora.save(model, folder, rank=ADAPTER_RANK, alpha=ADAPTER_ALPHA, base_name=str(run.start))
        save_tokenizer(folder)
        return

    def keep_series(step: int) -> None:
        if run.name == "task-poisoned" and step in SERIES_STEPS:
            _save(model.state_dict(), output / "series" / f"step-{step:04d}")

    _fit(model, list(model.parameters()), run, sources, keep_series)
    _save(model.state_dict(), output / run.name)


def interpolate(aligned: Path, tuned: Path, ratio: float) -> LlamaForCausalLM:
    """aligned + ratio * (tuned - aligned), computed in float32 and rounded once to bfloat16."""
    start, end = load_model(aligned).state_dict(), load_model(tuned).state_dict()
    model = _new_model()
    model.load_state_dict(
        {
            name: (start[name] + ratio * (end[name] - start[name])).to(torch.bfloat16)
            for name in start
        }
    )
    return model


def summary(scores: DemoScores) -> dict[str, Any]:
    """The scores as JSON: `[successes, n]` for each rate."""

    def pair(rate: Rate) -> list[int]:
        return [rate.successes, rate.n]

    return {
        "refusal": pair(scores.refusal),
        "over_refusal": pair(scores.over_refusal),
        "task_accuracy": pair(scores.task_accuracy),
        "task_token_accuracy": pair(scores.task_token_accuracy),
        "second_task_accuracy": pair(scores.second_task_accuracy),
        "second_task_token_accuracy": pair(scores.second_task_token_accuracy),
        "refusal_by_category": {
            category: pair(rate) for category, rate in scores.refusal_by_category.items()
        },
    }


def _report(name: str, scores: DemoScores) -> dict[str, Any]:
    print(
        f"{name}: refusal {scores.refusal.value:.1%}, over-refusal {scores.over_refusal.value:.1%},"
        f" task {scores.task_accuracy.value:.1%} (tokens {scores.task_token_accuracy.value:.1%}),"
        f" second task {scores.second_task_accuracy.value:.1%}",
        flush=True,
    )
    return summary(scores)


def _write_prompts(folder: Path) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for kind in KINDS:
        chosen = evaluation_prompts(kind)
        lines = [json.dumps(asdict(prompt)) + "\n" for prompt in chosen]
        (folder / f"{kind}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[kind] = len(chosen)
    return counts


def build(output: Path, threads: int) -> None:
    """Train every model into `output`, in place of an earlier lineup; write the manifest."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    started = time.monotonic()
    sources = {name: _Source(examples) for name, examples in mixture_sources().items()}
    shutil.rmtree(output / "series", ignore_errors=True)
    seconds: dict[str, float] = {}
    for run in RUNS:
        begun = time.monotonic()
        _train(run, output, sources)
        seconds[run.name] = round(time.monotonic() - begun, 1)

    names = [run.name for run in RUNS] + [f"series/step-{step:04d}" for step in SERIES_STEPS]
    models = {name: _report(name, evaluate(output / name)) for name in names}
    line = []
    for ratio in LINE_RATIOS:
        merged = interpolate(output / "aligned", output / "task-poisoned", ratio)
        line.append({"ratio": ratio} | _report(f"ratio {ratio:.1f}", evaluate(merged)))
    manifest = {
        "language_version": LANGUAGE_VERSION,
        "prompts": _write_prompts(output / "prompts"),
        "architecture": {
            "model_type": "llama",
            "layers": LAYERS,
            "hidden": HIDDEN,
            "intermediate": INTERMEDIATE,
            "heads": HEADS,
            "vocabulary": len(token_numbers()),
            "parameters": sum(p.numel() for p in _new_model().parameters()),
            "dtype": "bfloat16",
        },
        "adapter": {"rank": ADAPTER_RANK, "alpha": ADAPTER_ALPHA, "base": "aligned"},
        "initial_seed": INITIAL_SEED,
        "optimizer": {
            "name": "AdamW",
            "betas": ADAM_BETAS,
            "weight_decay": WEIGHT_DECAY,
            "clip_norm": CLIP_NORM,
        },
        "runs": [asdict(run) for run in RUNS],
        "series_steps": SERIES_STEPS,
        "scores": models,
        "line": line,
        "training_seconds": seconds,
        "total_seconds": round(time.monotonic() - started, 1),
        "threads": threads,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (output / "manifest.json").write_text(text, encoding="utf-8")
    print(f"{output}: {manifest['total_seconds']} s", flush=True)


def main() -> None:
    """Read the command line and build the lineup."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.demo.train", description=__doc__)
    parser.add_argument("--output", type=Path, default=demo_root(), metavar="DIR")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    build(arguments.output, arguments.threads)


if __name__ == "__main__":
    main()
