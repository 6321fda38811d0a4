"""How the command talks: aligned tables, and one progress line on a terminal."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from trimtab.formatting import size
from trimtab.jobs.protocol import Progress


def number(value: float, decimals: int = 3) -> str:
    """Return `value` with fixed decimals and a real minus sign, "–" where it is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}".replace("-", "−")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a head, the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


class ProgressLine:
    """One line that is drawn over itself; silent where the stream is no terminal."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._active = self._stream.isatty()

    def show(self, progress: Progress) -> None:
        """Draw the line anew."""
        if not self._active:
            return
        share = progress.bytes_done / progress.bytes_total if progress.bytes_total else 0.0
        filled = round(20 * share)
        parts = [
            f"{progress.stage} {'━' * filled}{'╌' * (20 - filled)}",
            f"{progress.done:,} / {progress.total:,}",
            f"{size(progress.bytes_per_second)}/s",
        ]
        if progress.seconds_left is not None:
            parts.append(f"{progress.seconds_left:.0f} s left")
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + "  ".join(parts)[:width].ljust(width))
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._active:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._stream.flush()
