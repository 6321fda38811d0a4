"""How near merge and inspection come to plain reading and writing, and what memory they take.

Makes three bf16 Llama-shaped checkpoints on the spot and measures, each in a process of its own: a
plain read of the inputs, a plain write of the output flushed to the disk, an inspection, and a
task-arithmetic merge with its verification. Prints ratios to the plain read and write of the same
run, and peak memory for the size asked for and for half of it: the two should be alike. An
inspection's first seconds in a process go into loading its compiled loops; "again" is a second one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, INNER, VOCABULARY = 2048, 5632, 32000
BLOCK = 8 << 20
MODELS = ("base", "aligned", "tuned")
STEPS = ("read", "write", "inspect", "merge")


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama with `layers` blocks."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        found |= {
            f"{stem}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}.self_attn.k_proj.weight": (256, HIDDEN),
            f"{stem}.self_attn.v_proj.weight": (256, HIDDEN),
            f"{stem}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{stem}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{stem}.mlp.down_proj.weight": (HIDDEN, INNER),
            f"{stem}.input_layernorm.weight": (HIDDEN,),
            f"{stem}.post_attention_layernorm.weight": (HIDDEN,),
        }
    return found | {"model.norm.weight": (HIDDEN,)}


def make(root: Path, layers: int) -> int:
    """Write the three checkpoints; returns the bytes of one."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal(1 << 22, dtype=np.float32) * 0.02
    header: dict[str, Any] = {}
    position = 0
    for name, shape in shapes(layers).items():
        size = 2 * int(np.prod(shape))
        header[name] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    for step, model in enumerate(MODELS):
        moved = start + generator.standard_normal(1 << 22, dtype=np.float32) * 0.001 * step
        pattern = ((moved.view(np.uint32) + 0x8000) >> 16).astype(np.uint16).tobytes()
        (root / model).mkdir(parents=True)
        (root / model / "config.json").write_text('{"model_type": "llama"}')
        with open(root / model / "model.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for low in range(0, position, len(pattern)):
                file.write(pattern[: min(len(pattern), position - low)])
    return position


def read(root: Path) -> None:
    buffer = bytearray(BLOCK)
    for model in MODELS:
        with open(root / model / "model.safetensors", "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write(root: Path) -> None:
    left = (root / "aligned" / "model.safetensors").stat().st_size
    block = os.urandom(BLOCK)
    with open(root / "plain", "wb", buffering=0) as file:
        while left > 0:
            left -= file.write(block[: min(left, BLOCK)])
        os.fsync(file.fileno())
    (root / "plain").unlink()


def lineup_of(root: Path, models: tuple[str, ...]) -> tuple[Any, Any]:
    from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

    recipe = Recipe(
        base=ModelRef(path=str(root / "base")) if "base" in models else None,
        aligned=ModelRef(path=str(root / "aligned")),
        finetuned=(FineTuned(path=str(root / "tuned"), ratio=0.6),),
    )
    return recipe, open_lineup(recipe)


def measure(what: str, root: Path) -> dict[str, float]:
    """Do one thing and return its seconds and this process's peak memory in bytes."""
    from trimtab.control import Unattended

    if what in ("inspect", "merge"):
        from trimtab.inspection.scan import inspect
        from trimtab.merging.engine import run_merge
        from trimtab.merging.planner import plan_merge
    begun = time.perf_counter()
    if what == "read":
        read(root)
    elif what == "write":
        write(root)
    elif what == "inspect":
        inspect(lineup_of(root, MODELS)[1], Unattended())
    else:
        plan = plan_merge(*lineup_of(root, ("aligned", "tuned")))
        run_merge(plan, root / "merged", Unattended(), overwrite=True)
    seconds = time.perf_counter() - begun
    again = {}
    if what == "inspect":
        begun = time.perf_counter()
        inspect(lineup_of(root, MODELS)[1], Unattended())
        again["again"] = time.perf_counter() - begun
    return {
        "seconds": seconds,
        **again,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def measured(what: str, root: Path, times: int) -> dict[str, float]:
    """Return the median run of `times` fresh processes."""
    command = [sys.executable, __file__, "--measure", what, "--root", str(root)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(times)
    ]
    found: dict[str, float] = sorted(runs, key=lambda run: run["seconds"])[times // 2]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12, help="blocks of 88 MB (default: 12)")
    parser.add_argument("--times", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=None, help="folder for the checkpoints")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.root)))
        return 0
    work = Path(tempfile.mkdtemp(prefix="trimtab-stream-", dir=arguments.root))
    try:
        result: dict[str, Any] = {}
        for layers in (arguments.layers // 2, arguments.layers):
            root = work / str(layers)
            n_bytes = make(root, layers)
            measured("read", root, 1)  # what is measured is the code, not a cold disk
            measured("inspect", root, 1)  # nor its compilation
            runs = {
                w: measured(w, root, arguments.times) for w in ("read", "write", "inspect", "merge")
            }
            plain_read, plain_write = runs["read"]["seconds"], runs["write"]["seconds"]
            result[f"{n_bytes / 1e9:.2f} GB"] = {
                **runs,
                "inspect / read": runs["inspect"]["seconds"] / plain_read,
                "inspect again / read": runs["inspect"]["again"] / plain_read,
                "merge / (read + write)": runs["merge"]["seconds"]
                / (plain_read * 2 / 3 + plain_write),
            }
            shutil.rmtree(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return 0
    print("three models of each size, inputs in the page cache; median, whole seconds of the work")
    for size, runs in result.items():
        print(size)
        for what in STEPS:
            run = runs[what]
            print(f"  {what:<8} {run['seconds']:7.2f} s   peak {run['peak'] / 1e6:5.0f} MB")
        for ratio in ("inspect / read", "inspect again / read", "merge / (read + write)"):
            print(f"  {ratio:<24} {runs[ratio]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
