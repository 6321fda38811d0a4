"""Two shares against each other, a mark for each target with both its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.dots import CONTROL, Dot, series_colour
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, RIGHT, Figure
from trimtab_gui.plots.legend import draw_mark
from trimtab_gui.plots.scale import tick_texts, ticks
from trimtab_gui.widgets.paint import faded

_LEFT, _TOP, _RIGHT, _BOTTOM = 52.0, 10.0, 16.0, 38.0
_MARK, _REACH = 5.0, 12.0


@dataclass(frozen=True)
class Mark:
    """A target and its two shares; one that is greyed out, and a control, is drawn hollow."""

    name: str
    role: str
    index: int
    x: Dot
    y: Dot

    @property
    def colour(self) -> QColor:
        """The colour of its role."""
        if self.x.greyed or self.y.greyed:
            return theme.color("muted")
        return series_colour(self.role, self.index)


class ScatterPlot(Figure):
    """The arrow keys go from mark to mark; ``mark_chosen`` carries the name of one clicked."""

    mark_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Two shares against each other"))
        self.marks: tuple[Mark, ...] = ()
        self.x_label, self.y_label = "", ""
        self.marked = -1

    def set_data(self, marks: Sequence[Mark], x_label: str, y_label: str) -> None:
        """Show other marks."""
        self.marks, self.marked = tuple(marks), -1
        self.x_label, self.y_label = x_label, y_label
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each mark, shares 0 to 1."""
        head = ["target"]
        for axis in (self.x_label, self.y_label):
            head += [axis, f"{axis}, low", f"{axis}, high", f"{axis}, n"]
        rows: list[list[str | float]] = []
        for mark in self.marks:
            row: list[str | float] = [mark.name]
            for dot in (mark.x, mark.y):
                row += [dot.value, dot.low, dot.high, float(dot.n)]
            rows.append(row)
        return head, rows

    # Geometry.

    def _plot(self) -> QRectF:
        return QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)

    def place(self, x: float, y: float) -> QPointF:
        """Return the pixel of two shares."""
        plot = self._plot()
        return QPointF(plot.left() + plot.width() * x, plot.bottom() - plot.height() * y)

    def mark_at(self, point: QPointF) -> int:
        """Return the mark under a point, -1 for none."""
        best, reach = -1, _REACH
        for i, mark in enumerate(self.marks):
            gap = point - self.place(mark.x.value, mark.y.value)
            distance = float((gap.x() ** 2 + gap.y() ** 2) ** 0.5)
            if distance <= reach:
                best, reach = i, distance
        return best

    def reading(self, i: int) -> str:
        """Return what a mark says, in words."""
        mark = self.marks[i]
        return "\n".join(
            (mark.name, f"{self.x_label}: {mark.x.text}", f"{self.y_label}: {mark.y.text}")
        )

    # Events.

    def tip(self, point: QPointF) -> str:
        found = self.mark_at(point)
        return self.reading(found) if found >= 0 else ""

    def hover(self, point: QPointF | None) -> None:
        self._set_marked(-1 if point is None else self.mark_at(point))

    def _set_marked(self, i: int) -> None:
        if i != self.marked:
            self.marked = i
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        found = self.mark_at(event.position())
        if found >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self.mark_chosen.emit(self.marks[found].name)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        forward = key in (Qt.Key.Key_Right, Qt.Key.Key_Down)
        if self.marks and (forward or key in (Qt.Key.Key_Left, Qt.Key.Key_Up)):
            self._set_marked((self.marked + (1 if forward else -1)) % len(self.marks))
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.marked >= 0:
            self.mark_chosen.emit(self.marks[self.marked].name)
        else:
            super().keyPressEvent(event)

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        self._draw_axes(painter)
        order = sorted(range(len(self.marks)), key=lambda i: i == self.marked)
        for i in order:
            self._draw_mark(painter, self.marks[i], i == self.marked)
        taken: list[QRectF] = []
        for i in reversed(order):  # the one under the pointer is named first
            self._name(painter, self.marks[i], i == self.marked, taken)

    def _draw_axes(self, painter: QPainter) -> None:
        plot = self._plot()
        painter.setFont(theme.font("caption"))
        grid, muted = QPen(faded(theme.color("line"), 0.55), 1), theme.color("muted")
        values = ticks(0, 100, 4)
        for value, text in zip(values, tick_texts(values), strict=True):
            at = self.place(value / 100, value / 100)
            painter.setPen(grid)
            painter.drawLine(QPointF(at.x(), plot.top()), QPointF(at.x(), plot.bottom()))
            painter.drawLine(QPointF(plot.left(), at.y()), QPointF(plot.right(), at.y()))
            painter.setPen(muted)
            painter.drawText(QRectF(at.x() - 25, plot.bottom() + 7, 50, 14), CENTRE, text)
            painter.drawText(QRectF(plot.left() - 36, at.y() - 8, 27, 16), RIGHT, text)
        box = QRectF(plot.left(), plot.bottom() + 22, plot.width(), 15)
        painter.drawText(box, CENTRE, self.x_label)
        painter.save()
        painter.translate(9, plot.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-plot.height() / 2, -8, plot.height(), 16), CENTRE, self.y_label)
        painter.restore()

    def _draw_mark(self, painter: QPainter, mark: Mark, marked: bool) -> None:
        colour, at = mark.colour, self.place(mark.x.value, mark.y.value)
        painter.setPen(QPen(faded(colour, 0.7 if marked else 0.4), 1.2))
        painter.drawLine(
            self.place(mark.x.low, mark.y.value), self.place(mark.x.high, mark.y.value)
        )
        painter.drawLine(
            self.place(mark.x.value, mark.y.low), self.place(mark.x.value, mark.y.high)
        )
        size = _MARK + (1.5 if marked else 0)
        if mark.role == CONTROL and not (mark.x.greyed or mark.y.greyed):
            draw_mark(
                painter, at, size - 0.5, theme.color("text") if marked else colour, mark.index
            )
            return
        corners = [QPointF(0, -size), QPointF(size, 0), QPointF(0, size), QPointF(-size, 0)]
        painter.setPen(QPen(theme.color("text") if marked else colour, 1.4))
        hollow = mark.x.greyed or mark.y.greyed
        painter.setBrush(Qt.BrushStyle.NoBrush if hollow else colour)
        painter.drawPolygon(QPolygonF([at + corner for corner in corners]))

    def _name(self, painter: QPainter, mark: Mark, marked: bool, taken: list[QRectF]) -> None:
        """Write a name beside its mark where no other name stands already."""
        at = self.place(mark.x.value, mark.y.value)
        width = QFontMetricsF(theme.font("caption")).horizontalAdvance(mark.name) + 2
        right = QRectF(at.x() + 9, at.y() - 18, width, 15)
        left = right.translated(-18 - width, 0)
        for box in (right, left, right.translated(0, 22), left.translated(0, 22)):
            inside = QRectF(self.rect()).contains(box)
            if inside and not any(box.intersects(other) for other in taken):
                taken.append(box)
                painter.setFont(theme.font("caption"))
                painter.setPen(theme.color("text" if marked else "muted"))
                painter.drawText(box, LEFT, mark.name)
                return
