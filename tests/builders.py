"""Small checkpoints for tests, written by the format's own library, never by our code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.checkpoints import Lineup, Member, build_lineup, open_checkpoint
from trimtab.control import Control, Unattended
from trimtab.merging.engine import run_merge
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def raw_file(path: Path, header: bytes | Mapping[str, Any], data: bytes = b"") -> Path:
    """Write a safetensors file byte by byte: what the library would refuse to write as well."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: Sequence[int], start: int, stop: int) -> dict[str, Any]:
    """One tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def llama_tensors(
    seed: int, dtype: torch.dtype = torch.bfloat16, scale: float = 0.1, layers: int = 2
) -> dict[str, Tensor]:
    """The tensors of a tiny Llama as transformers names and shapes them (see LLAMA_CONFIG)."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (40, 16)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes |= {
            f"{stem}.self_attn.q_proj.weight": (16, 16),
            f"{stem}.self_attn.k_proj.weight": (8, 16),
            f"{stem}.self_attn.v_proj.weight": (8, 16),
            f"{stem}.self_attn.o_proj.weight": (16, 16),
            f"{stem}.mlp.gate_proj.weight": (24, 16),
            f"{stem}.mlp.up_proj.weight": (24, 16),
            f"{stem}.mlp.down_proj.weight": (16, 24),
            f"{stem}.input_layernorm.weight": (16,),
            f"{stem}.post_attention_layernorm.weight": (16,),
        }
    shapes |= {"model.norm.weight": (16,), "lm_head.weight": (40, 16)}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) * scale).to(dtype)
        for name, shape in shapes.items()
    }


def moved(
    tensors: Mapping[str, Tensor], seed: int, scale: float = 0.02, keep: Sequence[str] = ()
) -> dict[str, Tensor]:
    """A fine-tuned version: floats moved at random, but for what `keep` names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.clone()
        if name in keep or not value.is_floating_point()
        else (value.float() + torch.randn(value.shape, generator=generator) * scale).to(value.dtype)
        for name, value in tensors.items()
    }


def write_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = LLAMA_CONFIG,
    shards: int = 1,
) -> Path:
    """Write a model folder in the layout of `save_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(dict(config), indent=2))
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        )
    )
    return folder


def write_tokenizer(folder: Path, vocabulary: Mapping[str, int], added: Sequence[str] = ()) -> None:
    """Write a word-level tokenizer.json with this vocabulary."""
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(vocabulary) + i, "content": token, "special": True}
            for i, token in enumerate(added)
        ],
        "model": {"type": "WordLevel", "vocab": dict(vocabulary), "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def lineup(
    aligned: Path | None,
    *finetuned: Path,
    base: Path | None = None,
    adapter_base: Any = None,
) -> Lineup:
    """Open folders and put them in a lineup under their own names."""

    def member(role: Any, path: Path) -> Member:
        checkpoint = open_checkpoint(path)
        on = adapter_base if checkpoint.kind == "adapter" else None
        return Member(role, checkpoint, checkpoint.name, on)

    return build_lineup(
        None if base is None else member("base", base),
        None if aligned is None else member("aligned", aligned),
        [member("finetuned", path) for path in finetuned],
    )


def recipe(
    aligned: Path | None, *finetuned: Path | FineTuned, base: Path | None = None, **rest: Any
) -> Recipe:
    """A recipe over these folders; a bare path takes part with ratio 1."""
    return Recipe(
        base=None if base is None else ModelRef(path=str(base)),
        aligned=None if aligned is None else ModelRef(path=str(aligned)),
        finetuned=tuple(
            FineTuned(path=str(model)) if isinstance(model, Path) else model for model in finetuned
        ),
        **rest,
    )


def tuned(path: Path, ratio: float = 1.0, **rest: Any) -> FineTuned:
    """A fine-tuned model of a recipe."""
    return FineTuned(path=str(path), ratio=ratio, **rest)


def merge(
    made: Recipe, output: Path, control: Control | None = None, **options: Any
) -> dict[str, Any]:
    """Plan and run a merge, and return its report."""
    plan = plan_merge(made, open_lineup(made))
    return run_merge(plan, output, control or Unattended(), **options)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, read by the format's own library."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def bits(tensor: Tensor) -> bytes:
    """A tensor's bytes: what bitwise equality means, NaN and signed zeros included."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def make_models(root: Path, dtype: torch.dtype, shards: int = 1) -> Path:
    """Write an aligned model and two fine-tuned ones, the second in two shards."""
    aligned = llama_tensors(1, dtype)
    write_model(root / "aligned", aligned, shards=shards)
    write_model(root / "one", moved(aligned, 2, 0.05))
    write_model(root / "two", moved(aligned, 3, 0.03), shards=2)
    return root
