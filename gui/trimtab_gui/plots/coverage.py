"""What was looked at: risk domains by ways of asking, where nothing asked is never green."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QPainter, QPen, QResizeEvent
from PySide6.QtWidgets import QWidget

from trimtab.evaluation.coverage import Column, Coverage, Facet
from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, Figure
from trimtab_gui.widgets.paint import faded

_CAPS, _HEAD, _GAP, _BETWEEN = 17.0, 34.0, 2.0, 7.0
_CELL_LEAST, _TEXT_LEAST, _TEXT_SHARE = 30.0, 90.0, 0.3
_FULL = 60
BELOW = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
#: heads as they fit above a narrow column, cut where people would
_HYPHENS = {
    "jailbreak": "jail-\nbreak", "lookalike": "look-\nalike", "one turn": "one",
    "several turns": "more",
    "other languages": "other",
}  # fmt: skip


class CoverageMatrix(Figure):
    """Cells hold how many prompts were asked; the arrow keys move a cursor that reads the same.

    Columns stand in groups, one for each facet of how a prompt is asked. Of all facets those are
    drawn that there is room for, the first ones first; ``fitted`` says that these are others now.
    """

    fitted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Coverage"))
        self.data: Coverage | None = None
        self.facet: Facet | None = None
        self.cursor_cell: tuple[int, int] | None = None
        self._shown: tuple[int, ...] = ()

    def set_data(self, data: Coverage) -> None:
        """Show other counts."""
        if data != self.data:
            self.data, self.cursor_cell = data, None
            self._fit()
            self.update()

    def set_facet(self, facet: Facet | None) -> None:
        """Show one facet alone, or None for all that there is room for."""
        self.facet, self.cursor_cell = facet, None
        self._fit()
        self.update()

    @property
    def rows(self) -> tuple[str, ...]:
        """The risk domains."""
        return () if self.data is None else self.data.rows

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that are drawn."""
        return () if self.data is None else tuple(self.data.columns[j] for j in self._shown)

    @property
    def hidden(self) -> tuple[Facet, ...]:
        """The facets that there is no room for, or that were not chosen."""
        if self.data is None:
            return ()
        drawn = {column.facet for column in self.columns}
        return tuple(dict.fromkeys(c.facet for c in self.data.columns if c.facet not in drawn))

    def csv_table(self) -> Table:
        """Return a row for each cell of all facets; no data stays words."""
        if self.data is None:
            return ["risk domain", "facet", "asked as", "prompts"], []
        rows: list[list[str | float]] = [
            [row, column.facet, column.key, "no data" if n is None else float(n)]
            for row, line in zip(self.data.rows, self.data.counts, strict=True)
            for column, n in zip(self.data.columns, line, strict=True)
        ]
        return ["risk domain", "facet", "asked as", "prompts"], rows

    # Geometry.

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Choose the facets that fit: whole ones, in their order, one at least."""
        if self.data is None:
            return
        facets = list(dict.fromkeys(column.facet for column in self.data.columns))
        chosen = [self.facet] if self.facet in facets else facets
        while len(chosen) > 1 and not self._have_room(chosen):
            chosen.pop()
        shown = tuple(j for j, column in enumerate(self.data.columns) if column.facet in chosen)
        if shown != self._shown:
            self._shown, self.cursor_cell = shown, None
            self.update()
            self.fitted.emit()

    def _have_room(self, facets: Sequence[Facet]) -> bool:
        columns = [c for c in self.data.columns if c.facet in facets] if self.data else []
        gaps = _BETWEEN * (len(facets) - 1)
        return self._left() + _CELL_LEAST * len(columns) + gaps <= self.width()

    def _left(self) -> float:
        metrics = QFontMetricsF(theme.font("caption"))
        widest = max((metrics.horizontalAdvance(row) for row in self.rows), default=0.0)
        return min(widest + 10, max(self.width() * _TEXT_SHARE, _TEXT_LEAST))

    def _starts(self) -> list[float]:
        """Return where each drawn column begins; the last number is where they all end."""
        columns, left = self.columns, self._left()
        turns = sum(a.facet != b.facet for a, b in pairwise(columns))
        each = (self.width() - left - 2 - turns * _BETWEEN) / max(len(columns), 1)
        found, x = [left], left
        for i, column in enumerate(columns):
            x += each
            if i + 1 < len(columns) and columns[i + 1].facet != column.facet:
                x += _BETWEEN
            found.append(x)
        return found

    def cell_rect(self, row: int, column: int) -> QRectF:
        """Return where a cell is drawn, by its place among the drawn columns."""
        starts, columns = self._starts(), self.columns
        right = starts[column + 1]
        if column + 1 < len(columns) and columns[column + 1].facet != columns[column].facet:
            right -= _BETWEEN
        top = _CAPS + _HEAD
        height = (self.height() - top - 2) / max(len(self.rows), 1)
        return QRectF(
            starts[column] + _GAP / 2, top + row * height + _GAP / 2,
            right - starts[column] - _GAP, height - _GAP,
        )  # fmt: skip

    def _count(self, row: int, column: int) -> int | None:
        assert self.data is not None
        return self.data.counts[row][self._shown[column]]

    # Reading.

    def tip(self, point: QPointF) -> str:
        for i in range(len(self.rows)):
            for j in range(len(self._shown)):
                if self.cell_rect(i, j).contains(point):
                    return self.reading(i, j)
        return ""

    def reading(self, row: int, column: int) -> str:
        """Return what a cell says, in words."""
        count, way = self._count(row, column), self.columns[column]
        said = (
            self.tr("no data: nothing is known") if count is None
            else self.tr("{n} prompts").format(n=count)
        )  # fmt: skip
        return f"{self.rows[row]}, {way.facet} {way.key}: {said}"

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {
            Qt.Key.Key_Up: (-1, 0), Qt.Key.Key_Down: (1, 0),
            Qt.Key.Key_Left: (0, -1), Qt.Key.Key_Right: (0, 1),
        }  # fmt: skip
        step = steps.get(Qt.Key(event.key()))
        if step is None or not self._shown:
            super().keyPressEvent(event)
            return
        row, column = self.cursor_cell or (0, 0)
        if self.cursor_cell is not None:
            row = min(max(row + step[0], 0), len(self.rows) - 1)
            column = min(max(column + step[1], 0), len(self._shown) - 1)
        self.cursor_cell = (row, column)
        self.setToolTip(self.reading(row, column))
        self.update()

    # Drawing.

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        if not self._shown:
            return
        self._draw_heads(painter)
        small, left = theme.font("caption"), self._left()
        metrics = QFontMetricsF(small)
        for i, row in enumerate(self.rows):
            cell = self.cell_rect(i, 0)
            painter.setFont(small)
            painter.setPen(theme.color("text"))
            text = metrics.elidedText(row, Qt.TextElideMode.ElideRight, left - 8)
            painter.drawText(QRectF(0, cell.top(), left - 8, cell.height()), LEFT, text)
            for j in range(len(self._shown)):
                self._draw_cell(painter, i, j)

    def _draw_heads(self, painter: QPainter) -> None:
        names: dict[Facet, str] = {
            "form": self.tr("form"), "language": self.tr("language"),
            "modality": self.tr("modality"), "turns": self.tr("turns"),
        }  # fmt: skip
        small, place = theme.font("caption"), 0
        metrics = QFontMetricsF(small)
        for facet, group in groupby(column.facet for column in self.columns):
            count = len(list(group))
            first, last = self.cell_rect(0, place), self.cell_rect(0, place + count - 1)
            box = QRectF(first.left(), 0, last.right() - first.left(), _CAPS)
            painter.setFont(small)
            painter.setPen(faded(theme.color("muted"), 0.85))
            text = metrics.elidedText(names[facet], Qt.TextElideMode.ElideRight, box.width())
            painter.drawText(box, CENTRE, text)
            painter.setPen(QPen(theme.color("line"), 1))
            painter.drawLine(QPointF(box.left(), _CAPS), QPointF(box.right(), _CAPS))
            place += count
        painter.setPen(theme.color("muted"))
        for j, column in enumerate(self.columns):
            cell = self.cell_rect(0, j)
            box = QRectF(cell.left() - 1, _CAPS, cell.width() + 2, _HEAD - 3)
            painter.drawText(box, BELOW, _head(column.key, metrics, box.width()))

    def _draw_cell(self, painter: QPainter, row: int, column: int) -> None:
        cell, count = self.cell_rect(row, column), self._count(row, column)
        inner = cell.adjusted(0.5, 0.5, -0.5, -0.5)
        tokens = theme.current()
        marked = self.hasFocus() and self.cursor_cell == (row, column)
        if count is None:
            pen = QPen(theme.color("accent" if marked else "line"), 1, Qt.PenStyle.DashLine)
            painter.setPen(pen)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(inner, 4, 4)
            painter.setPen(faded(theme.color("muted"), 0.9))
            painter.setFont(theme.font("caption"))
            words = self.tr("no data")
            short = cell.width() < QFontMetricsF(painter.font()).horizontalAdvance(words) + 6
            painter.drawText(cell, CENTRE, "–" if short else words)
            return
        share = 0.16 + 0.34 * min(count / _FULL, 1.0)
        painter.setPen(QPen(theme.color("accent"), 1.4) if marked else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.mix(tokens.panel, tokens.aligned, share)))
        painter.drawRoundedRect(inner, 4, 4)
        painter.setPen(theme.color("text"))
        painter.setFont(theme.font("small_number"))
        painter.drawText(cell, CENTRE, str(count))


def _head(key: str, metrics: QFontMetricsF, room: float) -> str:
    """Return the name of a column in one line, or in two where it is too narrow for one."""
    if metrics.horizontalAdvance(key) <= room:
        return key
    usual = key.replace(" ", "\n", 1) if " " in key else key.replace("-", "-\n", 1)
    lines = _HYPHENS.get(key, usual).split("\n")
    mode = Qt.TextElideMode.ElideRight
    return "\n".join(metrics.elidedText(line, mode, room) for line in lines)
