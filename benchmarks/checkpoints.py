"""Makes the checkpoints that the merge benchmarks work on: a base and models fine-tuned from it.

    python benchmarks/checkpoints.py FOLDER [--size 1.2B] [--models base,left,right] [--shards N]

Weights are bfloat16. A fine-tuned model is the base plus small noise, rounded: as with real ones, a
good part of the entries comes out exactly as they were.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20  # entries made at a time
POOL = 5 << 20  # normal numbers that are drawn from again and again, from ever other places
SPREAD, MOVE = 0.02, 5e-5  # of a weight, and of what fine-tuning adds to it
MODELS = ("base", "left", "right")


@dataclass(frozen=True)
class Llama:
    """The shape of a Llama with a head tied to its embeddings."""

    layers: int
    hidden: int = 2048
    inner: int = 8192
    keys: int = 512
    heads: int = 32
    vocabulary: int = 128256

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by its name, in the order in which they are stored."""
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden)
        }
        for layer in range(self.layers):
            stem = f"model.layers.{layer}"
            found |= {
                f"{stem}.input_layernorm.weight": (self.hidden,),
                f"{stem}.mlp.down_proj.weight": (self.hidden, self.inner),
                f"{stem}.mlp.gate_proj.weight": (self.inner, self.hidden),
                f"{stem}.mlp.up_proj.weight": (self.inner, self.hidden),
                f"{stem}.post_attention_layernorm.weight": (self.hidden,),
                f"{stem}.self_attn.k_proj.weight": (self.keys, self.hidden),
                f"{stem}.self_attn.o_proj.weight": (self.hidden, self.hidden),
                f"{stem}.self_attn.q_proj.weight": (self.hidden, self.hidden),
                f"{stem}.self_attn.v_proj.weight": (self.keys, self.hidden),
            }
        return found | {"model.norm.weight": (self.hidden,)}

    @property
    def parameters(self) -> int:
        """How many entries it has."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def n_bytes(self) -> int:
        """The bytes of its weights."""
        return 2 * self.parameters

    def doubled(self) -> Llama:
        """One with about twice as many entries, in tensors of the same shapes."""
        outside = self.vocabulary * self.hidden
        layer = (self.parameters - outside) // self.layers
        return replace(self, layers=round((2 * self.parameters - outside) / layer))

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "head_dim": self.hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": SPREAD,
            "intermediate_size": self.inner,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.keys * self.heads // self.hidden,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }


SIZES = {
    "0.02B": Llama(4, hidden=512, inner=2048, keys=128, heads=8, vocabulary=8192),
    "0.1B": Llama(4, hidden=1024, inner=4096, keys=256, heads=16, vocabulary=32000),
    "0.4B": Llama(5, vocabulary=32000),
    "1.2B": Llama(16),
    "7.5B": Llama(32, hidden=4096, inner=14336, keys=1024),
}


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, to nearest even, as bits; for finite values."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write(
    folder: Path,
    llama: Llama,
    models: Sequence[str] = MODELS,
    shards: int = 1,
    processes: int = 1,
) -> None:
    """Write the models, the first of them as the base, each into a folder of its own."""
    files: list[tuple[Path, dict[str, tuple[int, ...]], int]] = []
    for number, model in enumerate(models):
        place = folder / model
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(llama.config(), indent=2))
        weight_map: dict[str, str] = {}
        parts = list(_parts(llama, shards))
        for shard, part in enumerate(parts):
            name = "model.safetensors"
            if len(parts) > 1:
                name = f"model-{shard + 1:05d}-of-{len(parts):05d}.safetensors"
            weight_map |= dict.fromkeys(part, name)
            files.append((place / name, part, number))
        if len(parts) > 1:
            index = {"metadata": {"total_size": llama.n_bytes}, "weight_map": weight_map}
            (place / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    if processes == 1:
        for file in files:
            _write_shard(*file)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as executor:
        for done in [executor.submit(_write_shard, *file) for file in files]:
            done.result()


def _parts(llama: Llama, shards: int) -> Iterator[dict[str, tuple[int, ...]]]:
    part: dict[str, tuple[int, ...]] = {}
    limit = llama.parameters / shards
    filled = 0
    for name, shape in llama.shapes().items():
        if part and filled >= limit:
            yield part
            part, filled = {}, 0
        part[name] = shape
        filled += math.prod(shape)
    yield part


@cache
def _pool() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], model: int) -> None:
    pool = _pool()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            # the base's numbers depend on the tensor alone, what is added to them on the model too
            seed = list(name.encode())
            start, own = np.random.default_rng(seed), np.random.default_rng([model, *seed])
            offset = 1.0 if len(shape) == 1 else 0.0
            left = math.prod(shape)
            while left > 0:
                count = min(left, BLOCK)
                bits = to_bf16(_drawn(pool, start, count) * np.float32(SPREAD) + np.float32(offset))
                if model:
                    moved = from_bf16(bits) + _drawn(pool, own, count) * np.float32(MOVE)
                    bits = to_bf16(moved)
                file.write(bits.tobytes())
                left -= count


def _drawn(
    pool: npt.NDArray[np.float32], generator: np.random.Generator, count: int
) -> npt.NDArray[np.float32]:
    low = int(generator.integers(POOL - count))
    return pool[low : low + count]


def made(folder: Path, size: str, doubled: bool = False, shards: int = 1) -> Llama:
    """Have a process of its own write the models: a process's peak memory counts as its child's."""
    command = [sys.executable, __file__, str(folder), "--size", size, "--shards", str(shards)]
    subprocess.run([*command, *(["--doubled"] if doubled else [])], check=True)
    return SIZES[size].doubled() if doubled else SIZES[size]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1.2B")
    parser.add_argument("--doubled", action="store_true", help="twice as many layers, about")
    parser.add_argument("--models", default=",".join(MODELS), help="the first is the base")
    parser.add_argument("--shards", type=int, default=1, help="files per model, about")
    options = parser.parse_args()
    llama = SIZES[options.size].doubled() if options.doubled else SIZES[options.size]
    write(options.folder, llama, options.models.split(","), options.shards)
    return 0


if __name__ == "__main__":
    sys.exit(main())
