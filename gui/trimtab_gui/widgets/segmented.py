"""The switch between the places of the window."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QButtonGroup, QHBoxLayout, QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card

_ICON = 16
_PAD = 15


class _Segment(FocusButton):
    def __init__(self, text: str, icon: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon = icon
        self.setText(text)
        self.setCheckable(True)
        self.setAccessibleName(text)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        width = QFontMetricsF(theme.font("strong")).horizontalAdvance(self.text())
        icon = _ICON + 6 if self._icon else 0
        return QSize(round(width) + icon + 2 * _PAD, 30)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.current()
        rect = QRectF(self.rect())
        if self.isChecked():
            painter.setPen(Qt.PenStyle.NoPen)
            fill = tokens.card if tokens.scheme == "dark" else tokens.background
            painter.setBrush(QColor(fill))
            painter.drawRoundedRect(rect, theme.CARD_RADIUS, theme.CARD_RADIUS)
        if self.keyboard_focus():
            painter.setPen(QPen(theme.color("accent"), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            inner = rect.adjusted(0.5, 0.5, -0.5, -0.5)
            painter.drawRoundedRect(inner, theme.CARD_RADIUS, theme.CARD_RADIUS)
        strong = self.isChecked() or self.underMouse()
        tone = "text" if strong else "muted"
        if not self.isEnabled():
            tone = "line"
        x = float(_PAD)
        if self._icon:
            y = (rect.height() - _ICON) / 2
            icons.draw(painter, self._icon, tokens.get(tone), QRectF(x, y, _ICON, _ICON))
            x += _ICON + 6
        painter.setFont(theme.font("strong"))
        painter.setPen(theme.color(tone))
        line = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(QRectF(x, 0, rect.width() - x, rect.height()), line, self.text())


class Segmented(QWidget):
    """Exactly one of several places is chosen; arrow keys move between them."""

    selected = Signal(str)

    def __init__(self, items: list[tuple[str, str, str]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 4, 4, 4)
        row.setSpacing(2)
        self._group = QButtonGroup(self)
        self._buttons: dict[str, _Segment] = {}
        for place, text, icon in items:
            button = _Segment(text, icon)
            self._group.addButton(button)
            self._buttons[place] = button
            row.addWidget(button)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        next(iter(self._buttons.values())).setChecked(True)
        self._group.buttonToggled.connect(self._toggled)
        theme.manager().changed.connect(self.update)

    def current(self) -> str:
        """Return the id of the chosen place."""
        return next(place for place, button in self._buttons.items() if button.isChecked())

    def set_current(self, place: str) -> None:
        """Choose a place without emitting; KeyError for an unknown one."""
        blocked = self._group.blockSignals(True)
        self._buttons[place].setChecked(True)
        self._group.blockSignals(blocked)

    def button(self, place: str) -> QAbstractButton:
        """Return the button of a place, for its tooltip or to disable it."""
        return self._buttons[place]

    def _toggled(self, button: QAbstractButton, checked: bool) -> None:
        if checked:
            self.selected.emit(next(p for p, b in self._buttons.items() if b is button))

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self),
            QRectF(self.rect()),
            theme.PANEL_RADIUS,
            theme.color("panel"),
            theme.color("line"),
        )
