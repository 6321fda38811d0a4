"""Titles of panels that share a place: a click on the other one goes there."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.paint import card, transparent


class TitleSwitch(QWidget):
    """Stands where a panel has its title, and shows its own one as on; ``chosen`` carries a key."""

    chosen = Signal(str)

    def __init__(
        self, titles: Mapping[str, str], current: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(12)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.buttons: dict[str, TitleButton] = {}
        for key, title in titles.items():
            button = TitleButton(title, key == current)
            button.clicked.connect(lambda _checked=False, key=key: self.chosen.emit(key))
            self.buttons[key] = button
            row.addWidget(button)


class TitleButton(FocusButton):
    """A title in capitals, underlined where it is on."""

    def __init__(self, title: str, on: bool) -> None:
        super().__init__()
        self._on = on
        self.setText(title)
        self.setAccessibleName(self.tr("{title}, shown").format(title=title) if on else title)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        if not on:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
        theme.manager().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(theme.font("caps"))
        # as high as a panel's title, which it stands for: capitals leave room for a line below
        return QSize(metrics.horizontalAdvance(self.text()), metrics.height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        rect = QRectF(self.rect())
        if self.keyboard_focus():
            card(painter, rect, 3, transparent(), theme.color("accent"))
        painter.setFont(theme.font("caps"))
        painter.setPen(theme.color("text" if self._on or self.underMouse() else "muted"))
        painter.drawText(rect.adjusted(0, 0, 2, 0), Qt.AlignmentFlag.AlignVCenter, self.text())
        if self._on:
            line = QRectF(0, rect.bottom() - 1.5, rect.width() - 1, 1.5)
            painter.fillRect(line, theme.color("text"))
