"""Colour maps as lookup tables, round ticks, and numbers as the window writes them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from cmap import Colormap

from trimtab.formatting import significant as number

__all__ = ["MAGNITUDE", "SIGNED", "lookup_table", "number", "tick_texts", "ticks"]

MAGNITUDE = "viridis"
SIGNED = "crameri:vik"


@lru_cache(maxsize=8)
def lookup_table(name: str) -> npt.NDArray[np.uint8]:
    """Return a colour map as uint8 [256, 4]; "#RRGGBB>#RRGGBB" goes from one to the other."""
    chosen = Colormap(name.split(">")) if ">" in name else Colormap(name)
    table = np.round(np.asarray(chosen.lut(256)) * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def ticks(low: float, high: float, at_most: int = 5) -> list[float]:
    """Return at most ``at_most`` + 1 round numbers (1, 2, 2.5 or 5 times a power of ten)."""
    span = high - low
    if not math.isfinite(span) or span <= 0 or at_most < 1:
        return []
    raw = span / at_most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def tick_texts(values: list[float]) -> list[str]:
    """Return the ticks as texts with the same number of decimals and a real minus sign."""
    if not values:
        return []
    largest = max(abs(v) for v in values)
    if largest and (largest >= 1e5 or largest < 1e-3):
        return [f"{v:.1e}".replace("-", "−") if v else "0" for v in values]
    decimals = 0
    while decimals < 6 and any(abs(round(v, decimals) - v) > 1e-9 * largest for v in values):
        decimals += 1
    return [f"{v:.{decimals}f}".replace("-", "−") for v in values]
