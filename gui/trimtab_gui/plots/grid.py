"""The arithmetic of a heatmap without a screen: which cells an id fills, and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Values = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

NOWHERE = (-1, -1)


@dataclass(frozen=True)
class Span:
    """A rectangle of cells; all four bounds belong to it."""

    row_low: int
    row_high: int
    column_low: int
    column_high: int


NO_SPAN = Span(-1, -1, -1, -1)


@dataclass(frozen=True)
class Lines:
    """Stretches ``low`` to ``high`` of the rows, columns or borders ``at``, int64 [n] each."""

    at: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]


class CellGrid:
    """Cell ids int32 [rows, columns]; -1 is no cell; an id may fill several neighbouring cells."""

    def __init__(self, ids: Ids) -> None:
        self.ids = np.ascontiguousarray(ids, dtype=np.int32)
        self.shape: tuple[int, int] = (int(ids.shape[0]), int(ids.shape[1]))
        self.count = int(self.ids.max(initial=-1)) + 1
        self._extents = _extents(self.ids, self.count)
        self.vertical = _borders(self.ids[:, 1:] != self.ids[:, :-1])
        self.horizontal = _borders((self.ids[1:, :] != self.ids[:-1, :]).T)

    def span(self, cell: int) -> Span | None:
        """Return the rectangle that an id fills; None when it has no place in the grid."""
        if not 0 <= cell < self.count or self._extents[cell, 0] > self._extents[cell, 1]:
            return None
        low, high, left, right = (int(v) for v in self._extents[cell])
        return Span(low, high, left, right)

    def inside(self, span: Span) -> Ids:
        """Return the ids in a rectangle, sorted, each once."""
        part = self.ids[span.row_low : span.row_high + 1, span.column_low : span.column_high + 1]
        found = np.unique(part)
        return found[found >= 0].astype(np.int32)

    def rectangles(self, ids: Ids) -> list[Span]:
        """Return the rectangles that cover the cells of some ids and no other ones."""
        chosen = np.isin(self.ids, ids)
        found: dict[tuple[int, int], list[Span]] = {}
        for row in range(self.shape[0]):
            runs = _runs(chosen[row][:, None])
            for low, high in zip(runs.low.tolist(), (runs.high - 1).tolist(), strict=True):
                above = found.setdefault((low, high), [])
                if above and above[-1].row_high == row - 1:
                    above[-1] = Span(above[-1].row_low, row, low, high)
                else:
                    above.append(Span(row, row, low, high))
        return [span for spans in found.values() for span in spans]

    def contour(self, spans: Sequence[Span]) -> tuple[Lines, Lines]:
        """Return the vertical and the horizontal stretches around all that rectangles cover."""
        covered = np.zeros((self.shape[0] + 2, self.shape[1] + 2), dtype=np.bool_)
        for s in spans:
            covered[s.row_low + 1 : s.row_high + 2, s.column_low + 1 : s.column_high + 2] = True
        upright = _runs(covered[1:-1, 1:] != covered[1:-1, :-1])
        level = _runs((covered[1:, 1:-1] != covered[:-1, 1:-1]).T)
        return upright, level

    def without_value(self, values: Values) -> Lines:
        """Return the stretches of each row whose cells are not finite in float64 [n_ids]."""
        missing = np.append(~np.isfinite(values), False)
        return _runs(missing[self.ids].T)

    def neighbour(self, cell: int, row_step: int, column_step: int) -> int:
        """Return the next id in a direction, skipping what is no cell; itself at the border."""
        span = self.span(cell)
        if span is None:
            present = self.ids[self.ids >= 0]
            return int(present[0]) if present.size else -1
        row = span.row_low if row_step <= 0 else span.row_high
        column = span.column_low if column_step <= 0 else span.column_high
        while True:
            row, column = row + row_step, column + column_step
            if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
                return cell
            found = int(self.ids[row, column])
            if found not in (-1, cell):
                return found


def _extents(ids: Ids, count: int) -> npt.NDArray[np.int64]:
    """Return int64 [count, 4]: first and last row, first and last column of each id."""
    result = np.empty((count, 4), dtype=np.int64)
    result[:, 0::2] = np.iinfo(np.int64).max
    result[:, 1::2] = -1
    rows, columns = np.nonzero(ids >= 0)
    cells = ids[rows, columns]
    np.minimum.at(result[:, 0], cells, rows)
    np.maximum.at(result[:, 1], cells, rows)
    np.minimum.at(result[:, 2], cells, columns)
    np.maximum.at(result[:, 3], cells, columns)
    return result


def _borders(differs: npt.NDArray[np.bool_]) -> Lines:
    """Join neighbouring borders, bool [n, borders], to straight lines along the first axis."""
    found = _runs(differs)
    return Lines(found.at + 1, found.low, found.high)


def _runs(true: npt.NDArray[np.bool_]) -> Lines:
    """Find the stretches that are true along the first axis of bool [n, lines]."""
    n, lines = true.shape
    padded = np.zeros((lines, n + 2), dtype=np.int8)
    padded[:, 1:-1] = true.T
    change = np.diff(padded, axis=1)
    at, low = np.nonzero(change == 1)
    _, high = np.nonzero(change == -1)
    return Lines(at, low, high)


def colour_cells(
    grid: CellGrid,
    values: Values,
    levels: tuple[float, float],
    table: Pixels,
    empty: tuple[int, int, int],
) -> Pixels:
    """Return uint8 [rows, columns, 4] for float64 ``values`` [n_ids] between two ``levels``.

    What is not finite becomes ``empty``; where there is no cell the pixel is transparent.
    """
    low, high = levels
    scale = 255.0 / (high - low) if high > low else 0.0
    known = np.isfinite(values)
    place = np.where(known, (np.where(known, values, low) - low) * scale, 0.0)
    index = np.clip(np.rint(place), 0, 255).astype(np.intp)
    colours = np.zeros((grid.count + 1, 4), dtype=np.uint8)
    colours[: values.size] = table[index]
    colours[: values.size][~known] = (*empty, 255)
    return colours[grid.ids]


def value_range(values: Values, signed: bool) -> tuple[float, float]:
    """Return the limits of the finite values: symmetric when signed, from zero when none is
    negative; (0, 1) when there is nothing."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        largest = float(np.abs(finite).max()) or 1.0
        return (-largest, largest)
    low, high = float(finite.min()), float(finite.max())
    low = 0.0 if low >= 0 else low
    return (low, high if high > low else low + 1.0)
