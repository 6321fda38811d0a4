"""The command palette: every action by a few of its letters, the ones that are off with reason."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import (
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QSize,
    Qt,
)
from PySide6.QtGui import QKeyEvent, QKeySequence, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from trimtab_gui import theme
from trimtab_gui.actions import Action, Actions
from trimtab_gui.actions.fuzzy import score

Index = QModelIndex | QPersistentModelIndex
_ENTRY = Qt.ItemDataRole.UserRole
_ROW = 34
_ROWS_SHOWN = 9


@dataclass(frozen=True)
class Entry:
    """A line of the palette."""

    id: str
    text: str
    shortcut: str
    reason: str


def entries(actions: Actions, query: str) -> list[Entry]:
    """Return the actions that fit `query`, the best first, those that are off behind the others."""
    found: list[tuple[bool, int, int, Action, str]] = []
    for order, action in enumerate(actions):
        points = score(query, action.text)
        if points is not None and action.id != "palette":
            reason = action.enabled() or ""
            found.append((bool(reason), -points, order, action, reason))
    found.sort(key=lambda row: row[:3])
    native = QKeySequence.SequenceFormat.NativeText
    return [
        Entry(a.id, a.text, QKeySequence(a.shortcut).toString(native), reason)
        for _, _, _, a, reason in found
    ]


class Palette(QDialog):
    """Type, choose with the arrows, Enter does it, Esc leaves."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self._actions = actions
        self._over = parent
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAccessibleName(self.tr("Command palette"))
        self.setFixedWidth(520)
        self.setObjectName("palette")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 8, 8, 8)
        outer.setSpacing(6)
        self.field = QLineEdit()
        self.field.setPlaceholderText(self.tr("What would you like to do?"))
        self.field.setAccessibleName(self.tr("Search for an action"))
        self.field.setFixedHeight(34)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Actions"))
        self.list.setItemDelegate(_Row(self.list))
        self.list.setUniformItemSizes(True)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        outer.addWidget(self.field)
        outer.addWidget(self.list)
        self.field.textChanged.connect(self.search)
        self.field.installEventFilter(self)
        self.list.itemClicked.connect(self._choose)
        self.search("")

    def popup(self) -> None:
        """Open over the upper middle of the parent."""
        over = self._over
        top = over.mapToGlobal(over.rect().topLeft())
        self.move(top.x() + (over.width() - self.width()) // 2, top.y() + 64)
        self.show()
        self.field.setFocus()

    def search(self, query: str) -> None:
        """Show what fits."""
        self.list.clear()
        for entry in entries(self._actions, query):
            item = QListWidgetItem(entry.text)
            item.setData(_ENTRY, entry)
            if entry.reason:
                item.setToolTip(entry.reason)
            self.list.addItem(item)
        self.list.setCurrentRow(0)
        self.list.setFixedHeight(_ROW * min(max(self.list.count(), 1), _ROWS_SHOWN) + 6)
        self.adjustSize()

    def shown(self) -> list[Entry]:
        """Return the lines as they are shown."""
        return [self.list.item(row).data(_ENTRY) for row in range(self.list.count())]

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            key = event.key()
            if key in (Qt.Key.Key_Down, Qt.Key.Key_Up):
                step = 1 if key == Qt.Key.Key_Down else -1
                row = (self.list.currentRow() + step) % max(self.list.count(), 1)
                self.list.setCurrentRow(row)
                return True
            if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                item = self.list.currentItem()
                if item is not None:
                    self._choose(item)
                return True
        return super().eventFilter(watched, event)

    def _choose(self, item: QListWidgetItem) -> None:
        entry: Entry = item.data(_ENTRY)
        if not entry.reason:
            self.close()
            self._actions.run(entry.id)


class _Row(QStyledItemDelegate):
    """Title at the left, shortcut or reason at the right."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(super().sizeHint(option, index).width(), _ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        entry: Entry = index.data(_ENTRY)
        rect: QRect = option.rect
        state = option.state
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if state & QStyle.StateFlag.State_Selected:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("line"))
            painter.drawRoundedRect(rect.adjusted(2, 1, -2, -1), 6, 6)
        inner = rect.adjusted(12, 0, -12, 0)
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.setFont(theme.font("body"))
        painter.setPen(theme.color("muted" if entry.reason else "text"))
        painter.drawText(inner, int(middle | Qt.AlignmentFlag.AlignLeft), entry.text)
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("muted"))
        right = entry.reason or entry.shortcut
        painter.drawText(inner, int(middle | Qt.AlignmentFlag.AlignRight), right)
        painter.restore()
