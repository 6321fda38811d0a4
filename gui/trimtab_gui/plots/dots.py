"""Shares by category as dots with their intervals, a line for each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPen, QWheelEvent
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, RIGHT, Figure
from trimtab_gui.plots.legend import draw_mark
from trimtab_gui.plots.scale import tick_texts, ticks
from trimtab_gui.widgets.paint import faded

#: the role of what a merge has to be better than
CONTROL = "control"
_ROW_LEAST, _AXIS, _DOT, _PAD = 17.0, 36.0, 3.6, 10.0


@dataclass(frozen=True)
class Dot:
    """A share with its 95 % interval, all 0 to 1; `greyed` where it must not be read."""

    value: float
    low: float
    high: float
    k: int
    n: int
    greyed: bool = False

    @property
    def text(self) -> str:
        """The share with its interval and counts, in percent."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.1f} % [{low:.1f}, {high:.1f}], {self.k} of {self.n}"


@dataclass(frozen=True)
class Series:
    """One target: a dot for each category, None where there is no data; controls are hollow."""

    name: str
    role: str
    index: int
    dots: tuple[Dot | None, ...]

    @property
    def colour(self) -> QColor:
        """The colour of its role."""
        return series_colour(self.role, self.index)

    @property
    def hollow(self) -> int | None:
        """Which outline a control is drawn with; None for a model of the lineup."""
        return self.index if self.role == CONTROL else None


def series_colour(role: str, index: int) -> QColor:
    """Return a role's colour, a quiet one for a control."""
    return theme.role_color(role, index) if role in theme.ROLES else theme.color("muted")


