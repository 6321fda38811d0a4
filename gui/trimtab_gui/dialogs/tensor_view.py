"""The table of a plan's tensors: sorts and filters over columns, copies and exports."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSize, Qt
from PySide6.QtGui import QGuiApplication, QIcon, QKeyEvent, QKeySequence, QPainter, QPixmap
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from trimtab_gui import theme
from trimtab_gui.account import ACTIONS, TensorTable

Index = QModelIndex | QPersistentModelIndex
TOKENS = {"merged": "merged", "converted": "aligned", "copied": "base"}
_WIDTHS = (296, 96, 60, 82, 100, 190, 160, 130)
_NUMBERS = (TensorTable.SIZE,)


def dot(action: str) -> QIcon:
    """Return the mark of what happens to a tensor."""
    side = 24
    pixmap = QPixmap(QSize(side, side))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme.color(TOKENS.get(action, "muted")))
    painter.drawEllipse(4, 4, side - 8, side - 8)
    painter.end()
    return QIcon(pixmap)


class TensorModel(QAbstractTableModel):
    """Rows in the order and selection that were asked for; nothing is copied to show them."""

    def __init__(self, table: TensorTable) -> None:
        super().__init__()
        self.table = table
        self._order = np.arange(len(table))
        self._kept = np.ones(len(table), dtype=np.bool_)
        self.shown = self._order
        self._dots = {action: dot(action) for action in ACTIONS}

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self.shown)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(TensorTable.headers)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return TensorTable.headers[section]
        if role == Qt.ItemDataRole.TextAlignmentRole and section in _NUMBERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row, column = int(self.shown[index.row()]), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self.table.columns[column][row]
        if role == Qt.ItemDataRole.ToolTipRole:
            action = column == TensorTable.ACTION
            return self.table.whys[row] if action else self.table.columns[column][row]
        if role == Qt.ItemDataRole.DecorationRole and column == TensorTable.ACTION:
            return self._dots[self.table.actions[row]]
        if role == Qt.ItemDataRole.TextAlignmentRole and column in _NUMBERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole and column in (1, 2, 3, 5, 7):
            return theme.color("muted")
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Order by a column, or as in the output for a column of -1."""
        if column < 0:
            self._order = np.arange(len(self.table))
        else:
            self._order = self.table.order(column, order == Qt.SortOrder.DescendingOrder)
        self._show()

    def filter(self, words: str, actions: frozenset[str]) -> None:
        """Show the rows that hold every word and fare in one of the ways."""
        self._kept = self.table.matching(words, actions)
        self._show()

    def _show(self) -> None:
        self.beginResetModel()
        self.shown = self._order[self._kept[self._order]]
        self.endResetModel()


class TensorView(QTableView):
    """The table itself; Ctrl+C copies the chosen rows."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName(self.tr("Every tensor of the result"))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setIconSize(QSize(12, 12))
        self.setFont(theme.font("small_number"))
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(26)
        header = self.horizontalHeader()
        header.setFont(theme.font("caption"))
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)

    def show_table(self, table: TensorTable) -> TensorModel:
        """Show a table in the output's order."""
        model = TensorModel(table)
        model.setParent(self)
        self.setModel(model)
        self.setSortingEnabled(True)
        for column, width in enumerate(_WIDTHS):
            self.setColumnWidth(column, width)
        for column in (TensorTable.RATIO, TensorTable.PARAMETERS):
            # a column that says nothing only takes room
            self.setColumnHidden(column, not any(table.columns[column]))
        return model

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy_rows()
        else:
            super().keyPressEvent(event)

    def copy_rows(self) -> int:
        """Copy the chosen rows, or all that are shown; returns how many."""
        model = self.model()
        if not isinstance(model, TensorModel):
            return 0
        chosen = sorted(index.row() for index in self.selectionModel().selectedRows())
        rows = model.shown[chosen] if chosen else model.shown
        QGuiApplication.clipboard().setText(_text(model.table, rows.tolist(), "\t"))
        return len(rows)


def _text(table: TensorTable, rows: Sequence[int], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(table.file_headers)
    writer.writerows(table.row(i) for i in rows)
    return out.getvalue()


def save_csv(table: TensorTable, path: Path) -> None:
    """Write every tensor in the output's order; OSError when it cannot be written."""
    path.write_text(_text(table, range(len(table)), ","), encoding="utf-8")
