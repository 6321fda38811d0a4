"""Measures how long the window takes from the start of its process to its first event-loop tick.

    python benchmarks/startup.py [--runs N] [--json]

Starts the real window in fresh processes, offscreen, with a HOME of its own. The window, asked by
TRIMTAB_STARTUP_PROBE=1, prints a line at its first tick, which says whether torch was imported, and
quits. The clock runs here, from before the process is made until its line arrives: what a process
can learn of its own start is off by up to a second on Linux. Exit status 1: the median is over the
limit, or torch was there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIMIT_S = 1.5
TIMEOUT_S = 120


def start_once(home: Path) -> tuple[float, bool]:
    """Start the window once; return the seconds to its first tick and whether torch was there."""
    environment = {
        **os.environ,
        "TRIMTAB_STARTUP_PROBE": "1",
        "QT_QPA_PLATFORM": "offscreen",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TRIMTAB_CACHE_DIR": str(home / "cache" / "trimtab"),
        "TRIMTAB_CONFIG_DIR": str(home / "config" / "trimtab"),
    }
    command = [sys.executable, "-m", "trimtab_gui"]
    begun = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        giving_up = threading.Timer(TIMEOUT_S, process.kill)
        giving_up.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - begun
            status = process.wait()
        finally:
            giving_up.cancel()
    if status or not line:
        raise SystemExit(f"the window did not start (exit status {status})")
    return seconds, bool(json.loads(line)["torch"])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure the start-up of the window.")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes to start (default 5)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trimtab-startup-") as home:
        starts = [start_once(Path(home)) for _ in range(options.runs)]
    values = [seconds for seconds, _ in starts]
    median = statistics.median(values)
    torch_seen = any(torch for _, torch in starts)
    passed = median < LIMIT_S and not torch_seen
    if options.json:
        result = {
            "benchmark": "startup",
            "median_s": median,
            "values_s": values,
            "limit_s": LIMIT_S,
            "torch_imported": torch_seen,
            "passed": passed,
        }
        print(json.dumps(result))
    else:
        print(f"first event-loop tick, {len(values)} fresh processes, offscreen")
        print("  values  " + "  ".join(f"{value:.3f} s" for value in values))
        print(f"  median  {median:.3f} s (limit {LIMIT_S} s)")
        print(f"  torch   {'IMPORTED' if torch_seen else 'not imported'}")
        print("passed" if passed else "MISSED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
