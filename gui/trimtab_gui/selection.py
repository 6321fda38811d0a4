"""The one place that knows what is selected and what is under the cursor, with who said so."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal


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


class SelectionBus(QObject):
    """Tells every view what is selected; each ignores what it said itself.

    `changed(selection, source)` and `hovered(group, source)`; `group` is -1 for none. `source` is
    the view that spoke, None for the window itself.
    """

    changed = Signal(object, object)
    hovered = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._current = NOTHING
        self._hover = -1

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
