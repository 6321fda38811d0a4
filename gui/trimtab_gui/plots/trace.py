"""A curve that grows while something is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, RIGHT, Figure
from trimtab_gui.plots.scale import number, tick_texts, ticks
from trimtab_gui.widgets.paint import faded

_LEFT, _TOP, _RIGHT, _BOTTOM = 34.0, 6.0, 14.0, 20.0


class TracePlot(Figure):
    """Values over steps; the axis runs to the last step that is planned."""

    def __init__(self, name: str, role: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self._name, self._role = name, role
        self.steps: tuple[int, ...] = ()
        self.values: tuple[float, ...] = ()
        self._last = 1
        self.setMinimumHeight(72)

    def set_values(self, steps: Sequence[int], values: Sequence[float], last: int) -> None:
        """Show a value for each step; ``last`` is where the axis ends."""
        self.steps, self.values, self._last = tuple(steps), tuple(values), max(last, 1)
        if self.values:
            self.set_summary(
                self.tr("{name}: {first} at step {a}, {now} at step {b} of {all}").format(
                    name=self._name, first=number(self.values[0]), now=number(self.values[-1]),
                    a=self.steps[0], b=self.steps[-1], all=last,
                )
            )  # fmt: skip
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each step."""
        rows = [[float(a), b] for a, b in zip(self.steps, self.values, strict=True)]
        return ["step", self._name], rows

    def _limits(self) -> tuple[float, float]:
        if not self.values:
            return 0.0, 1.0
        low, high = min(0.0, *self.values), max(0.0, *self.values)
        return low, high if high > low else low + 1.0

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        plot = QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)
        low, high = self._limits()

        def place(step: float, value: float) -> QPointF:
            x = plot.left() + step / self._last * plot.width()
            return QPointF(x, plot.bottom() - (value - low) / (high - low) * plot.height())

        painter.setFont(theme.font("caption"))
        marks = ticks(low, high, 3)
        for value, text in zip(marks, tick_texts(marks), strict=True):
            y = round(place(0, value).y()) + 0.5
            painter.setPen(QPen(faded(theme.color("line"), 0.6), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(theme.color("muted"))
            painter.drawText(QRectF(0, y - 8, plot.left() - 6, 16), RIGHT, text)
        painter.setPen(theme.color("muted"))
        for step in ticks(0, self._last, 3):
            x = place(step, low).x()
            painter.drawText(QRectF(x - 24, plot.bottom() + 3, 48, 14), CENTRE, f"{step:g}")
        if self.values:
            painter.setPen(QPen(theme.role_color(self._role), 1.4))
            steps, values = np.array(self.steps), np.array(self.values)
            most = max(int(plot.width()), 2)
            if steps.size > 2 * most:  # no more points than can be told apart
                chosen = np.linspace(0, steps.size - 1, 2 * most).astype(int)
                steps, values = steps[chosen], values[chosen]
            painter.drawPolyline(
                QPolygonF([place(float(a), float(b)) for a, b in zip(steps, values, strict=True)])
            )