class DotPlot(Figure):
    """A click, or Enter on the row that the arrow keys mark, is ``category_chosen``."""

    category_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Shares by category"))
        self.categories: tuple[str, ...] = ()
        self.series: tuple[Series, ...] = ()
        self.x_label = ""
        self.marked = -1
        self._first = 0

    def set_data(
        self, categories: Sequence[str], series: Sequence[Series], x_label: str = ""
    ) -> None:
        """Show other data; ValueError where a target has not a place for each category."""
        if any(len(one.dots) != len(categories) for one in series):
            raise ValueError("a target needs a dot, or none, for each category")
        self.categories, self.series = tuple(categories), tuple(series)
        self.x_label = x_label
        self.marked, self._first = -1, 0
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each category and target, shares 0 to 1, nan where there is no data."""
        nan = float("nan")
        rows: list[list[str | float]] = []
        for j, category in enumerate(self.categories):
            for one in self.series:
                dot = one.dots[j]
                numbers = (
                    [nan, nan, nan, nan, 0.0] if dot is None
                    else [dot.value, dot.low, dot.high, float(dot.k), float(dot.n)]
                )  # fmt: skip
                greyed = float(dot is not None and dot.greyed)
                rows.append([category, one.name, *numbers, greyed])
        return ["category", "target", "share", "low", "high", "k", "n", "greyed out"], rows

    # Geometry.

    def _plot(self, rect: QRectF) -> QRectF:
        metrics = QFontMetricsF(theme.font("caption"))
        widest = max((metrics.horizontalAdvance(c) for c in self.categories), default=0.0)
        left = min(widest + 2 * _PAD, rect.width() * 0.38)
        return QRectF(left, 4, rect.width() - left - 16, rect.height() - _AXIS - 4)

    def _shown(self, rect: QRectF) -> tuple[int, int]:
        """Return the first row shown and how many there are room for."""
        # lines closer than these cannot be told apart
        least = max(_ROW_LEAST, 4.2 * len(self.series) + 3)
        room = max(int(self._plot(rect).height() / least), 1)
        count = min(room, len(self.categories))
        return min(self._first, len(self.categories) - count), count

    def row_rect(self, row: int) -> QRectF:
        """Return where a category is drawn, empty where it is scrolled out of sight."""
        rect = QRectF(self.rect())
        plot, (first, count) = self._plot(rect), self._shown(rect)
        if not first <= row < first + count:
            return QRectF()
        height = plot.height() / count
        return QRectF(plot.left(), plot.top() + (row - first) * height, plot.width(), height)

    def row_at(self, y: float) -> int:
        """Return the category at a height, -1 for none."""
        rows = range(len(self.categories))
        return next((j for j in rows if self.row_rect(j).contains(self.width() / 2, y)), -1)

    # Events.

    def tip(self, point: QPointF) -> str:
        row = self.row_at(point.y())
        if row < 0:
            return ""
        none = self.tr("no data")
        dots = [(one.name, one.dots[row]) for one in self.series]
        lines = [f"{name}: {none if dot is None else dot.text}" for name, dot in dots]
        return "\n".join([self.categories[row], *lines])

    def hover(self, point: QPointF | None) -> None:
        self._mark(-1 if point is None else self.row_at(point.y()))

    def _mark(self, row: int) -> None:
        if row != self.marked:
            self.marked = row
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = self.row_at(event.position().y())
        if row >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self.category_chosen.emit(self.categories[row])

    def wheelEvent(self, event: QWheelEvent) -> None:
        self._scroll(-1 if event.angleDelta().y() > 0 else 1)

    def _scroll(self, step: int) -> None:
        _, count = self._shown(QRectF(self.rect()))
        self._first = min(max(self._first + step, 0), len(self.categories) - count)
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, last = event.key(), len(self.categories) - 1
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and last >= 0:
            row = self.marked + (1 if key == Qt.Key.Key_Down else -1)
            self._mark(min(max(row, 0), last))
            first, count = self._shown(QRectF(self.rect()))
            if not first <= self.marked < first + count:
                self._scroll(self.marked - first if self.marked < first else 1)
            self.setToolTip("")
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and 0 <= self.marked <= last:
            self.category_chosen.emit(self.categories[self.marked])
        else:
            super().keyPressEvent(event)

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        if not self.categories:
            return
        plot = self._plot(rect)
        self._draw_axis(painter, plot)
        first, count = self._shown(rect)
        for row in range(first, first + count):
            self._draw_row(painter, row)
        hidden = len(self.categories) - count
        if hidden:
            text = self.tr("{count} more: scroll").format(count=hidden)
            painter.setPen(theme.color("muted"))
            box = QRectF(_PAD, plot.bottom() + 4, plot.left() - _PAD, 15)
            painter.drawText(box, LEFT, text)

    def _draw_axis(self, painter: QPainter, plot: QRectF) -> None:
        painter.setFont(theme.font("caption"))
        values = ticks(0, 100, 10 if plot.width() > 420 else 4)
        for value, text in zip(values, tick_texts(values), strict=True):
            x = plot.left() + plot.width() * value / 100
            painter.setPen(QPen(faded(theme.color("line"), 0.55), 1))
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
            painter.setPen(theme.color("muted"))
            painter.drawText(QRectF(x - 30, plot.bottom() + 4, 60, 14), CENTRE, text)
        box = QRectF(plot.left(), plot.bottom() + 19, plot.width(), 15)
        painter.drawText(box, CENTRE, self.x_label)

    def _draw_row(self, painter: QPainter, row: int) -> None:
        place = self.row_rect(row)
        if row == self.marked:
            whole = QRectF(0, place.top(), place.right() + 12, place.height())
            painter.fillRect(whole, faded(theme.color("line"), 0.45))
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("text"))
        metrics = QFontMetricsF(theme.font("caption"))
        room = place.left() - _PAD - 4
        text = metrics.elidedText(self.categories[row], Qt.TextElideMode.ElideRight, room)
        painter.drawText(QRectF(4, place.top(), room, place.height()), RIGHT, text)
        n = len(self.series)
        step = min(place.height() / (n + 0.6), 9.0)
        y = place.center().y() - step * (n - 1) / 2
        for one in self.series:
            self._draw_dot(painter, place, y, one, one.dots[row])
            y += step

    def _draw_dot(
        self, painter: QPainter, place: QRectF, y: float, one: Series, dot: Dot | None
    ) -> None:
        if dot is None:
            painter.setPen(QPen(faded(theme.color("muted"), 0.6), 1, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(place.left(), y), QPointF(place.left() + 26, y))
            return
        colour = faded(theme.color("muted"), 0.5) if dot.greyed else one.colour
        painter.setPen(QPen(colour, 1.4))
        left, width = place.left(), place.width()
        painter.drawLine(
            QPointF(left + width * dot.low, y), QPointF(left + width * dot.high, y)
        )  # fmt: skip
        at = QPointF(left + width * dot.value, y)
        if dot.greyed:  # crossed out by its own interval, as nothing else is
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(at, _DOT, _DOT)
        else:
            draw_mark(painter, at, _DOT, colour, one.hollow)
