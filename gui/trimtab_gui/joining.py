"""Joins what is selected next with what is selected already: union, intersection, difference."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal
from PySide6.QtGui import QGuiApplication, QMouseEvent, QUndoCommand
from PySide6.QtWidgets import QAbstractScrollArea

from trimtab.checkpoints import Grid
from trimtab_gui.desk import Desk
from trimtab_gui.selection import NOTHING, How, Selection, joined, selection_of

_PRESSES = (QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonDblClick)


def how_by_keys(desk: Desk, keys: Qt.KeyboardModifier | None = None) -> How:
    """Return what becomes of the selection: as the keys that are held say, else as was chosen.

    Ctrl unites, Ctrl+Shift intersects, Ctrl+Alt takes away.
    """
    held = QGuiApplication.keyboardModifiers() if keys is None else keys
    if not held & Qt.KeyboardModifier.ControlModifier:
        return desk.selection.how
    if held & Qt.KeyboardModifier.ShiftModifier:
        return "intersect"
    return "difference" if held & Qt.KeyboardModifier.AltModifier else "union"


def join(desk: Desk, groups: tuple[int, ...], how: How) -> None:
    """Join groups with the selection, as a step that can be undone."""
    if desk.figures is not None:
        before, grid = desk.selection.current, desk.figures.grid
        _select(desk, grid, before, groups, how)
        _remember(desk, grid, before, how)


def _select(desk: Desk, grid: Grid, before: Selection, groups: tuple[int, ...], how: How) -> None:
    after = joined(before.groups, groups, how)
    desk.selection.select(selection_of(grid, after) if after else NOTHING)


def _remember(desk: Desk, grid: Grid, before: Selection, how: How) -> None:
    after = desk.selection.current
    # a plain selection is no step: there would be no end of them
    if how != "replace" and before and after != before:
        desk.history.push(SelectCommand(desk, grid, before, after, how))


class SelectCommand(QUndoCommand):
    """A selection that was joined with another one; nothing of it touches the project."""

    def __init__(
        self, desk: Desk, grid: Grid, before: Selection, after: Selection, how: How
    ) -> None:
        names = {
            "union": QCoreApplication.translate("Inspect", "Union of selections"),
            "intersect": QCoreApplication.translate("Inspect", "Intersection of selections"),
            "difference": QCoreApplication.translate("Inspect", "Difference of selections"),
        }
        super().__init__(names[how])
        self._desk, self._grid = desk, grid
        self._before, self._after = before, after

    def redo(self) -> None:
        """Select what came out."""
        self._show(self._after)

    def undo(self) -> None:
        """Select what was selected before."""
        self._show(self._before)

    def _show(self, selection: Selection) -> None:
        figures = self._desk.figures
        # groups are numbers in one grid, and mean nothing in another lineup's
        if figures is not None and figures.grid is self._grid:
            self._desk.selection.select(selection)


class Joiner(QObject):
    """Joins the gestures of one plot with what was selected when they began.

    `begun` hears of each press that will join, `ended` when the hand has let go of it.
    """

    _over = Signal()

    def __init__(
        self,
        desk: Desk,
        plot: QAbstractScrollArea,
        begun: Callable[[QMouseEvent], None] = lambda event: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(plot)
        self._desk = desk
        self._begun, self._ended = begun, ended
        self._how: How = "replace"
        self._gesture: tuple[Grid, Selection] | None = None
        # the plot is to have seen the release before
        self._over.connect(self._end, Qt.ConnectionType.QueuedConnection)
        plot.viewport().installEventFilter(self)

    def take(self, groups: tuple[int, ...]) -> bool:
        """Join groups as the gesture under way, or the keys, say; False where they say replace."""
        if self._gesture is None:
            how = how_by_keys(self._desk)
            if how == "replace":
                return False
            join(self._desk, groups, how)
            return True
        if self._how == "replace":
            return False
        _select(self._desk, *self._gesture, groups, self._how)
        return True

    @property
    def under_way(self) -> bool:
        """Whether the hand holds a gesture that joins."""
        return self._gesture is not None and self._how != "replace"

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QMouseEvent) and event.button() == Qt.MouseButton.LeftButton:
            if event.type() in _PRESSES:
                self._begin(event)
            elif event.type() == QEvent.Type.MouseButtonRelease and self._gesture is not None:
                self._over.emit()
        return super().eventFilter(watched, event)

    def _begin(self, event: QMouseEvent) -> None:
        self._end()
        figures = self._desk.figures
        if figures is not None:
            self._how = how_by_keys(self._desk, event.modifiers())
            self._gesture = figures.grid, self._desk.selection.current
            if self._how != "replace":
                self._begun(event)

    def _end(self) -> None:
        if self._gesture is None:
            return
        gesture, self._gesture = self._gesture, None
        if self._how != "replace":
            _remember(self._desk, *gesture, self._how)
            self._ended()
