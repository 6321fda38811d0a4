"""Measures what share of the slower of disk and bus a merge on a CUDA device reaches.

    python benchmarks/gpu_merge.py [--size 1.2B] [--methods linear,ties] [--device cuda:0]

Makes three bf16 checkpoints on the spot. Reads them plainly from the page cache, writes as much as
the output plainly and flushed, and copies as many bytes to the device and back through pinned
memory; then merges. The share is the time of the slower of disk (read and write) and bus, divided
by the time of the engine. Exit status 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import checkpoints

PARAMETERS = {"ties": {"density": 0.3}, "dare_ties": {"density": 0.5}, "della": {"density": 0.5}}
BLOCK = 8 << 20


def plain_disk(models: list[Path], scratch: Path) -> float:
    buffer = bytearray(BLOCK)
    begun = time.perf_counter()
    for model in models:
        for file in sorted(model.glob("*.safetensors")):
            with open(file, "rb", buffering=0) as opened:
                while opened.readinto(buffer):
                    pass
    left = sum(file.stat().st_size for file in models[0].glob("*.safetensors"))
    with open(scratch, "wb", buffering=0) as opened:
        while left > 0:
            left -= opened.write(buffer[: min(left, BLOCK)])
        os.fsync(opened.fileno())
    took = time.perf_counter() - begun
    scratch.unlink()
    return took


def bus(n_in: int, n_out: int, device: str) -> float:
    import torch

    host = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    for _ in range(max(1, n_in // host.numel())):
        there.copy_(host, non_blocking=True)
    for _ in range(max(1, n_out // host.numel())):
        host.copy_(there, non_blocking=True)
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=checkpoints.SIZES, default="1.2B")
    parser.add_argument("--methods", default="linear,task_arithmetic,slerp,ties,dare_ties,della")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("there is no CUDA device")
        return 2
    from trimtab.control import Unattended
    from trimtab.merging.engine import run_merge
    from trimtab.merging.planner import plan_merge
    from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

    print(torch.cuda.get_device_name(arguments.device))
    with tempfile.TemporaryDirectory(prefix="trimtab-gpu-") as folder:
        root = Path(folder)
        checkpoints.make(root, arguments.size)
        models = [root / name for name in checkpoints.MODELS]
        disk = plain_disk(models, root / "plain")
        for method in arguments.methods.split(","):
            tuned = models[1:2] if method == "slerp" else models[1:]
            recipe = Recipe(
                method=method,
                parameters=PARAMETERS.get(method, {}),
                base=ModelRef(path=str(models[0])),
                finetuned=tuple(FineTuned(path=str(path), ratio=0.5) for path in tuned),
            )
            plan = plan_merge(recipe, open_lineup(recipe))
            moved = bus(plan.bytes_in, plan.bytes_out, arguments.device)
            report = run_merge(
                plan, root / "out", Unattended(), overwrite=True, device=arguments.device,
                threads=arguments.threads,
            )  # fmt: skip
            engine = sum(report["phases"].values())
            print(
                f"{method:16} engine {engine:6.2f} s   disk {disk:6.2f} s   bus {moved:6.2f} s   "
                f"share of the slower {max(disk, moved) / engine:5.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
