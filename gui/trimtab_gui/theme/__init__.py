"""Colours, type and icons of the window, and the one place that switches them."""

from __future__ import annotations

from typing import Literal, Protocol

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QIcon
from PySide6.QtWidgets import QApplication, QStyle

from trimtab_gui.theme import icons
from trimtab_gui.theme.fonts import Kind, font, load
from trimtab_gui.theme.stylesheet import palette, stylesheet
from trimtab_gui.theme.tokens import (
    CARD_RADIUS,
    CONTROL_RADIUS,
    DARK,
    GAP,
    LIGHT,
    PANEL_PADDING,
    PANEL_RADIUS,
    ROLES,
    ROW_GAP,
    Tokens,
    legible,
    mix,
    tint,
)

Mode = Literal["dark", "light", "system"]

__all__ = [
    "CARD_RADIUS",
    "CONTROL_RADIUS",
    "DARK",
    "GAP",
    "LIGHT",
    "PANEL_PADDING",
    "PANEL_RADIUS",
    "ROLES",
    "ROW_GAP",
    "Kind",
    "Mode",
    "Tokens",
    "app_icon",
    "apply",
    "bind_icon",
    "color",
    "current",
    "font",
    "icon",
    "manager",
    "mix",
    "mode",
    "reduced_motion",
    "role_color",
    "text_color",
]


class Manager(QObject):
    """Holds the tokens in force; ``changed`` tells whoever draws by hand to draw again."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.tokens = DARK
        self.mode: Mode = "dark"
        self._follows = False

    def follow_system(self, app: QApplication) -> None:
        """Listen to the system's colour scheme, once."""
        if not self._follows:
            app.styleHints().colorSchemeChanged.connect(self._system_changed)
            self._follows = True

    def _system_changed(self) -> None:
        app = QApplication.instance()
        if self.mode == "system" and isinstance(app, QApplication):
            apply(app, "system")


_holder: list[Manager] = []


def manager() -> Manager:
    """Return the one manager."""
    if not _holder:
        _holder.append(Manager())
    return _holder[0]


def current() -> Tokens:
    """Return the tokens in force."""
    return manager().tokens


def mode() -> Mode:
    """Return what was asked for: dark, light, or whatever the system says."""
    return manager().mode


def apply(app: QApplication, mode: Mode) -> None:
    """Give the application its fonts, palette and style sheet, and let live plots recolour."""
    load()
    keeper = manager()
    keeper.mode = mode
    keeper.follow_system(app)
    scheme = app.styleHints().colorScheme()
    light = mode == "light" or (mode == "system" and scheme == Qt.ColorScheme.Light)
    keeper.tokens = LIGHT if light else DARK
    if app.style().objectName().lower() != "fusion":
        app.setStyle("Fusion")
    app.setFont(font("body"))
    app.setPalette(palette(keeper.tokens))
    app.setStyleSheet(stylesheet(keeper.tokens))
    app.setWindowIcon(app_icon())
    keeper.changed.emit()


def color(name: str) -> QColor:
    """Return a token as a colour; KeyError when there is none of that name."""
    return QColor(current().get(name))


def role_color(role: str, index: int = 0) -> QColor:
    """Return the colour of a model's role; ``index`` counts further fine-tuned models."""
    return QColor(tint(role, index, current().scheme))


def text_color(role: str, index: int = 0) -> QColor:
    """Return the colour of a role for text: the same hue, legible (4.5:1) on every surface."""
    tokens = current()
    return QColor(legible(tint(role, index, tokens.scheme), tokens.scheme))


def icon(name: str, role: str = "muted") -> QIcon:
    """Return an icon in a token's colour; FileNotFoundError when it is not shipped."""
    tokens = current()
    return icons.tinted(name, tokens.get(role), mix(tokens.muted, tokens.card, 0.5))


def app_icon() -> QIcon:
    """Return the sail boat, in the accent colour of the dark set, which reads on both."""
    return icons.tinted("sail-boat", DARK.accent, DARK.accent)


class HasIcon(Protocol):
    """A button or an action."""

    def setIcon(self, icon: QIcon, /) -> None: ...


def bind_icon(target: HasIcon, name: str, role: str = "muted") -> BoundIcon | None:
    """Give a button or action an icon that follows the theme for as long as the target lives.

    What is returned, for a QObject, changes the icon to another.
    """
    target.setIcon(icon(name, role))
    if not isinstance(target, QObject):
        return None
    follower = BoundIcon(target, name, role)
    manager().changed.connect(follower.refresh)
    return follower


class BoundIcon(QObject):
    """The icon of a target: a child of it, so that the connection ends with it."""

    def __init__(self, target: QObject, name: str, role: str) -> None:
        super().__init__(target)
        self._name = name
        self._role = role

    def set_icon(self, name: str) -> None:
        """Show another icon."""
        self._name = name
        self.refresh()

    def refresh(self) -> None:
        """Draw the icon in the theme in force."""
        target = self.parent()
        set_icon = getattr(target, "setIcon", None)
        if set_icon is not None:
            set_icon(icon(self._name, self._role))


def reduced_motion() -> bool:
    """Return whether the system asks for less motion (Qt 6.12 says so, older ones by the style)."""
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        return True
    hints = app.styleHints()
    if hasattr(hints, "accessibility"):
        preference = getattr(hints.accessibility(), "motionPreference", None)
        if preference is not None:
            return bool(preference().name == "ReducedMotion")
    return app.style().styleHint(QStyle.StyleHint.SH_Widget_Animation_Duration) == 0
