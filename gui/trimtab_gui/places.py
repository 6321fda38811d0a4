"""The places of the window: what can be gone to, and where the window is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from trimtab_gui.session import Session

_SETTING = "place"


@dataclass(frozen=True)
class Place:
    """One place: `page` gives its widget, made at the first call; `entered` follows each arrival.

    Two places may share a page.
    """

    key: str
    title: str
    icon: str
    shortcut: str
    page: Callable[[], QWidget]
    entered: Callable[[], None] = lambda: None


class Places(QObject):
    """The places in their order on the screen; the window comes back to the one it was closed in.

    `changed` carries the key of the place gone to.
    """

    changed = Signal(str)

    def __init__(
        self,
        places: Iterable[Place],
        pages: QStackedWidget,
        session: Session,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._places = {place.key: place for place in places}
        self._pages, self._session = pages, session
        kept = session.get(_SETTING)
        self._current = kept if kept in self._places else next(iter(self._places))
        self._entered = ""

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    @property
    def current(self) -> str:
        """The key of the place that is shown, or will be once something is open."""
        return self._current

    def go(self, key: str) -> None:
        """Go to a place; KeyError when there is none of that key."""
        moved = self._places[key].key != self._current
        self._current = key
        self._session.set(_SETTING, key)
        self.show()
        if moved:
            self.changed.emit(key)

    def show(self) -> None:
        """Bring the page of the present place to the front."""
        place = self._places[self._current]
        page = place.page()
        if self._pages.indexOf(page) < 0:
            self._pages.addWidget(page)
        self._pages.setCurrentWidget(page)
        if self._entered != self._current:
            self._entered = self._current
            place.entered()
