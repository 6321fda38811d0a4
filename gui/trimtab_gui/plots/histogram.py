"""How scores are spread, with a threshold that is dragged and the share that stays beyond it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import QWidget

from trimtab.formatting import count
from trimtab_gui import texts, theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, RIGHT, Figure
from trimtab_gui.plots.scale import number, tick_texts, ticks
from trimtab_gui.widgets.paint import faded

Floats = npt.NDArray[np.float64]
_LEFT, _TOP, _RIGHT, _BOTTOM = 54.0, 16.0, 14.0, 42.0
_REACH = 7.0
_GOES, _STAYS = 0.22, 0.62


class HistogramPlot(Figure):
    """``moved`` follows the threshold under the hand, ``released`` when it is let go.

    The arrow keys move it by a bin, and Return lets go. What is at or above it is kept, or with
    `removes` goes.
    """

    moved = Signal(float)
    released = Signal(float)

    def __init__(self, caption: str = "", parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Histogram of scores"))
        self.caption = caption
        self.role = "aligned"
        self.edges: Floats = np.zeros(1)
        self.counts: Floats = np.zeros(0)
        self.below = 0.0
        self.logarithmic = False
        self.threshold: float | None = None
        self.draggable = True
        self.removes = False
        self._dragging = False

    # What is shown.

    def set_data(
        self, edges: Floats, counts: Floats, *, below: float = 0.0, logarithmic: bool = False
    ) -> None:
        """Show float64 ``counts`` [n] between ``edges`` [n + 1]; ``below`` are under them all.

        ValueError when the lengths do not fit. A threshold outside goes away.
        """
        if edges.shape != (counts.size + 1,):
            raise ValueError("counts need one edge more than there are")
        self.edges, self.counts, self.below = edges, counts, below
        self.logarithmic = logarithmic
        if self.threshold is not None and not edges[0] <= self.threshold <= edges[-1]:
            self.threshold = None
        self._describe()
        self.update()

    def set_threshold(self, value: float | None) -> None:
        """Move the threshold without emitting; None for none."""
        self.threshold = value
        self._describe()
        self.update()

    def kept(self, threshold: float) -> float:
        """Return the share of entries that a threshold keeps, even within the bin it cuts."""
        total = float(self.counts.sum()) + self.below
        if not total:
            return 1.0
        where = np.array([self._position(edge) for edge in self.edges])
        cumulated = np.concatenate([[0.0], np.cumsum(self.counts)])
        under = float(np.interp(self._position(threshold), where, cumulated))
        reached = (float(self.counts.sum()) - under) / total
        return 1 - reached if self.removes else reached

    def heights(self) -> Floats:
        """Return how high the bars are: the counts; on a logarithmic axis those of ⅛ octave.

        Bins that are not as wide there as others would else stand out without being denser.
        """
        if not self.logarithmic or not self.counts.size:
            return self.counts
        octaves: Floats = np.diff(np.log2(self.edges))
        return self.counts / (8 * octaves)

    def _describe(self) -> None:
        total = float(self.counts.sum()) + self.below
        text = self.tr("{n} entries").format(n=count(int(total)))
        if self.threshold is not None:
            text += self.tr("; threshold {value} keeps {share}").format(
                value=number(self.threshold), share=texts.percent(self.kept(self.threshold))
            )
        self.set_summary(text)

    def csv_table(self) -> Table:
        """Return a row for each bin: its bounds and its count."""
        rows: list[list[str | float]] = [
            [float(low), float(high), float(n)]
            for low, high, n in zip(self.edges[:-1], self.edges[1:], self.counts, strict=True)
        ]
        return ["low", "high", "entries"], rows

    # Geometry.

    def _plot(self) -> QRectF:
        return QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)

    def _position(self, value: float) -> float:
        """Return where a score lies between the first edge, 0, and the last, 1."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.logarithmic:
            low, high = math.log(low), math.log(high)
            value = math.log(max(value, 1e-300))
        return (value - low) / (high - low) if high > low else 0.0

    def _value(self, position: float) -> float:
        low, high = float(self.edges[0]), float(self.edges[-1])
        position = min(max(position, 0.0), 1.0)
        if self.logarithmic:
            return float(low * (high / low) ** position)
        return low + position * (high - low)

    def x_px(self, value: float) -> float:
        """Return the pixel of a score."""
        plot = self._plot()
        return plot.left() + self._position(value) * plot.width()

    # Gestures.

    def mousePressEvent(self, event: QMouseEvent) -> None:
        takes = self.draggable and self.counts.size and event.button() == Qt.MouseButton.LeftButton
        if takes and self._plot().adjusted(-6, -8, 6, 8).contains(event.position()):
            self._dragging = True
            self._drag_to(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._dragging:
            self._drag_to(event.position().x())
            return
        near = (
            self.threshold is not None
            and self.draggable
            and abs(self.x_px(self.threshold) - event.position().x()) <= _REACH
        )
        self.setCursor(Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.ArrowCursor)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self._dragging:
            self._dragging = False
            if self.threshold is not None:  # other scores may have come under the hand
                self.released.emit(self.threshold)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        key = Qt.Key(event.key())
        if not self.draggable or not self.counts.size:
            super().keyPressEvent(event)
        elif key in steps:
            here = 0.5 if self.threshold is None else self._position(self.threshold)
            bins = self.counts.size
            self._move_to(self._value((round(here * bins) + steps[key]) / bins))
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.threshold is not None:
            self.released.emit(self.threshold)
        else:
            super().keyPressEvent(event)

    def _drag_to(self, x: float) -> None:
        plot = self._plot()
        self._move_to(self._value((x - plot.left()) / max(plot.width(), 1.0)))

    def _move_to(self, value: float) -> None:
        self.set_threshold(value)
        self.moved.emit(value)

    def tip(self, point: QPointF) -> str:
        plot = self._plot()
        if not self.counts.size or not plot.contains(point):
            return ""
        value = self._value((point.x() - plot.left()) / plot.width())
        k = int(np.clip(np.searchsorted(self.edges, value, "right") - 1, 0, self.counts.size - 1))
        return self.tr("{low} to {high}: {n} entries").format(
            low=number(float(self.edges[k])), high=number(float(self.edges[k + 1])),
            n=count(int(self.counts[k])),
        )  # fmt: skip

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        plot = self._plot()
        heights = self.heights()
        top = float(heights.max(initial=0.0)) or 1.0
        self._draw_axes(painter, plot, top)
        painter.setPen(Qt.PenStyle.NoPen)
        colour = theme.role_color(self.role)
        # what goes is fainter than what stays
        below, above = (_STAYS, _GOES) if self.removes else (_GOES, _STAYS)
        nothing = math.inf if self.removes else -math.inf
        cut = nothing if self.threshold is None else self.x_px(self.threshold)
        for low, high, n in zip(self.edges[:-1], self.edges[1:], heights, strict=True):
            left, right = self.x_px(float(low)), self.x_px(float(high))
            height = float(n) / (top * 1.05) * plot.height()
            under, over = (left, min(right, cut)), (max(left, cut), right)
            for (start, end), alpha in ((under, below), (over, above)):
                if end > start:
                    box = QRectF(start, plot.bottom() - height, end - start + 0.4, height)
                    painter.fillRect(box, faded(colour, alpha))
        if self.threshold is not None:
            self._draw_threshold(painter, plot)

    def _draw_threshold(self, painter: QPainter, plot: QRectF) -> None:
        assert self.threshold is not None
        x = round(self.x_px(self.threshold)) + 0.5
        painter.setPen(QPen(theme.color("text"), 1.4))
        painter.drawLine(QPointF(x, plot.top() - 4), QPointF(x, plot.bottom()))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("text"))
        painter.drawEllipse(QPointF(x, plot.top() - 4), 3.5, 3.5)
        painter.setFont(theme.font("small_number"))
        painter.setPen(theme.color("text"))
        text = number(self.threshold)
        share = self.tr("keeps {share}").format(share=texts.percent(self.kept(self.threshold)))
        metrics = QFontMetricsF(painter.font())
        width = max(metrics.horizontalAdvance(part) for part in (text, share)) + 8
        at_left = x + 4 + width > plot.right()
        box = QRectF(x - 4 - width if at_left else x + 4, plot.top() - 4, width, 33)
        painter.fillRect(box, faded(theme.color("panel"), 0.8))  # to be read on bars as well
        side, box = (RIGHT if at_left else LEFT), box.adjusted(4, 2, -4, 0)
        painter.drawText(QRectF(box.left(), box.top(), box.width(), 15), side, text)
        painter.drawText(QRectF(box.left(), box.top() + 15, box.width(), 15), side, share)

    def _draw_axes(self, painter: QPainter, plot: QRectF, top: float) -> None:
        painter.setFont(theme.font("caption"))
        values = ticks(0.0, top, 4)
        for value in values:
            y = round(plot.bottom() - value / (top * 1.05) * plot.height()) + 0.5
            painter.setPen(QPen(faded(theme.color("line"), 0.6), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(theme.color("muted"))
            text = count(int(value)) if top >= 10 else number(value)
            painter.drawText(QRectF(0, y - 8, plot.left() - 6, 16), RIGHT, text)
        painter.setPen(theme.color("muted"))
        if self.logarithmic:
            box = QRectF(plot.left() - 48, plot.top() - 12, 160, 14)
            painter.drawText(box, LEFT, self.tr("entries in ⅛ octave"))
        for value, text in self._marks():
            at = self.x_px(value)
            painter.drawText(QRectF(at - 30, plot.bottom() + 4, 60, 14), CENTRE, text)
        box = QRectF(plot.left(), plot.bottom() + 21, plot.width(), 15)
        painter.drawText(box, CENTRE, self.caption)

    def _marks(self) -> list[tuple[float, str]]:
        if not self.counts.size:
            return []
        if not self.logarithmic:
            values = ticks(float(self.edges[0]), float(self.edges[-1]), 5)
            return list(zip(values, tick_texts(values), strict=True))
        low = math.ceil(math.log10(float(self.edges[0])))
        high = math.floor(math.log10(float(self.edges[-1])))
        step = max((high - low) // 6 + 1, 1)
        powers = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        return [(10.0**k, "10" + str(k).translate(powers)) for k in range(low, high + 1, step)]
