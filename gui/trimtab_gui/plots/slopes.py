"""Before and after, category by category: small plots of a few stations joined by their slopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFont, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPen, QWheelEvent
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.dots import CONTROL, Dot, series_colour
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, RIGHT, Figure
from trimtab_gui.plots.legend import draw_mark
from trimtab_gui.widgets.paint import faded

_AXIS, _FOOT, _GAP = 30.0, 20.0, 10.0
_WIDE_LEAST, _HIGH_LEAST, _TEXT = 106.0, 92.0, 32.0
#: plots wider than this look empty
_WIDE_MOST = 260.0
_DOT = 3.6


@dataclass(frozen=True)
class Station:
    """One of the models that the slopes go through: its name, role and place in its role."""

    name: str
    role: str
    index: int

    @property
    def hollow(self) -> int | None:
        """Which outline a control is drawn with; None for a model of the lineup."""
        return self.index if self.role == CONTROL else None


@dataclass(frozen=True)
class Slope:
    """One category: a dot at each station, and how the last two differ.

    `difference` is in percentage points with its interval, of the same prompts; `p` is McNemar's
    exact p value and `p_holm` the same corrected for the number of categories, both None where
    there are no independent pairs. `greyed` where it must not be read.
    """

    name: str
    dots: tuple[Dot | None, ...]
    difference: tuple[float, float, float] | None = None
    pairs: int = 0
    p: float | None = None
    p_holm: float | None = None
    greyed: bool = False

    @property
    def marked(self) -> bool:
        """Whether the change is larger than chance makes one in 20 times, corrected where it is."""
        p = self.p if self.p_holm is None else self.p_holm
        return not self.greyed and p is not None and p < 0.05

    @property
    def words(self) -> str:
        """The difference and its p value, as people write them."""
        if self.difference is None:
            return "no pairs"
        points = f"{self.difference[0]:+.0f}".replace("-", "−")
        p = self.p if self.p_holm is None else self.p_holm
        return f"{'±0' if points in ('+0', '−0') else points} · {p_words(p, self.p_holm)}"


def p_words(p: float | None, holm: float | None = None) -> str:
    """Return a p value as people write it; with an H where it is corrected after Holm."""
    if p is None:
        return "p unknown"
    sign = "p" if holm is None else "pH"
    return f"{sign} < 0.001" if p < 0.001 else f"{sign} = {p:.3f}".rstrip("0").rstrip(".")


class SlopePlot(Figure):
    """A click, or Enter on the plot that the arrow keys mark, is ``category_chosen``."""

    category_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Before and after, by category"))
        self.stations: tuple[Station, ...] = ()
        self.slopes: tuple[Slope, ...] = ()
        self.marked = -1
        self._first = 0

    def set_data(self, stations: Sequence[Station], slopes: Sequence[Slope]) -> None:
        """Show other slopes; ValueError where one has not a place for each station."""
        if any(len(slope.dots) != len(stations) for slope in slopes):
            raise ValueError("a slope needs a dot, or none, for each station")
        self.stations, self.slopes = tuple(stations), tuple(slopes)
        self.marked, self._first = -1, 0
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each category and station, with the difference of the last two."""
        nan = float("nan")
        rows: list[list[str | float]] = []
        for slope in self.slopes:
            change = slope.difference or (nan, nan, nan)
            tests = [nan if p is None else p for p in (slope.p, slope.p_holm)]
            for station, dot in zip(self.stations, slope.dots, strict=True):
                share = [nan] * 3 if dot is None else [dot.value, dot.low, dot.high]
                n = 0.0 if dot is None else float(dot.n)
                row: list[str | float] = [slope.name, station.name, *share, n, *change]
                rows.append([*row, float(slope.pairs), *tests, float(slope.greyed)])
        head = [
            "category", "target", "share", "low", "high", "n", "difference in points",
            "difference low", "difference high", "pairs", "McNemar p", "Holm p", "greyed out",
        ]  # fmt: skip
        return head, rows

    # Geometry.

    def _grid(self) -> tuple[int, int]:
        """Return how many plots stand beside each other, and how many rows there is room for.

        As few columns as all of them need, so that each is as wide as it can be.
        """
        count = max(len(self.slopes), 1)
        room = max(int((self.width() - _AXIS + _GAP) / (_WIDE_LEAST + _GAP)), 1)
        most = max(int((self.height() - _FOOT + _GAP) / (_HIGH_LEAST + _GAP)), 1)
        least = max(int((self.width() - _AXIS) / _WIDE_MOST), 1)
        columns = min(max(least, -(-count // most)), room, count)
        return columns, min(most, -(-count // columns))

    def _shown(self) -> range:
        """Return the plots that are in sight."""
        columns, rows = self._grid()
        all_rows = -(-len(self.slopes) // columns)
        first = min(self._first, max(all_rows - rows, 0))
        return range(first * columns, min((first + rows) * columns, len(self.slopes)))

    def slope_rect(self, place: int) -> QRectF:
        """Return where a category is drawn, empty where it is scrolled out of sight."""
        shown = self._shown()
        if place not in shown:
            return QRectF()
        columns, rows = self._grid()
        width = (self.width() - _AXIS - _GAP * (columns - 1) - 4) / columns
        foot = _FOOT if len(shown) < len(self.slopes) else 4.0
        height = (self.height() - foot - _GAP * (rows - 1)) / rows
        row, column = divmod(place - shown.start, columns)
        return QRectF(_AXIS + column * (width + _GAP), row * (height + _GAP), width, height)

    def slope_at(self, point: QPointF) -> int:
        """Return the category at a point, -1 for none."""
        return next((i for i in self._shown() if self.slope_rect(i).contains(point)), -1)

    # Events.

    def tip(self, point: QPointF) -> str:
        found = self.slope_at(point)
        return self.reading(found) if found >= 0 else ""

    def reading(self, place: int) -> str:
        """Return what a category says, in words."""
        slope = self.slopes[place]
        none = self.tr("no data")
        lines = [
            f"{station.name}: {none if dot is None else dot.text}"
            for station, dot in zip(self.stations, slope.dots, strict=True)
        ]
        if slope.difference is not None:
            value, low, high = slope.difference
            told = self.tr("{before} to {after}: {value:+.1f} points [{low:.1f}, {high:.1f}], "
                           "{n} pairs").format(
                before=self.stations[-2].name, after=self.stations[-1].name, value=value, low=low,
                high=high, n=slope.pairs,
            )  # fmt: skip
            lines.append(told.replace("-", "−"))
            lines.append(f"McNemar {p_words(slope.p)}")
        if slope.p_holm is not None:
            lines.append(self.tr("corrected after Holm: {p}").format(p=p_words(slope.p_holm)))
        if slope.greyed:
            lines.append(self.tr("not to be read: a model fails the coherence guard"))
        return "\n".join([slope.name, *lines])

    def hover(self, point: QPointF | None) -> None:
        self._mark(-1 if point is None else self.slope_at(point))

    def _mark(self, place: int) -> None:
        if place != self.marked:
            self.marked = place
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        found = self.slope_at(event.position())
        if found >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self.category_chosen.emit(self.slopes[found].name)

    def wheelEvent(self, event: QWheelEvent) -> None:
        self._scroll(-1 if event.angleDelta().y() > 0 else 1)

    def _scroll(self, step: int) -> None:
        columns, rows = self._grid()
        most = max(-(-len(self.slopes) // columns) - rows, 0)
        self._first = min(max(self._first + step, 0), most)
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        columns, rows = self._grid()
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Up: -columns,
                 Qt.Key.Key_Down: columns}  # fmt: skip
        step = steps.get(Qt.Key(event.key()))
        last = len(self.slopes) - 1
        if step is not None and last >= 0:
            self._mark(min(max(self.marked + step if self.marked >= 0 else 0, 0), last))
            row = self.marked // columns
            self._first = min(max(self._first, row - rows + 1), row)
            self.update()
            self.setToolTip(self.reading(self.marked))
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and 0 <= self.marked <= last:
            self.category_chosen.emit(self.slopes[self.marked].name)
        else:
            super().keyPressEvent(event)

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        shown, (columns, _) = self._shown(), self._grid()
        for i in shown:
            self._draw_slope(painter, i, axis=(i - shown.start) % columns == 0)
        hidden = len(self.slopes) - len(shown)
        if hidden:
            painter.setFont(theme.font("caption"))
            painter.setPen(theme.color("muted"))
            box = QRectF(_AXIS, rect.bottom() - _FOOT + 2, rect.width() - _AXIS, 16)
            painter.drawText(box, LEFT, self.tr("{count} more: scroll").format(count=hidden))

    def _draw_slope(self, painter: QPainter, place: int, axis: bool) -> None:
        slope, rect = self.slopes[place], self.slope_rect(place)
        if place == self.marked:
            painter.fillRect(rect.adjusted(-4, 0, 4, 0), faded(theme.color("line"), 0.45))
        small = theme.font("caption")
        metrics = QFontMetricsF(small)
        mode = Qt.TextElideMode.ElideRight
        painter.setFont(small)
        painter.setPen(theme.color("text"))
        name = metrics.elidedText(slope.name, mode, rect.width())
        painter.drawText(QRectF(rect.left(), rect.top(), rect.width(), 15), LEFT, name)
        figures = theme.font("small_number")
        if slope.marked:
            figures.setWeight(QFont.Weight.DemiBold)
        painter.setFont(figures)
        painter.setPen(theme.color("text" if slope.marked else "muted"))
        words = QFontMetricsF(figures).elidedText(slope.words, mode, rect.width())
        painter.drawText(QRectF(rect.left(), rect.top() + 15, rect.width(), 15), LEFT, words)
        plot = rect.adjusted(0, _TEXT + 4, 0, -5)
        painter.setFont(small)
        for share in (0.0, 0.5, 1.0):
            y = plot.bottom() - share * plot.height()
            painter.setPen(QPen(faded(theme.color("line"), 0.6), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            if axis:
                painter.setPen(theme.color("muted"))
                box = QRectF(0, y - 8, _AXIS - 6, 16)
                painter.drawText(box, RIGHT, f"{100 * share:.0f}")
        self._draw_line(painter, plot, slope)

    def _draw_line(self, painter: QPainter, plot: QRectF, slope: Slope) -> None:
        count = len(self.stations)
        inset = min(plot.width() * 0.16, 34.0)
        step = (plot.width() - 2 * inset) / max(count - 1, 1)

        def at(i: int, share: float) -> QPointF:
            return QPointF(plot.left() + inset + i * step, plot.bottom() - share * plot.height())

        for i in range(count - 1):
            first, second = slope.dots[i], slope.dots[i + 1]
            if first is None or second is None:
                continue
            last = i == count - 2  # the two that are tested against each other
            colour = theme.color("text") if last and slope.marked else theme.color("muted")
            style = Qt.PenStyle.SolidLine if last else Qt.PenStyle.DotLine
            painter.setPen(QPen(faded(colour, 0.75 if last else 0.6), 1.4, style))
            painter.drawLine(at(i, first.value), at(i + 1, second.value))
        for i, (station, dot) in enumerate(zip(self.stations, slope.dots, strict=True)):
            if dot is None:
                painter.setPen(theme.color("muted"))
                box = QRectF(at(i, 0.0).x() - 20, plot.bottom() - 17, 40, 15)
                painter.drawText(box, CENTRE, "–")
                continue
            colour = series_colour(station.role, station.index)
            if dot.greyed:
                colour = faded(theme.color("muted"), 0.5)
            painter.setPen(QPen(colour, 1.4))
            painter.drawLine(at(i, dot.low), at(i, dot.high))
            outline = 0 if dot.greyed else station.hollow
            draw_mark(painter, at(i, dot.value), _DOT, colour, outline)
