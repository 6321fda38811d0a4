"""The names of the curves, each after a dot in its colour."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme

_DOT = 4.0
_BETWEEN = 12.0


class Legend(QWidget):
    """One line of dots and names, right-aligned."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: list[tuple[str | QColor, str]] = []
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        theme.manager().changed.connect(self.update)

    def set_entries(self, entries: list[tuple[str | QColor, str]]) -> None:
        """Show tokens, roles or colours with their texts."""
        self._entries = list(entries)
        names = ", ".join(text for _, text in entries)
        self.setAccessibleName(names)
        self.setToolTip(names)
        self.updateGeometry()
        self.update()

    def colours(self) -> list[tuple[str, str]]:
        """Return ``#RRGGBB`` and text of each entry."""
        return [(_colour(key).name(), text) for key, text in self._entries]

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(theme.font("caption"))
        widths = [metrics.horizontalAdvance(text) + 2 * _DOT + 5 for _, text in self._entries]
        return QSize(round(sum(widths) + _BETWEEN * max(len(widths) - 1, 0)) + 2, 18)

    def minimumSizeHint(self) -> QSize:
        return QSize(0, 18)

    def _room(self, metrics: QFontMetricsF) -> float:
        """Return how wide a text may be: short ones leave their room to the long ones."""
        widths = sorted(metrics.horizontalAdvance(text) for _, text in self._entries)
        left = self.width() - len(widths) * (2 * _DOT + 5 + _BETWEEN) + _BETWEEN - 2
        for k, width in enumerate(widths):
            if width > left / (len(widths) - k):
                return left / (len(widths) - k)
            left -= width
        return left

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small = theme.font("caption")
        metrics = QFontMetricsF(small)
        painter.setFont(small)
        spare = self.width() - self.sizeHint().width()
        x = max(spare, 0) + 0.0
        room = self._room(metrics)
        middle = self.height() / 2
        line = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for key, text in self._entries:
            if spare < 0:
                text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
            width = metrics.horizontalAdvance(text)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(_colour(key))
            painter.drawEllipse(QPointF(x + _DOT, middle), _DOT, _DOT)
            painter.setPen(theme.color("muted"))
            x += 2 * _DOT + 5
            painter.drawText(QRectF(x, 0, width + 2, self.height()), line, text)
            x += width + _BETWEEN


def _colour(key: str | QColor) -> QColor:
    if isinstance(key, QColor):
        return key
    return theme.role_color(key) if key in theme.ROLES else theme.color(key)
