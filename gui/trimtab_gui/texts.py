"""Numbers, sizes and times as the window writes them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from trimtab.formatting import count, significant, size

__all__ = [
    "ago",
    "count",
    "day",
    "duration",
    "home_path",
    "percent",
    "shape",
    "signed_percent",
    "signed_points",
    "significant",
    "size",
]


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as a percentage with a real minus sign; – for nan."""
    if math.isnan(share):
        return "–"
    return f"{share * 100:.{decimals}f} %".replace("-", "−")


def signed_points(points: float) -> str:
    """Return a difference with its sign, such as "+41.3" or "−1.2"."""
    text = f"{abs(points):.1f}"
    if text == "0.0":
        return "±0.0"
    return f"{'+' if points > 0 else '−'}{text}"


def signed_percent(share: float) -> str:
    """Return a share as a percentage with its sign, such as "−0.4 %"."""
    return f"{signed_points(share * 100)} %"


def shape(dims: Sequence[int]) -> str:
    """Return a shape, such as "4096 × 12288"."""
    return " × ".join(str(d) for d in dims) if dims else "scalar"


def duration(seconds: float) -> str:
    """Return a duration in one or two units, such as "40 ms", "1.2 s" or "3 min 20 s"."""
    if seconds < 0.95:
        return f"{max(seconds * 1000, 1):.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(seconds: float) -> str:
    """Return how long ago something was, such as "12 s ago"."""
    if seconds < 1.5:
        return "just now"
    if seconds < 90:
        return f"{round(seconds)} s ago"
    if seconds < 5400:
        return f"{round(seconds / 60)} min ago"
    return f"{round(seconds / 3600)} h ago"


def day(then: float, now: float) -> str:
    """Return a day as people say it: today, yesterday, Thursday, 12 Nov."""
    moment = time.localtime(then)
    midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
    if then >= midnight:
        return "today"
    days = math.ceil((midnight - then) / 86400)
    if days <= 1:
        return "yesterday"
    if days < 7:
        return time.strftime("%A", moment)
    text = f"{moment.tm_mday} {time.strftime('%b', moment)}"
    same_year = moment.tm_year == time.localtime(now).tm_year
    return text if same_year else f"{text} {moment.tm_year}"


def home_path(path: Path) -> str:
    """Return a path with ~ for the user's home."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)
