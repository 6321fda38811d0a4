"""The one place that knows what is selected and what is under the cursor, with who said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PySide6.QtCore import QObject, Signal

from trimtab.checkpoints import Grid

#: what becomes of the present selection when something is selected
How = Literal["replace", "union", "intersect", "difference"]


@dataclass(frozen=True)
class Selection:
    """Groups of the grid that are selected, and the columns they lie in.

    `groups` are group numbers in ascending order; `rows` and `columns` are inclusive ranges of the
    heatmap, None when nothing is selected.
    """

    groups: tuple[int, ...] = ()
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.groups)


NOTHING = Selection()


def selection_of(grid: Grid, groups: tuple[int, ...]) -> Selection:
    """Return the selection of groups; a range of rows only where they are a rectangle of cells."""
    chosen = np.isin(grid.cells, groups)
    rows, columns = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
    if not rows.size:
        return Selection(groups)
    span = int(rows[0]), int(rows[-1])
    across = int(columns[0]), int(columns[-1])
    whole = chosen[span[0] : span[1] + 1, across[0] : across[1] + 1].all()
    return Selection(groups, span if whole else None, across)


def joined(before: tuple[int, ...], given: tuple[int, ...], how: How) -> tuple[int, ...]:
    """Join groups with those that are selected; where none are, every way selects the given."""
    if how == "replace" or not before:
        return given
    old, new = set(before), set(given)
    found = {"union": old | new, "intersect": old & new, "difference": old - new}[how]
    return tuple(sorted(found))


class SelectionBus(QObject):
    """Tells every view what is selected; each ignores what it said itself.

    `changed(selection, source)` and `hovered(group, source)`; `group` is -1 for none. `source` is
    the view that spoke, None for the window itself. `how_changed(how)` says what becomes of the
    selection by the next one.
    """

    changed = Signal(object, object)
    hovered = Signal(int, object)
    how_changed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._current = NOTHING
        self._hover = -1
        self._how: How = "replace"

    @property
    def how(self) -> How:
        """What becomes of what is selected when something else is, unless a key says otherwise."""
        return self._how

    def set_how(self, how: How) -> None:
        """Choose what becomes of what is selected when something else is."""
        if how != self._how:
            self._how = how
            self.how_changed.emit(how)

    @property
    def current(self) -> Selection:
        """What is selected now."""
        return self._current

    @property
    def hover(self) -> int:
        """The group under the cursor, -1 for none."""
        return self._hover

    def select(self, selection: Selection, source: object = None) -> None:
        """Select; saying again what is already selected is not passed on."""
        if selection != self._current:
            self._current = selection
            self.changed.emit(selection, source)

    def clear(self, source: object = None) -> None:
        """Select nothing."""
        self.select(NOTHING, source)

    def point_at(self, group: int, source: object = None) -> None:
        """Say which group is under the cursor; hovering is not selecting."""
        if group != self._hover:
            self._hover = group
            self.hovered.emit(group, source)
