"""How long after a slider moved a gauge is painted that shows it: the real window and worker.

    python benchmarks/live_preview.py [--moves 150]
    python benchmarks/live_preview.py --size 7.5B [--device cuda:0] [--probes 64] [--moves 30]

The first way drags a slider of the window on the demo lineup. With `--size` a lineup of two random
bf16 Llamas is made on the spot, and the worker alone is asked, as the window asks it: from the
request to the answer, for moves of the ratio of all layers and of one layer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import checkpoints

#: ms at p95: on the demo lineup on a CPU, and of random models of 7-8 B parameters on a GPU
LIMIT_MS, LARGE_LIMIT_MS = 150.0, 200.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--moves", type=int, default=150, help="slider events of each kind")
    parser.add_argument("--size", choices=checkpoints.SIZES, help="of random models, made here")
    parser.add_argument("--device", default="auto", help="for random models")
    parser.add_argument("--probes", type=int, default=64, help="of each kind, for random models")
    parser.add_argument("--folder", type=Path, help="keep the random models here, or find them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-live-") as scratch:
        if asked.size:
            # without Qt, which a machine with a large GPU need not have
            import live_preview_random

            folder = asked.folder or Path(scratch) / "models"
            report = live_preview_random.measure(
                folder, asked.size, asked.device, asked.probes, asked.moves
            )
        else:
            import live_preview_window

            report = live_preview_window.measure(asked.moves, Path(scratch))
    limit = LARGE_LIMIT_MS if asked.size else LIMIT_MS
    kept = all(kind["ms"]["p95"] <= limit for kind in report["kinds"].values())
    if asked.json:
        print(json.dumps({**report, "limit_ms": limit, "kept": kept}))
    else:
        tell(report)
        print(f"limit for p95: {limit:g} ms, {'kept' if kept else 'missed'}")
    return 0 if kept else 1


def tell(report: dict[str, Any]) -> None:
    harmful, task = report["probes"]
    print(
        f"{report['lineup']}, {harmful} + {task} probes, {report['device']}, {os.cpu_count()} "
        f"cores; {report['first']} {report['first_s']} s"
    )
    for kind, found in report["kinds"].items():
        ms, parts = found["ms"], found["worker_ms"]
        print(f"{kind:18} p50 {ms['p50']:7.1f} ms  p95 {ms['p95']:7.1f} ms  ({ms['n']} moves)")
        spent = "  ".join(f"{part} {value['p50']:.1f}" for part, value in parts.items())
        print(f"{'':18} in the worker, median ms: {spent}")


if __name__ == "__main__":
    sys.exit(main())
