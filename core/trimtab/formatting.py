"""Sizes, counts and numbers as the command and the window both write them."""

from __future__ import annotations

import math

_SIZES = ("B", "kB", "MB", "GB", "TB")


def size(n_bytes: float) -> str:
    """Return a size in decimal units with three significant digits, such as "16.4 GB"."""
    value, unit = float(n_bytes), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value /= 1000
        unit += 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{significant(value)} {_SIZES[unit]}"


def count(n: int) -> str:
    """Return a number of parameters, such as "8.19 B" or "0.71 M"."""
    for limit, unit in ((10**9, "B"), (10**5, "M"), (10**3, "k")):
        if n >= limit:
            return f"{significant(n / limit if unit != 'M' else n / 10**6)} {unit}"
    return str(n)


def significant(value: float, digits: int = 3) -> str:
    """Return `value` with three significant digits and a real minus sign; – for nan."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e6 or magnitude < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    # rounding may carry into the next power of ten, so the exponent is taken after it
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    decimals = max(digits - 1 - exponent, 0)
    return f"{value:,.{decimals}f}".replace("-", "−")
