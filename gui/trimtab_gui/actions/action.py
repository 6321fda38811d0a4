"""An action is data; the registry makes Qt's objects of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from trimtab_gui import theme


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Action:
    """One thing that can be done.

    `enabled` returns None when it can be done now, else the reason why not. `title` may be a
    function where it changes ("Undo Ratio of math"). `menu` is the heading it stands under.
    `local`: the shortcut is the window's own key, which a focused field may take first.
    """

    id: str
    title: str | Callable[[], str]
    callback: Callable[[], object]
    menu: str
    shortcut: str = ""
    icon: str = ""
    enabled: Callable[[], str | None] = _always
    local: bool = False

    @property
    def text(self) -> str:
        """The title as it reads now."""
        return self.title if isinstance(self.title, str) else self.title()


class Actions(QObject):
    """The actions of one window, each with its QAction."""

    def __init__(self, window: QWidget, actions: Iterable[Action]) -> None:
        super().__init__(window)
        self._actions = {action.id: action for action in actions}
        self._qt: dict[str, QAction] = {}
        for action in self._actions.values():
            made = QAction(action.text, window)
            if action.icon:
                theme.bind_icon(made, action.icon, "text")
            if action.shortcut:
                made.setShortcut(QKeySequence(action.shortcut))
            if action.local:
                made.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            made.triggered.connect(lambda _checked=False, key=action.id: self.run(key))
            window.addAction(made)
            self._qt[action.id] = made
        self.refresh()

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())

    def __getitem__(self, key: str) -> Action:
        return self._actions[key]

    def qt(self, key: str) -> QAction:
        """Return the QAction of an action."""
        return self._qt[key]

    def run(self, key: str) -> None:
        """Do it, if it can be done now."""
        action = self._actions[key]
        if action.enabled() is None:
            action.callback()
        self.refresh()

    def refresh(self) -> None:
        """Bring titles, states and tooltips up to date."""
        for key, action in self._actions.items():
            made = self._qt[key]
            reason = action.enabled()
            made.setText(action.text)
            made.setEnabled(reason is None)
            made.setToolTip(self.tooltip(key))

    def tooltip(self, key: str) -> str:
        """Return title and shortcut, or the reason why it cannot be done."""
        action = self._actions[key]
        shortcut = QKeySequence(action.shortcut).toString(QKeySequence.SequenceFormat.NativeText)
        text = f"{action.text} ({shortcut})" if shortcut else action.text
        reason = action.enabled()
        return f"{text}\n{reason}" if reason else text

    def fill(self, menu: QMenu) -> None:
        """Put all actions into a menu, a section for each heading."""
        heading = ""
        for action in self._actions.values():
            if heading and action.menu != heading:
                menu.addSeparator()
            heading = action.menu
            menu.addAction(self._qt[action.id])
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(self.refresh)

    def bind(self, button: QToolButton, key: str) -> None:
        """Let a quiet button do the action, with its state and tooltip."""
        made = self._qt[key]

        def follow() -> None:
            button.setEnabled(made.isEnabled())
            button.setToolTip(made.toolTip())
            button.setAccessibleName(self._actions[key].text)

        made.changed.connect(follow)
        button.clicked.connect(made.trigger)
        follow()
