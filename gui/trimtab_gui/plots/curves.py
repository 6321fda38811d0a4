"""What a profile is made of: curves, and the ratio of each layer with the hands that move it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QLineF, QPointF

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Curve:
    """One line over the columns: float64 [n_columns], nan where it has no point.

    ``color_role`` is a token or a role; ``index`` tints further fine-tuned models; ``width`` is in
    pixels. ``low`` and ``high``, float64 [n_columns], are what a band around it spans.
    """

    key: str
    label: str
    color_role: str
    values: Values
    fill: bool = False
    width: float = 1.6
    index: int = 0
    low: Values | None = None
    high: Values | None = None
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Ratio:
    """A ratio for each column, float64 [n_columns] (nan: the column has none), and which are
    pinned, bool [n_columns]; the others follow a slider elsewhere."""

    values: Values
    pinned: Flags
    minimum: float = 0.0
    maximum: float = 1.5
    enabled: bool = True


class RatioDrag:
    """One gesture on the ratio curve: it moves a handle, a selected range, or paints across."""

    def __init__(self, ratio: Ratio, column: int, span: tuple[int, int] | None) -> None:
        self._ratio = ratio
        self._column = column
        self._last: tuple[int, float] = (column, float(ratio.values[column]))
        self._span = span if span is not None and span[0] <= column <= span[1] else None

    def move(self, column: int, value: float) -> dict[int, float]:
        """Return what the hand sets now that it is over ``column`` at ``value``."""
        ratio = self._ratio
        if self._span is not None:
            offset = value - float(ratio.values[self._column])
            inside = range(self._span[0], self._span[1] + 1)
            return {j: self._held(float(ratio.values[j]) + offset) for j in inside if self._has(j)}
        first, before = self._last
        self._last = (column, value)
        if column == first:
            return {column: self._held(value)} if self._has(column) else {}
        # A fast hand skips columns between two events: they lie on the line between.
        changes: dict[int, float] = {}
        step = 1 if column > first else -1
        for j in range(first + step, column + step, step):
            share = (j - first) / (column - first)
            if self._has(j):
                changes[j] = self._held(before + (value - before) * share)
        return changes

    def _has(self, column: int) -> bool:
        return bool(np.isfinite(self._ratio.values[column]))

    def _held(self, value: float) -> float:
        return round(min(max(value, self._ratio.minimum), self._ratio.maximum), 2)


def pieces(points: list[QPointF | None]) -> list[list[QPointF]]:
    """Split a line where a point is missing."""
    result: list[list[QPointF]] = []
    run: list[QPointF] = []
    for point in points:
        if point is not None:
            run.append(point)
        elif run:
            result.append(run)
            run = []
    if run:
        result.append(run)
    return result


def dashes(run: list[QPointF], on: float, off: float) -> list[QLineF]:
    """Cut a line into dashes of ``on`` pixels with ``off`` between, around its corners."""
    result: list[QLineF] = []
    drawing, left = True, on
    for one, other in pairwise(run):
        whole = QLineF(one, other)
        length, done = whole.length(), 0.0
        while done < length:
            step = min(left, length - done)
            if drawing:
                begin, end = done / length, (done + step) / length
                result.append(QLineF(whole.pointAt(begin), whole.pointAt(end)))
            done += step
            left -= step
            if left <= 1e-9:
                drawing = not drawing
                left = on if drawing else off
    return result


def thinned(values: Values, at_most: int) -> npt.NDArray[np.intp]:
    """Return indices of float64 [n] that keep every peak: smallest and largest of each of
    ``at_most`` bins."""
    count = values.size
    if count <= 2 * at_most:
        return np.arange(count)
    edges = np.linspace(0, count, at_most + 1).astype(np.intp)
    keep: set[int] = {0, count - 1}
    for low, high in pairwise(edges):
        part = values[low:high]
        if part.size and not np.isnan(part).all():
            keep.add(int(low + np.nanargmin(part)))
            keep.add(int(low + np.nanargmax(part)))
        gaps = np.flatnonzero(np.isnan(part))
        if gaps.size:
            keep.add(int(low + gaps[0]))
    return np.array(sorted(keep), dtype=np.intp)
