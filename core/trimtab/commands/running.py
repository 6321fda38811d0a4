"""Runs jobs from the command, and says what the commands have in common."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from trimtab.checkpoints import Lineup
from trimtab.console import ProgressLine
from trimtab.formatting import count, size
from trimtab.jobs.control import JobControl
from trimtab.jobs.protocol import Progress


def print_json(data: object) -> None:
    """Print data as JSON on the standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def run_job(
    name: str, params: dict[str, Any], show: Callable[[Progress], None] | None = None
) -> dict[str, Any]:
    """Run a job in this process; Ctrl+C stops it cleanly.

    Its reports go to `show`, or to a progress line where nobody else takes them.
    """
    from trimtab.jobs.tasks import run_job

    line = ProgressLine()
    control = JobControl(show or line.show)
    previous = signal.signal(signal.SIGINT, lambda *_: control.cancel())
    try:
        return run_job(name, params, control)
    finally:
        signal.signal(signal.SIGINT, previous)
        line.clear()


def lineup_text(lineup: Lineup) -> str:
    """Return the lineup's models, its verdict and its findings, a line each."""
    lines = []
    for member in lineup.members:
        c = member.checkpoint
        facts = f"{count(c.n_parameters)} parameters · {c.dtype_label} · {size(c.n_bytes)}"
        lines.append(f"{member.role:<10} {member.name}  ({facts})")
    lines.append(lineup.verdict)
    lines += [f"  {f.level}: {f.model}: {f.what} {f.effect}" for f in lineup.findings]
    return "\n".join(lines)
