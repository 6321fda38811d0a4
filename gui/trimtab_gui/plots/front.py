"""The trials of a search by two of its objectives, with the front that none of them beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, RIGHT, Figure
from trimtab_gui.plots.scale import number, tick_texts, ticks
from trimtab_gui.widgets.paint import faded

_LEFT, _TOP, _RIGHT, _BOTTOM = 52.0, 24.0, 16.0, 38.0
_REACH = 9.0


@dataclass(frozen=True)
class Spot:
    """A point of the plot; `kind` is trial, front or baseline, `key` what its owner knows it by.

    `role` colours a baseline. Only what has a `recipe` can be loaded. `note` is said under it.
    """

    key: int
    name: str
    x: float
    y: float
    kind: str
    role: str = ""
    feasible: bool = True
    recipe: bool = False
    note: str = ""


class FrontPlot(Figure):
    """``spot_chosen`` carries the key of one clicked, or of the one that Enter takes."""

    spot_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Pareto front"))
        self.spots: tuple[Spot, ...] = ()
        self.x_label, self.y_label, self.caption = "", "", ""
        self.marked = -1
        self._range = QRectF(0, 0, 1, 1)

    def set_data(
        self,
        spots: Sequence[Spot],
        x_label: str,
        y_label: str,
        percent: tuple[bool, bool] = (False, False),
        caption: str = "",
    ) -> None:
        """Show other points; what the pointer marks stays marked while a search grows.

        An axis of which `percent` says so shows all of 0 to 100, another one what there is.
        """
        self.caption = caption
        kept = self.spots[self.marked].key if 0 <= self.marked < len(self.spots) else None
        self.spots = tuple(spots)
        self.x_label, self.y_label = x_label, y_label
        keys = [spot.key for spot in self.spots]
        self.marked = keys.index(kept) if kept in keys else -1
        self._range = _range(self.spots, percent)
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each point."""
        rows: list[list[str | float]] = [
            [s.name, s.kind, s.x, s.y, float(s.feasible)] for s in self.spots
        ]
        return ["name", "kind", self.x_label, self.y_label, "feasible"], rows

    # Geometry.

    def _plot(self) -> QRectF:
        return QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)

    def place(self, x: float, y: float) -> QPointF:
        """Return the pixel of two values."""
        plot, shown = self._plot(), self._range
        return QPointF(
            plot.left() + plot.width() * (x - shown.left()) / shown.width(),
            plot.bottom() - plot.height() * (y - shown.top()) / shown.height(),
        )

    def spot_at(self, point: QPointF) -> int:
        """Return the nearest point within reach, the front's before a trial's; -1 for none."""
        found = [
            (s.kind == "trial", math.dist(point.toTuple(), self.place(s.x, s.y).toTuple()), i)
            for i, s in enumerate(self.spots)
        ]
        near = [entry for entry in found if entry[1] <= _REACH]
        return min(near)[2] if near else -1

    def reading(self, i: int) -> str:
        """Return what a point says, in words."""
        spot = self.spots[i]
        lines = [
            spot.name,
            f"{self.x_label}: {number(spot.x)}",
            f"{self.y_label}: {number(spot.y)}",
        ]
        if not spot.feasible:
            lines.append(self.tr("breaks a constraint"))
        if spot.note:
            lines.append(spot.note)
        if spot.recipe:
            lines.append(self.tr("Click to load its recipe."))
        return "\n".join(lines)

    # Events.

    def tip(self, point: QPointF) -> str:
        found = self.spot_at(point)
        return self.reading(found) if found >= 0 else ""

    def hover(self, point: QPointF | None) -> None:
        self._mark(-1 if point is None else self.spot_at(point))

    def _mark(self, i: int) -> None:
        if i != self.marked:
            self.marked = i
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._choose(self.spot_at(event.position()))

    def _choose(self, i: int) -> None:
        if i >= 0 and self.spots[i].recipe:
            self.spot_chosen.emit(self.spots[i].key)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        line = sorted(
            (i for i, s in enumerate(self.spots) if s.recipe), key=lambda i: self.spots[i].x
        )
        forward = key in (Qt.Key.Key_Right, Qt.Key.Key_Down)
        if line and (forward or key in (Qt.Key.Key_Left, Qt.Key.Key_Up)):
            at = line.index(self.marked) if self.marked in line else (-1 if forward else 0)
            self._mark(line[(at + (1 if forward else -1)) % len(line)])
            self.setToolTip(self.reading(self.marked))
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._choose(self.marked)
        else:
            super().keyPressEvent(event)

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        self._draw_axes(painter)
        line = sorted((s for s in self.spots if s.kind == "front"), key=lambda s: (s.x, s.y))
        painter.setPen(QPen(theme.color("merged"), 1.4))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF([self.place(s.x, s.y) for s in line]))
        order = {"trial": 0, "baseline": 1, "front": 2}
        for spot in sorted(self.spots, key=lambda s: order[s.kind]):
            self._draw_spot(painter, spot, 1.0)
        if 0 <= self.marked < len(self.spots):
            self._draw_spot(painter, self.spots[self.marked], 1.5)
            self._name(painter, self.spots[self.marked])

    def _draw_axes(self, painter: QPainter) -> None:
        plot, shown = self._plot(), self._range
        painter.setFont(theme.font("caption"))
        grid, muted = QPen(faded(theme.color("line"), 0.55), 1), theme.color("muted")
        values = ticks(shown.left(), shown.right(), 5)
        for value, text in zip(values, tick_texts(values), strict=True):
            x = self.place(value, shown.top()).x()
            painter.setPen(grid)
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
            painter.setPen(muted)
            painter.drawText(QRectF(x - 25, plot.bottom() + 7, 50, 14), CENTRE, text)
        values = ticks(shown.top(), shown.bottom(), 5)
        for value, text in zip(values, tick_texts(values), strict=True):
            y = self.place(shown.left(), value).y()
            painter.setPen(grid)
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(muted)
            painter.drawText(QRectF(plot.left() - 36, y - 8, 27, 16), RIGHT, text)
        painter.drawText(QRectF(plot.left(), 2, plot.width(), 15), RIGHT, self.caption)
        box = QRectF(plot.left(), plot.bottom() + 22, plot.width(), 15)
        painter.drawText(box, CENTRE, self.x_label)
        painter.save()
        painter.translate(9, plot.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-plot.height() / 2, -8, plot.height(), 16), CENTRE, self.y_label)
        painter.restore()

    def _draw_spot(self, painter: QPainter, spot: Spot, scale: float) -> None:
        at = self.place(spot.x, spot.y)
        if spot.kind == "baseline":
            known = spot.role in theme.ROLES
            colour = theme.role_color(spot.role) if known else theme.color("muted")
            corners = [QPointF(0, -5.5), QPointF(5.5, 0), QPointF(0, 5.5), QPointF(-5.5, 0)]
            self._pen(painter, colour, True)
            painter.drawPolygon(QPolygonF([at + corner * scale for corner in corners]))
            return
        front = spot.kind == "front"
        colour = theme.color("merged") if front else faded(theme.color("muted"), 0.55)
        self._pen(painter, colour, spot.feasible)
        size = (4.2 if front else 3.0) * scale
        painter.drawEllipse(at, size, size)

    def _pen(self, painter: QPainter, colour: QColor, filled: bool) -> None:
        painter.setPen(QPen(colour, 1.2))
        painter.setBrush(colour if filled else Qt.BrushStyle.NoBrush)

    def _name(self, painter: QPainter, spot: Spot) -> None:
        at = self.place(spot.x, spot.y)
        width = QFontMetricsF(theme.font("caption")).horizontalAdvance(spot.name) + 2
        left = at.x() + 10 if at.x() + 10 + width <= self.width() else at.x() - 10 - width
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("text"))
        painter.drawText(QRectF(left, max(at.y() - 18, 0), width, 15), LEFT, spot.name)


def _range(spots: Sequence[Spot], percent: tuple[bool, bool]) -> QRectF:
    """Return what is shown, with a little room around it."""

    def span(values: list[float], whole: bool) -> tuple[float, float]:
        low, high = min(values, default=0.0), max(values, default=1.0)
        if whole:
            low, high = 0.0, 100.0
        room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
        return low - room, high + room

    left, right = span([s.x for s in spots], percent[0])
    low, high = span([s.y for s in spots], percent[1])
    return QRectF(left, low, right - left, high - low)
