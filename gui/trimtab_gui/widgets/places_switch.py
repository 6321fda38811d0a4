"""The switch between the places of the window: one of a few is on."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeySequence, QPainter, QPaintEvent
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card, transparent

_ICON, _PAD, _BETWEEN = 15, 13, 6
_LINE = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


class PlacesSwitch(QWidget):
    """Takes (key, title, icon, shortcut) of each place; ``chosen`` carries the key of one."""

    chosen = Signal(str)

    def __init__(
        self, places: Sequence[tuple[str, str, str, str]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(3, 3, 3, 3)
        row.setSpacing(2)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Places"))
        self._group = QButtonGroup(self)
        self.buttons: dict[str, PlaceButton] = {}
        for key, title, icon, shortcut in places:
            button = PlaceButton(title, icon, shortcut)
            button.clicked.connect(lambda _checked=False, key=key: self.chosen.emit(key))
            self._group.addButton(button)
            self.buttons[key] = button
            row.addWidget(button)
        theme.manager().changed.connect(self.update)

    def set_current(self, key: str) -> None:
        """Show which place is on, without emitting."""
        self.buttons[key].setChecked(True)

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self), QRectF(self.rect()), theme.CARD_RADIUS,
            theme.color("panel"), theme.color("line"),
        )  # fmt: skip


class PlaceButton(FocusButton):
    """Icon and name of a place; on a card of its own while it is on."""

    def __init__(self, title: str, icon: str, shortcut: str) -> None:
        super().__init__()
        self._icon = icon
        self.setText(title)
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        keys = QKeySequence(shortcut).toString(QKeySequence.SequenceFormat.NativeText)
        self.setToolTip(f"{title} ({keys})" if keys else title)
        self.setAccessibleName(title)

    def sizeHint(self) -> QSize:
        # as wide as when it is on: nothing moves when the place changes
        text = QFontMetricsF(theme.font("strong")).horizontalAdvance(self.text())
        return QSize(round(text + _ICON + _BETWEEN + 2 * _PAD) + 1, 30)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens, rect = theme.current(), QRectF(self.rect())
        fill, border = transparent(), transparent()
        if self.isChecked():
            fill = QColor(theme.mix(tokens.card, tokens.line, 0.5))
        elif self.underMouse():
            fill = theme.color("card")
        if self.keyboard_focus():
            border = theme.color("accent")
        card(painter, rect, theme.CONTROL_RADIUS, fill, border)
        tone = tokens.text if self.isChecked() else tokens.muted
        font = theme.font("strong" if self.isChecked() else "body")
        width = QFontMetricsF(font).horizontalAdvance(self.text())
        left = (rect.width() - width - _ICON - _BETWEEN) / 2
        top = (rect.height() - _ICON) / 2
        icons.draw(painter, self._icon, tone, QRectF(left, top, _ICON, _ICON))
        painter.setFont(font)
        painter.setPen(QColor(tone))
        line = QRectF(left + _ICON + _BETWEEN, 0, width + 2, rect.height())
        painter.drawText(line, _LINE, self.text())
