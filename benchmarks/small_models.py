"""Makes small random float32 models of four architectures, and ones tuned from them.

    python benchmarks/small_models.py FOLDER

Every model is built by transformers from a config and stored by its `save_pretrained`; then each
entry is replaced by a random one on a grid of 2^-23, on which differences are exact in float32. The
changes of one tensor are zero or of magnitudes that differ from each other: no method has to
break a tie, so two programs that follow one formula must agree.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ARCHITECTURES = ("llama", "qwen2", "gpt2", "mixtral")
HEADS = ("tied", "untied")
LINEUPS = tuple(f"{name}-{head}" for name in ARCHITECTURES for head in HEADS)
#: lineups for single points: small changes, and vocabularies that differ
FAINT, TOKENS = "llama-faint", ("llama-tokens", "gpt2-tokens")
MODELS = ("base", "left", "right", "third")
LAYERS, EXPERTS = 4, 3
GRID = 2.0**-23
MOVE, FAINT_MOVE, UNTOUCHED = 0.01, 1e-4, 0.3
VOCABULARY = 320


def config(name: str, tied: bool) -> Any:
    """Return transformers' config of a small model."""
    import transformers

    if name == "gpt2":
        return transformers.GPT2Config(
            n_embd=64, n_layer=LAYERS, n_head=4, n_positions=96, vocab_size=VOCABULARY,
            tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
    kind = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "mixtral": "MixtralConfig"}[name]
    more = {"num_local_experts": EXPERTS, "num_experts_per_tok": 2} if name == "mixtral" else {}
    return getattr(transformers, kind)(
        hidden_size=64, intermediate_size=112, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=128,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1, pad_token_id=None, **more,
    )  # fmt: skip


def save(name: str, tied: bool, folder: Path) -> None:
    """Let transformers build a model and store it."""
    import torch
    import transformers

    torch.manual_seed(0)
    chosen = config(name, tied)
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(chosen, dtype=torch.float32)
        model.save_pretrained(folder)


def on_grid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.round(values / GRID) * GRID)


def start(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the base's entries: around one for the weights of norms, else around zero."""
    norm = len(shape) == 1 and name.endswith("weight")
    values = np.clip(rng.standard_normal(shape), -5, 5)
    return on_grid(1 + 0.03 * values if norm else 0.03 * values)


def change(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return what fine-tuning adds: part of it nothing, the rest of distinct magnitudes."""
    count = int(np.prod(shape))
    sizes = np.abs(np.clip(rng.standard_normal(count), -5, 5))
    steps = np.asarray(np.sort(sizes * MOVE / GRID).round(), dtype=np.float64)
    places = np.arange(count, dtype=np.float64)
    steps = np.maximum.accumulate(steps - places) + places + 1
    rng.shuffle(steps)
    steps *= rng.choice([-1.0, 1.0], count) * (rng.random(count) >= UNTOUCHED)
    return (steps * GRID).reshape(shape)


def fill(folder: Path, faint: bool = False) -> None:
    """Give the base its entries and put the tuned models beside it."""
    from safetensors.numpy import load_file, save_file

    file = folder / "base" / "model.safetensors"
    first = {
        name: start(name, tensor.shape, np.random.default_rng([7, *name.encode()]))
        for name, tensor in sorted(load_file(file).items())
    }
    for number, model in enumerate(MODELS):
        place = folder / model
        if number:
            shutil.copytree(folder / "base", place)
        entries = {}
        for name, values in first.items():
            rng = np.random.default_rng([8, number, *name.encode()])
            if faint:
                moved = values + on_grid(rng.standard_normal(values.shape) * FAINT_MOVE) * bool(
                    number
                )
            else:
                moved = values + change(values.shape, rng) * bool(number)
            entries[name] = moved.astype(np.float32)
        save_file(entries, place / "model.safetensors", metadata={"format": "pt"})


def vocabularies() -> dict[str, list[str]]:
    """Return each model's tokens in the order of their ids; they share most of them."""
    base = ["<s>", "</s>", *(f"t{i}" for i in range(2, VOCABULARY))]
    left = [*base, *(f"left{i}" for i in range(6))]
    moved = [*base[:2], *reversed(base[2:-4])]
    right = [*moved, "both0", "right0", "right1"]
    third = [*base, "both0"]
    return dict(zip(MODELS, (base, left, right, third), strict=True))


def give_tokens(folder: Path) -> None:
    """Change the vocabularies of a lineup: rows, config and a tokenizer of its own for each."""
    from safetensors.numpy import load_file, save_file

    for number, (model, tokens) in enumerate(vocabularies().items()):
        place = folder / model
        entries = load_file(place / "model.safetensors")
        for name, tensor in entries.items():
            if tensor.shape[0] == VOCABULARY and len(tensor.shape) == 2:
                rng = np.random.default_rng([9, number, *name.encode()])
                rows = start(name, (len(tokens), tensor.shape[1]), rng)
                entries[name] = rows.astype(np.float32)
        save_file(entries, place / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((place / "config.json").read_text())
        settings["vocab_size"] = len(tokens)
        (place / "config.json").write_text(json.dumps(settings, indent=2))
        special = [
            {
                "id": i, "content": tokens[i], "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for i in range(2)
        ]  # fmt: skip
        tokenizer: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None, "decoder": None,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "merges": [],
                "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                "byte_fallback": False, "vocab": {token: i for i, token in enumerate(tokens)},
            },
        }  # fmt: skip
        (place / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
        about = {
            "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 96,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }  # fmt: skip
        (place / "tokenizer_config.json").write_text(json.dumps(about, indent=1))


def make(root: Path) -> None:
    """Make every lineup below a folder."""
    for name in ARCHITECTURES:
        for head in HEADS:
            folder = root / f"{name}-{head}"
            save(name, head == "tied", folder / "base")
            fill(folder)
    save("llama", True, root / FAINT / "base")
    fill(root / FAINT, faint=True)
    for lineup in TOKENS:
        shutil.copytree(root / f"{lineup.split('-')[0]}-tied", root / lineup)
        give_tokens(root / lineup)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
