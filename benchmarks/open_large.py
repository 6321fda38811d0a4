"""Measures how long a checkpoint of 50,000 tensors and 100 GB takes to open, by its headers alone.

    python benchmarks/open_large.py [--runs N] [--folder DIR] [--json]

Writes the checkpoint sparse (headers and holes, a few MB on disk), opens it in fresh processes, and
builds a lineup of it as aligned and fine-tuned model at once. Exit status 1: the median of opening
is over the limit, or more was read than headers and small json files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_S = 2.0
TENSORS = 50_000
SHARDS = 20
SIDE = 1024  # bf16 [1024, 1024] is 2 MiB: 50,000 of them are 105 GB
EXPERTS = 40
TIMEOUT_S = 120


def tensor_names(count: int) -> list[str]:
    """Names of a mixture of experts: the models that have that many tensors."""
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    layer = 0
    while len(names) < count:
        stem = f"model.layers.{layer}"
        names += [f"{stem}.self_attn.{part}_proj.weight" for part in "qkvo"]
        names += [f"{stem}.input_layernorm.weight", f"{stem}.mlp.gate.weight"]
        names += [
            f"{stem}.mlp.experts.{expert}.{part}_proj.weight"
            for expert in range(EXPERTS)
            for part in ("gate", "up", "down")
        ]
        layer += 1
    return names[:count]


def write_sparse(folder: Path, tensors: int = TENSORS, shards: int = SHARDS) -> int:
    """Write the checkpoint without its data; return the bytes it claims to have."""
    names = tensor_names(tensors)
    size = 2 * SIDE * SIDE
    weight_map: dict[str, str] = {}
    total = 0
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for i, name in enumerate(part):
            header[name] = {
                "dtype": "BF16",
                "shape": [SIDE, SIDE],
                "data_offsets": [i * size, (i + 1) * size],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + len(part) * size)
            total += out.seek(0, os.SEEK_END)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    return total


def bytes_read() -> int:
    """Bytes that this process has read so far, -1 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return -1
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def measure(folder: Path) -> dict[str, Any]:
    """Open the checkpoint in this process and say how long each step took."""
    from trimtab.checkpoints import Member, build_lineup, open_checkpoint

    before, begun = bytes_read(), time.perf_counter()
    aligned = open_checkpoint(folder)
    opened, after = time.perf_counter(), bytes_read()
    task = open_checkpoint(folder)
    second = time.perf_counter()
    lineup = build_lineup(
        None, Member("aligned", aligned, "aligned"), [Member("finetuned", task, "task")]
    )
    built = time.perf_counter()
    groups = lineup.grid.n_groups
    drawn = time.perf_counter()
    fingerprint = lineup.fingerprint
    return {
        "open_s": opened - begun,
        "open_again_s": second - opened,
        "lineup_s": built - second,
        "grid_s": drawn - built,
        "fingerprint_s": time.perf_counter() - drawn,
        "bytes_read": after - before,
        "bytes": aligned.n_bytes,
        "tensors": len(aligned.index),
        "groups": groups,
        "fingerprint": fingerprint,
        "torch": "torch" in sys.modules,
    }


def in_fresh_process(folder: Path) -> dict[str, Any]:
    """Run `measure` in a process that has opened nothing before."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(folder)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def small_files(folder: Path) -> int:
    """Bytes of all headers and json files: what opening has to read."""
    total = 0
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            with open(path, "rb") as file:
                total += 8 + int.from_bytes(file.read(8), "little")
        else:
            total += path.stat().st_size
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write it; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_sparse(Path(folder))
        allowed = small_files(Path(folder)) + 200_000  # and a little for files read in blocks
        runs = [in_fresh_process(Path(folder)) for _ in range(options.runs)]
    medians = {
        key: statistics.median(run[key] for run in runs) for key in runs[0] if key.endswith("_s")
    }
    read = max(run["bytes_read"] for run in runs)
    passed = medians["open_s"] < LIMIT_S and read <= allowed and not runs[0]["torch"]
    report = {
        **medians,
        "open_max_s": max(run["open_s"] for run in runs),
        "bytes_read": read,
        "bytes_read_allowed": allowed,
        "bytes": runs[0]["bytes"],
        "tensors": runs[0]["tensors"],
        "runs": len(runs),
        "limit_s": LIMIT_S,
        "passed": passed,
    }
    if options.json:
        print(json.dumps(report))
    else:
        print(
            f"{report['tensors']:,} tensors, {report['bytes'] / 1e9:.1f} GB, {len(runs)} runs\n"
            f"open         {medians['open_s']:.2f} s median, {report['open_max_s']:.2f} s worst "
            f"(limit {LIMIT_S:g} s)\n"
            f"lineup       {medians['lineup_s']:.2f} s\n"
            f"grid         {medians['grid_s']:.2f} s\n"
            f"fingerprint  {medians['fingerprint_s']:.2f} s\n"
            f"read         {read / 1e6:.1f} MB of {allowed / 1e6:.1f} MB allowed\n"
            f"{'passed' if passed else 'MISSED'}"
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
