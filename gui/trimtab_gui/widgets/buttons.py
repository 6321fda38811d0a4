"""The buttons of the window: primary, quiet, a word, and the ground of those drawn by hand."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import QAbstractButton, QPushButton, QToolButton, QWidget

from trimtab_gui import theme


def primary_button(text: str, icon: str = "") -> QPushButton:
    """Return the button of the screen's one main action."""
    result = QPushButton(text)
    result.setProperty("kind", "primary")
    result.setCursor(Qt.CursorShape.PointingHandCursor)
    result.setFont(theme.font("strong"))
    if icon:
        theme.bind_icon(result, icon, "on_accent")
        result.setIconSize(QSize(16, 16))
    return result


def quiet_button(icon: str, tooltip: str) -> QToolButton:
    """Return a button that is only an icon; the tooltip is its accessible name too."""
    result = QToolButton()
    theme.bind_icon(result, icon, "muted")
    result.setIconSize(QSize(17, 17))
    result.setAutoRaise(True)
    result.setToolTip(tooltip)
    result.setAccessibleName(tooltip)
    result.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return result


def link_button(text: str) -> QPushButton:
    """Return a button that is only a word, for second thoughts beside a message."""
    result = QPushButton(text)
    result.setProperty("kind", "link")
    result.setCursor(Qt.CursorShape.PointingHandCursor)
    return result


def fold_button(text: str) -> QToolButton:
    """Return a button that opens and closes what lies below it; an arrow shows which."""
    result = QToolButton()
    result.setText(text)
    result.setFont(theme.font("caption"))
    result.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    result.setCheckable(True)
    result.setIconSize(QSize(14, 14))
    result.setProperty("kind", "fold")
    arrow = theme.bind_icon(result, "chevron-right")
    assert arrow is not None
    result.toggled.connect(
        lambda open_: arrow.set_icon("chevron-down" if open_ else "chevron-right")
    )
    return result


_BY_KEYBOARD = (
    Qt.FocusReason.TabFocusReason,
    Qt.FocusReason.BacktabFocusReason,
    Qt.FocusReason.ShortcutFocusReason,
    Qt.FocusReason.OtherFocusReason,
)


class FocusButton(QAbstractButton):
    """A button that a subclass draws: Enter clicks too, and focus shows when it came by a key."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._by_key = False
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)

    def keyboard_focus(self) -> bool:
        """Return whether a focus ring is to be drawn."""
        return self._by_key and self.hasFocus()

    def focusInEvent(self, event: QFocusEvent) -> None:
        self._by_key = event.reason() in _BY_KEYBOARD
        super().focusInEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
            return
        self._by_key = True
        super().keyPressEvent(event)

    def event(self, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.HoverEnter, QEvent.Type.HoverLeave):
            self.update()
        return super().event(event)
