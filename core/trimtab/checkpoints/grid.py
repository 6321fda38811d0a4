"""Lays the tensors of a model out as cells of layers x modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.naming import TensorName, module_key, parse


@dataclass(frozen=True)
class Grid:
    """Cells of the heatmap.

    `cells` is int32 [rows, columns] and holds the group drawn there, -1 for none. `group_of` is
    int32 [tensors]: a group gathers the tensors of one layer and module (weight and bias, the
    norms of a block). The first column "in" and the last "out" hold what is before and behind
    the blocks; a group may fill several cells of them, and rows without a name only give them
    room. `layers` is int32 [groups], -1 outside the blocks.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: npt.NDArray[np.int32]
    group_of: npt.NDArray[np.int32]
    labels: tuple[str, ...]
    modules: tuple[str, ...]
    layers: npt.NDArray[np.int32]
    column_of: npt.NDArray[np.int32]

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.labels)

    def members(self, group: int) -> npt.NDArray[np.intp]:
        """Return the tensor rows, intp [k], gathered in `group`."""
        return np.flatnonzero(self.group_of == group)


def build_grid(names: Sequence[str]) -> Grid:
    """Build the grid of `names`, one entry a tensor in that order."""
    places = [parse(name) for name in names]
    layer_numbers = sorted({p.layer for p in places if p.layer is not None})
    rows = sorted({p.row for p in places if p.zone == "layer"}, key=module_key)
    groups: dict[TensorName, int] = {}
    group_of = np.empty(len(names), dtype=np.int32)
    for i, place in enumerate(places):
        group_of[i] = groups.setdefault(place, len(groups))
    inside = [p for p in groups if p.zone == "in"]
    outside = [p for p in groups if p.zone == "out"]
    if not rows:
        rows = sorted({p.row for p in groups}, key=module_key)
    # a small model may have more groups outside its blocks than modules inside
    rows += [""] * (max(len(inside), len(outside)) - len(rows))
    columns = [str(number) for number in layer_numbers]
    if inside:
        columns.insert(0, "in")
    if outside:
        columns.append("out")
    cells = np.full((len(rows), len(columns)), -1, dtype=np.int32)
    column_of = np.zeros(len(groups), dtype=np.int32)
    first = 1 if inside else 0
    column_index = {number: first + i for i, number in enumerate(layer_numbers)}
    row_index = {row: i for i, row in enumerate(rows)}
    for place, group in groups.items():
        if place.layer is not None:
            cells[row_index[place.row], column_index[place.layer]] = group
            column_of[group] = column_index[place.layer]
    _fill_column(cells, column_of, groups, inside, 0)
    _fill_column(cells, column_of, groups, outside, len(columns) - 1)
    return Grid(
        rows=tuple(rows),
        columns=tuple(columns),
        cells=cells,
        group_of=group_of,
        labels=tuple(place.label for place in groups),
        modules=tuple(place.module for place in groups),
        layers=np.array(
            [-1 if place.layer is None else place.layer for place in groups], dtype=np.int32
        ),
        column_of=column_of,
    )


def _fill_column(
    cells: npt.NDArray[np.int32],
    column_of: npt.NDArray[np.int32],
    groups: dict[TensorName, int],
    places: list[TensorName],
    column: int,
) -> None:
    """Share the height of one outer column among its groups, top to bottom."""
    if not places:
        return
    ordered = sorted(places, key=lambda place: module_key(place.row))
    edges = np.linspace(0, cells.shape[0], len(ordered) + 1).round().astype(int)
    for place, top, bottom in zip(ordered, edges, edges[1:], strict=False):
        cells[top:bottom, column] = groups[place]
    for place in ordered:
        column_of[groups[place]] = column
