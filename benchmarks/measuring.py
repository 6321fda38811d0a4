"""Runs whole processes, says how long they took and what memory they held, and sums up times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STRIDE = 8 << 20


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds, peak resident bytes, exit status and what it said."""

    seconds: float
    peak: int
    status: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The line that says most about why it failed."""
        lines = (self.errors + self.output).strip().splitlines()
        return lines[-1].strip() if lines else f"exit status {self.status}"


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    The peak is the largest resident set among the process and the children it waited for. The
    system counts the memory of whoever starts a process towards the process's peak, so callers
    keep themselves small.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)  # or it waits for it once more
        return Run(
            seconds,
            usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            process.returncode,
            _text(output),
            _text(errors),
        )


def _text(file: Any) -> str:
    file.seek(0)
    return bytes(file.read()).decode(errors="replace")


def trimtab(recipe: Path, output: Path, *options: str) -> list[str | Path]:
    """Return the command that merges on the CPU by this Python's Trimtab and reports as JSON."""
    command: list[str | Path] = [sys.executable, "-m", "trimtab", "merge", recipe, "-o", output]
    return [*command, "--device", "cpu", "--json", *options]


def report(text: str) -> dict[str, Any]:
    """Return what a command has printed as JSON, empty where it printed something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def error_code(result: Run) -> str:
    """Return the code of the error that a Trimtab command has reported, "" without one."""
    error = report(result.output).get("error")
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def read_all(folder: Path) -> int:
    """Read every weight below a folder, so that it is in the page cache; returns the bytes."""
    buffer = bytearray(_STRIDE)
    total = 0
    for path in sorted(folder.rglob("*.safetensors")):
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def plain_write(path: Path, n_bytes: int) -> None:
    """Write as many bytes as asked for and flush them to the disk."""
    block = os.urandom(_STRIDE)
    with open(path, "wb", buffering=0) as file:
        while n_bytes > 0:
            n_bytes -= file.write(block[: min(n_bytes, _STRIDE)])
        os.fsync(file.fileno())


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile, both to a tenth, and how many values there are."""
    # without numpy: its memory would count as that of the processes that are run
    return {"p50": _at(values, 0.5), "p95": _at(values, 0.95), "n": len(values)}


def _at(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    low, rest = divmod(share * (len(ordered) - 1), 1)
    below, above = ordered[int(low)], ordered[min(int(low) + 1, len(ordered) - 1)]
    return round(below + rest * (above - below), 1)
