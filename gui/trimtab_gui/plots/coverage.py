"""What was looked at: risk domains by ways of asking, where nothing asked is never green."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QPainter, QPen
from PySide6.QtWidgets import QWidget

from trimtab_gui import theme
from trimtab_gui.plots.export import Table
from trimtab_gui.plots.figure import CENTRE, LEFT, Figure
from trimtab_gui.widgets.paint import faded

_HEAD, _GAP = 32.0, 3.0
_FULL = 60
BELOW = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)


class CoverageMatrix(Figure):
    """Cells hold how many prompts were asked; the arrow keys move a cursor that reads the same."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.setAccessibleName(self.tr("Coverage"))
        self.rows: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = ()
        self.counts: tuple[tuple[int | None, ...], ...] = ()
        self.cursor_cell: tuple[int, int] | None = None

    def set_data(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        counts: Sequence[Sequence[int | None]],
    ) -> None:
        """Show other counts, [rows][columns], None where there is no data."""
        self.rows, self.columns = tuple(rows), tuple(columns)
        self.counts = tuple(tuple(row) for row in counts)
        self.cursor_cell = None
        self.update()

    def csv_table(self) -> Table:
        """Return a row for each cell; no data stays words."""
        none = "no data"
        rows: list[list[str | float]] = [
            [row, column, none if n is None else float(n)]
            for row, line in zip(self.rows, self.counts, strict=True)
            for column, n in zip(self.columns, line, strict=True)
        ]
        return ["risk domain", "asked as", "prompts"], rows

    def _left(self) -> float:
        metrics = QFontMetricsF(theme.font("caption"))
        widest = max((metrics.horizontalAdvance(row) for row in self.rows), default=0.0)
        return min(widest + 10, self.width() * 0.36)

    def _short(self) -> bool:
        """Whether columns are too narrow for the words "no data"."""
        metrics = QFontMetricsF(theme.font("caption"))
        return self.cell_rect(0, 0).width() < metrics.horizontalAdvance(self.tr("no data")) + 6

    def cell_rect(self, row: int, column: int) -> QRectF:
        """Return where a cell is drawn."""
        left = self._left()
        width = (self.width() - left - 4) / max(len(self.columns), 1)
        height = (self.height() - _HEAD - 4) / max(len(self.rows), 1)
        return QRectF(
            left + column * width + _GAP / 2, _HEAD + row * height + _GAP / 2,
            width - _GAP, height - _GAP,
        )  # fmt: skip

    def tip(self, point: QPointF) -> str:
        for i in range(len(self.rows)):
            for j in range(len(self.columns)):
                if self.cell_rect(i, j).contains(point):
                    return self.reading(i, j)
        return ""

    def reading(self, row: int, column: int) -> str:
        """Return what a cell says, in words."""
        count = self.counts[row][column]
        said = (
            self.tr("no data: nothing is known") if count is None
            else self.tr("{n} prompts").format(n=count)
        )  # fmt: skip
        return f"{self.rows[row]}, {self.columns[column]}: {said}"

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {
            Qt.Key.Key_Up: (-1, 0), Qt.Key.Key_Down: (1, 0),
            Qt.Key.Key_Left: (0, -1), Qt.Key.Key_Right: (0, 1),
        }  # fmt: skip
        step = steps.get(Qt.Key(event.key()))
        if step is None or not self.counts:
            super().keyPressEvent(event)
            return
        row, column = self.cursor_cell or (0, 0)
        if self.cursor_cell is not None:
            row = min(max(row + step[0], 0), len(self.rows) - 1)
            column = min(max(column + step[1], 0), len(self.columns) - 1)
        self.cursor_cell = (row, column)
        self.setToolTip(self.reading(row, column))
        self.update()

    def draw(self, painter: QPainter, rect: QRectF) -> None:
        small = theme.font("caption")
        metrics = QFontMetricsF(small)
        painter.setFont(small)
        painter.setPen(theme.color("muted"))
        for j, column in enumerate(self.columns):
            cell = self.cell_rect(0, j)
            box = QRectF(cell.left() - 1, 0, cell.width() + 2, _HEAD - 2)
            words = column.split(" ", 1)
            lines = [metrics.elidedText(w, Qt.TextElideMode.ElideRight, box.width()) for w in words]
            painter.drawText(box, BELOW, "\n".join(lines))
        left = self._left()
        for i, row in enumerate(self.rows):
            cell = self.cell_rect(i, 0)
            painter.setFont(small)
            painter.setPen(theme.color("text"))
            text = metrics.elidedText(row, Qt.TextElideMode.ElideRight, left - 6)
            painter.drawText(QRectF(0, cell.top(), left - 6, cell.height()), LEFT, text)
            for j in range(len(self.columns)):
                self._draw_cell(painter, i, j)

    def _draw_cell(self, painter: QPainter, row: int, column: int) -> None:
        cell, count = self.cell_rect(row, column), self.counts[row][column]
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
            painter.drawText(cell, CENTRE, "–" if self._short() else self.tr("no data"))
            return
        share = 0.16 + 0.34 * min(count / _FULL, 1.0)
        painter.setPen(QPen(theme.color("accent"), 1.4) if marked else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.mix(tokens.panel, tokens.aligned, share)))
        painter.drawRoundedRect(inner, 4, 4)
        painter.setPen(theme.color("text"))
        painter.setFont(theme.font("small_number"))
        painter.drawText(cell, CENTRE, str(count))
