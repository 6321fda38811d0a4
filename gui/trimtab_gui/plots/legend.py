"""The names of the curves, each after a dot in its colour."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme

_DOT = 4.0
_BETWEEN = 12.0


class Legend(QWidget):
    """One line of dots and names, right-aligned."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: list[tuple[str | QColor, str]] = []
        self._hollow: tuple[str, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        theme.manager().changed.connect(self.update)

    def set_entries(
        self, entries: list[tuple[str | QColor, str]], hollow: Sequence[str] = ()
    ) -> None:
        """Show tokens, roles or colours with their texts.

        The texts in `hollow` have marks that are not filled: a circle, the next ones a square.
        """
        self._entries, self._hollow = list(entries), tuple(hollow)
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
            shape = self._hollow.index(text) if text in self._hollow else None
            if spare < 0:
                text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
            width = metrics.horizontalAdvance(text)
            draw_mark(painter, QPointF(x + _DOT, middle), _DOT, _colour(key), shape)
            painter.setPen(theme.color("muted"))
            x += 2 * _DOT + 5
            painter.drawText(QRectF(x, 0, width + 2, self.height()), line, text)
            x += width + _BETWEEN


def draw_mark(
    painter: QPainter, at: QPointF, reach: float, colour: QColor, hollow: int | None = None
) -> None:
    """Draw a dot; where `hollow` is a number an outline: 0 is a circle, others are squares."""
    if hollow is None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        painter.drawEllipse(at, reach, reach)
        return
    painter.setPen(QPen(colour, 1.4))
    painter.setBrush(theme.color("panel"))
    inner = reach - 0.4
    if hollow == 0:
        painter.drawEllipse(at, inner, inner)
    else:
        inner *= 0.88
        painter.drawRect(QRectF(at.x() - inner, at.y() - inner, 2 * inner, 2 * inner))


def _colour(key: str | QColor) -> QColor:
    if isinstance(key, QColor):
        return key
    return theme.role_color(key) if key in theme.ROLES else theme.color(key)
