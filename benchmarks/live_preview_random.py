"""Asks a worker what moves of a random lineup come to, and says how long its answers take."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
from measuring import percentiles

ROLES = ("aligned", "tuned")
#: what a machine's memory bears being written at the same time
PROCESSES = min(16, os.cpu_count() or 1)
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make(folder: Path, size: str, probes: int) -> None:
    """Write a lineup of two models with a tokenizer, and a suite that is measured on."""
    llama = checkpoints.SIZES[size]
    shards = max(1, round(llama.n_bytes / 1e9))
    checkpoints.write(folder, llama, ROLES, shards, min(PROCESSES, 2 * shards))
    texts = write_suite(folder / "probes.jsonl", probes)
    for role in ROLES:
        write_tokenizer(folder / role, texts)


def write_suite(path: Path, probes: int) -> list[str]:
    """Write as many harmful prompts and sums as are asked; returns all that is said in them."""
    from trimtab.evaluation.suite import Prompt, Suite, core_suite

    asked = itertools.cycle(core_suite().by_kind("harmful"))
    draw = np.random.default_rng(0)
    prompts = []
    for number, prompt in zip(range(probes), asked, strict=False):
        prompts.append(Prompt(f"h{number}", "harmful", f"{prompt.text} ({number})"))
        left, right = (int(n) for n in draw.integers(100, 1000, 2))
        text = f"There are {left} apples in one crate and {right} in another. How many are there?"
        prompts.append(Prompt(f"t{number}", "utility", text, reference=str(left + right)))
    Suite("random", "1", "", "", tuple(prompts)).save(path)
    return [prompt.text for prompt in prompts]


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """Write a byte-level tokenizer that knows pieces of the texts' words."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.train_from_iterator(
        texts, vocab_size=1024, special_tokens=special, show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


class Worker:
    """A worker process that is spoken to in JSON lines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trimtab.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)

    def ask(self, job: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return a job's result."""
        from trimtab.jobs.protocol import Failed, Result, Run, decode_event, encode

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        number = next(self._numbers)
        self._process.stdin.write(encode(Run(number, job, params)).encode() + b"\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            event = decode_event(line)
            if isinstance(event, Result) and event.id == number:
                return event.result
            if isinstance(event, Failed) and event.id == number:
                raise SystemExit(" ".join(event.error[part] for part in ("what", "why", "fix")))
        raise SystemExit("the worker has gone")

    def close(self) -> None:
        """Let the worker leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(folder: Path, size: str, device: str, probes: int, moves: int) -> dict[str, Any]:
    if not (folder / "probes.jsonl").exists():
        make(folder, size, probes)
    llama = checkpoints.SIZES[size]

    def params(ratio: float, layers: dict[int, float] | None = None) -> dict[str, Any]:
        tuned = {"path": str(folder / "tuned"), "ratio": ratio, "layers": layers or {}}
        recipe = {"aligned": {"path": str(folder / "aligned")}, "finetuned": [tuned]}
        suite = str(folder / "probes.jsonl")
        return {
            "recipe": recipe, "suite": suite, "count": probes, "device": device, "against": 0,
        }  # fmt: skip

    worker = Worker()
    begun = time.perf_counter()
    answer = worker.ask("preview", params(0.5))
    first = time.perf_counter() - begun
    middle = llama.layers // 2
    ratios = 0.5 + 0.4 * np.sin(np.linspace(0, 6 * np.pi, moves + 1))[1:]
    kinds: dict[str, Any] = {}
    for name in ("all layers", "one layer"):
        latencies, answers = [], []
        for ratio in ratios:
            layers = {middle: float(ratio)} if name == "one layer" else None
            begun = time.perf_counter()
            answers.append(worker.ask("preview", params(0.5 if layers else float(ratio), layers)))
            latencies.append(1000 * (time.perf_counter() - begun))
        parts = {
            part: percentiles([each["milliseconds"][part] for each in answers])
            for part in ("plan", "merge", "measure", "all")
        }
        kinds[name] = {"ms": percentiles(latencies), "worker_ms": parts}
    worker.close()
    held = "streamed" if answer["streamed"] else "in memory"
    return {
        "lineup": f"two random Llamas of {llama.parameters / 1e9:.2f} B parameters, {held}",
        "first": "from the first request to its answer",
        "first_s": round(first, 2),
        "kinds": kinds,
        "probes": [answer["probes"]["harmful"], answer["probes"]["task"]],
        "device": f"{answer['device']} in {answer['dtype']}",
        "streamed": answer["streamed"],
    }
