"""How a slider's steps stand for values: evenly, or so many to a power of ten."""

from __future__ import annotations

import math
from typing import Protocol

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
#: steps from one power of ten to the next: 1.0, 1.1 ... 9.9
_DECADE = 90
#: magnitudes that are written without a power of ten
_PLAIN = (1e-4, 1e5)


class SliderScale(Protocol):
    """Maps whole steps 0 to `steps` to values, and writes these."""

    minimum: float
    maximum: float
    steps: int

    def value_at(self, step: int) -> float: ...

    def step_of(self, value: float) -> int: ...

    def text(self, value: float) -> str: ...

    def editable(self, value: float) -> str: ...


class EvenScale:
    """Steps of one size; values have `decimals` places."""

    def __init__(
        self, minimum: float, maximum: float, step: float, decimals: int = 2, suffix: str = ""
    ) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.steps = round((maximum - minimum) / step)
        self._step, self._decimals, self._suffix = step, decimals, suffix

    def value_at(self, step: int) -> float:
        """Return the value of a step."""
        digits = max(self._decimals, 6)
        return min(round(self.minimum + step * self._step, digits), self.maximum)

    def step_of(self, value: float) -> int:
        """Return the step nearest to a value."""
        return round((value - self.minimum) / self._step)

    def text(self, value: float) -> str:
        """Return a value as it is written."""
        return f"{value:.{self._decimals}f}{self._suffix}".replace("-", "−")

    def editable(self, value: float) -> str:
        """Return a value as it is typed."""
        return f"{value:.{self._decimals}f}"


class DecadeScale:
    """Two significant digits over powers of ten, from `lowest` to the maximum; 0 is the least."""

    def __init__(self, minimum: float, maximum: float, lowest: float) -> None:
        self.minimum, self.maximum = minimum, maximum
        self._first = math.floor(math.log10(lowest))
        # the least value has a step of its own where the decades cannot reach it
        self._offset = 1 if minimum < lowest else 0
        self.steps = self._raw(maximum)

    def _raw(self, value: float) -> int:
        if value <= 0 or value < 10.0**self._first:
            return 0
        exponent = math.floor(math.log10(value) + 1e-12)
        mantissa = value / 10.0**exponent
        return self._offset + (exponent - self._first) * _DECADE + round((mantissa - 1) * 10)

    def value_at(self, step: int) -> float:
        """Return the value of a step."""
        if step < self._offset:
            return self.minimum
        exponent, tenths = divmod(step - self._offset, _DECADE)
        value = float(f"{10 + tenths}e{self._first + exponent - 1}")
        return min(max(value, self.minimum), self.maximum)

    def step_of(self, value: float) -> int:
        """Return the step nearest to a value."""
        return min(self._raw(value), self.steps)

    def text(self, value: float) -> str:
        """Return a value as it is written: 0.002, or 1.5×10⁻⁸."""
        if value == 0 or _PLAIN[0] <= abs(value) < _PLAIN[1]:
            return f"{value:.3g}".replace("-", "−")
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        digits = f"{float(mantissa):g}".replace("-", "−")
        return f"{digits}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"

    def editable(self, value: float) -> str:
        """Return a value as it is typed."""
        return f"{value:.4g}"


def scale_for(
    kind: str, minimum: float, maximum: float, default: float, decimals: int = 2
) -> SliderScale:
    """Return the scale on which a parameter is set well, going by its range and default."""
    if kind == "integer":
        return EvenScale(minimum, maximum, 1.0, 0)
    if minimum >= 0 and 0 < default < (maximum - minimum) / 1000:
        # four decades below the default: what is smaller is as good as the least
        lowest = 10.0 ** (math.floor(math.log10(default)) - 4)
        return DecadeScale(minimum, maximum, max(lowest, minimum))
    return EvenScale(minimum, maximum, 10.0**-decimals, decimals)
