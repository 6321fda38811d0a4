"""A title that is a choice: the names of a few views in a row, of which one is on."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.buttons import FocusButton

_BETWEEN = 14
_CENTRE = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter)


class Tabs(QWidget):
    """Takes (key, title) of each view; ``chosen`` carries the key of one."""

    chosen = Signal(str)

    def __init__(self, name: str, views: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(_BETWEEN)
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        group = QButtonGroup(self)
        self.buttons: dict[str, TabButton] = {}
        for key, title in views:
            button = TabButton(title)
            button.clicked.connect(lambda _checked=False, key=key: self.chosen.emit(key))
            group.addButton(button)
            self.buttons[key] = button
            row.addWidget(button)

    def set_current(self, key: str) -> None:
        """Show which view is on, without emitting."""
        self.buttons[key].setChecked(True)


class TabButton(FocusButton):
    """The name of a view, underlined while it is on."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setText(title)
        self.setAccessibleName(title)
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        theme.manager().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        width = QFontMetricsF(theme.font("title")).horizontalAdvance(self.text())
        return QSize(round(width) + 4, 26)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect, on = QRectF(self.rect()), self.isChecked()
        painter.setFont(theme.font("title"))
        painter.setPen(theme.color("text" if on or self.underMouse() else "muted"))
        painter.drawText(rect, _CENTRE, self.text())
        if on:
            painter.setPen(QPen(theme.color("accent"), 2))
            y = rect.bottom() - 1.5
            painter.drawLine(QPointF(rect.left() + 2, y), QPointF(rect.right() - 2, y))
        if self.keyboard_focus():
            painter.setPen(QPen(theme.color("accent"), 1))
            painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
