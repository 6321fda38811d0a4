"""A choice among many things, each with a sentence: a button, and a list to be searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import (
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QFrame,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from trimtab_gui import theme
from trimtab_gui.actions.fuzzy import score
from trimtab_gui.theme import icons
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.labels import label
from trimtab_gui.widgets.paint import card
from trimtab_gui.widgets.panel import Surface

_ENTRY = Qt.ItemDataRole.UserRole
_ROW, _HEADING_ROW = 44, 30
_MOST_HEIGHT = 470
_WIDTH = 440
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Entry:
    """Something that can be chosen; `objection` says what stands against it now."""

    key: str
    title: str
    sentence: str
    heading: str
    objection: str = ""


class Chooser(FocusButton):
    """Shows what is chosen; `chosen` carries the key of another choice."""

    chosen = Signal(str)

    def __init__(self, name: str, search_hint: str) -> None:
        super().__init__()
        self._name, self._hint = name, search_hint
        self._entries: tuple[Entry, ...] = ()
        self._key = ""
        self._text = ""
        self.popup: ChooserPopup | None = None
        self.setAccessibleName(name)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.clicked.connect(self.open)
        theme.manager().changed.connect(self.update)

    def set_entries(self, entries: Sequence[Entry]) -> None:
        """Offer other things; what is chosen stays chosen."""
        self._entries = tuple(entries)
        self.set_current(self._key, self._key)

    def entries(self) -> tuple[Entry, ...]:
        """Return what is offered, in order."""
        return self._entries

    def set_current(self, key: str, otherwise: str = "") -> None:
        """Show a choice without emitting; one that is not offered reads as `otherwise`."""
        found = next((e for e in self._entries if e.key == key), None)
        self._key, self._text = key, found.title if found else otherwise
        self.setAccessibleDescription(self._text)
        self.update()

    def current(self) -> str:
        """Return the key of what is chosen."""
        return self._key

    def text(self) -> str:
        """Return the title of what is chosen."""
        return self._text

    def open(self, typed: str = "") -> ChooserPopup:
        """Open the list below the button."""
        if self.popup is not None:
            self.popup.deleteLater()
        self.popup = ChooserPopup(self, self._entries, self._key, self._hint, self._name)
        self.popup.picked.connect(self._picked)
        self.popup.open_below(self)
        if typed:
            self.popup.field.setText(typed)
        return self.popup

    def _picked(self, key: str) -> None:
        self.setFocus(Qt.FocusReason.OtherFocusReason)
        if key != self._key:
            self.chosen.emit(key)

    def sizeHint(self) -> QSize:
        return QSize(200, 30)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        plain = event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.ShiftModifier,
        )
        if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Up):
            self.open()
        elif plain and event.text().strip() and event.text().isprintable():
            self.open(event.text())
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        tokens = theme.current()
        hot = self.underMouse() or self.isDown()
        fill = theme.mix(tokens.card, tokens.muted, 0.16 if hot else 0.0)
        border = "accent" if self.keyboard_focus() else "line"
        rect = QRectF(self.rect())
        card(painter, rect, theme.CONTROL_RADIUS, QColor(fill), theme.color(border))
        painter.setFont(theme.font("body"))
        painter.setPen(theme.color("text"))
        inner = self.rect().adjusted(9, 0, -28, 0)
        text = painter.fontMetrics().elidedText(
            self._text, Qt.TextElideMode.ElideRight, inner.width()
        )
        painter.drawText(inner, _LEFT, text)
        middle = rect.center().y()
        arrow = QRectF(rect.right() - 22, middle - 7, 14, 14)
        icons.draw(painter, "chevron-down", tokens.muted, arrow)


class ChooserPopup(QFrame):
    """Type to search, arrows to move, Enter to choose, Esc to leave."""

    picked = Signal(str)

    def __init__(
        self, parent: QWidget, entries: Sequence[Entry], current: str, hint: str, name: str
    ) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self._entries = tuple(entries)
        self._current = current
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAccessibleName(name)
        self.setFixedWidth(_WIDTH)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        surface = Surface()
        whole.addWidget(surface)
        rows = QVBoxLayout(surface)
        rows.setContentsMargins(8, 8, 8, 8)
        rows.setSpacing(6)
        self.field = QLineEdit()
        self.field.setPlaceholderText(hint)
        self.field.setAccessibleName(hint)
        self.field.setFixedHeight(32)
        self.field.setClearButtonEnabled(False)
        self.list = QListWidget()
        self.list.setAccessibleName(name)
        self.list.setItemDelegate(_Row(self.list, current))
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setMouseTracking(True)
        self.list.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setProperty("kind", "plain")
        self._nothing = label(self.tr("Nothing fits."), "body", "muted")
        self._nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._nothing.setFixedHeight(64)
        rows.addWidget(self.field)
        rows.addWidget(self.list)
        rows.addWidget(self._nothing)
        self.field.textChanged.connect(self.search)
        self.field.installEventFilter(self)
        self.list.itemClicked.connect(self._choose)
        self.list.viewport().installEventFilter(self)
        self.search("")

    def open_below(self, button: QWidget) -> None:
        """Open with the right edges in line, inside the screen."""
        corner = button.mapToGlobal(QPoint(button.width() - self.width(), button.height() + 4))
        room = button.screen().availableGeometry()
        x = min(max(corner.x(), room.left()), room.right() - self.width())
        y = min(corner.y(), room.bottom() - self.height())
        self.move(x, max(y, room.top()))
        self.show()
        self.field.setFocus()

    def search(self, query: str) -> None:
        """Show what fits under its headings; what is chosen, or fits best, is under the cursor."""
        self.list.clear()
        heading, best, best_points = "", -1, -(10**9)
        for entry in self._entries:
            points = _points(query, entry)
            if points is None:
                continue
            if entry.heading != heading:
                heading = entry.heading
                self._add_heading(heading)
            item = QListWidgetItem(entry.title)
            item.setData(_ENTRY, entry)
            item.setData(Qt.ItemDataRole.AccessibleDescriptionRole, entry.sentence)
            item.setToolTip(f"{entry.title}: {entry.sentence}")
            item.setSizeHint(QSize(_WIDTH - 30, _ROW))
            self.list.addItem(item)
            if not query:
                points = 1 if entry.key == self._current else 0
            if points > best_points:
                best, best_points = self.list.count() - 1, points
        empty = self.list.count() == 0
        self._nothing.setVisible(empty)
        self.list.setVisible(not empty)
        height = sum(self.list.sizeHintForRow(i) for i in range(self.list.count())) + 6
        height = min(max(height, _ROW), _MOST_HEIGHT)
        self.list.setFixedHeight(height)
        below = self._nothing.height() if empty else height
        self.setFixedHeight(8 + self.field.height() + 6 + below + 8)
        if best >= 0:
            self.list.setCurrentRow(best)
            self.list.scrollToItem(self.list.item(best), QListWidget.ScrollHint.PositionAtCenter)

    def _add_heading(self, text: str) -> None:
        item = QListWidgetItem(text)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        item.setSizeHint(QSize(_WIDTH - 30, _HEADING_ROW))
        self.list.addItem(item)

    def shown(self) -> list[Entry]:
        """Return the entries as they are shown."""
        found = (self.list.item(row).data(_ENTRY) for row in range(self.list.count()))
        return [entry for entry in found if entry is not None]

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.list.viewport() and event.type() == QEvent.Type.MouseMove:
            # a pointer that only lies where the list opened has not pointed at anything
            assert isinstance(event, QMouseEvent)
            item = self.list.itemAt(event.position().toPoint())
            if item is not None and item.data(_ENTRY) is not None:
                self.list.setCurrentItem(item)
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {
                Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1,
                Qt.Key.Key_PageDown: 8, Qt.Key.Key_PageUp: -8,
            }  # fmt: skip
            key = Qt.Key(event.key())
            if key in steps:
                self._step(steps[key])
                return True
            if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                item = self.list.currentItem()
                if item is not None:
                    self._choose(item)
                return True
        return super().eventFilter(watched, event)

    def _step(self, change: int) -> None:
        rows = [i for i in range(self.list.count()) if self.list.item(i).data(_ENTRY) is not None]
        if not rows:
            return
        now = self.list.currentRow()
        place = rows.index(now) if now in rows else 0
        place = min(max(place + change, 0), len(rows) - 1)
        self.list.setCurrentRow(rows[place])
        # the first entry's heading is part of what is seen of it
        shown = self.list.item(0 if place == 0 else rows[place])
        self.list.scrollToItem(shown)

    def _choose(self, item: QListWidgetItem) -> None:
        entry: Entry | None = item.data(_ENTRY)
        if entry is not None:
            self.close()
            self.picked.emit(entry.key)


def _points(query: str, entry: Entry) -> int | None:
    """Return how well an entry fits: by its title and name, less by words of its sentence."""
    if not query.strip():
        return 0
    found = [score(query, text) for text in (entry.title, entry.key)]
    known = [points for points in found if points is not None]
    # letters that are strewn over a title were not meant
    if known and max(known) > 3 * len(query.replace(" ", "")):
        return max(known)
    words = f"{entry.sentence} {entry.heading}".casefold()
    return 0 if query.casefold().strip() in words else None


class _Row(QStyledItemDelegate):
    """A heading in capitals, or a title with its sentence below; what is chosen has a mark."""

    def __init__(self, parent: QWidget, current: str) -> None:
        super().__init__(parent)
        self._current = current

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        size: QSize = index.data(Qt.ItemDataRole.SizeHintRole)
        return size

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        entry: Entry | None = index.data(_ENTRY)
        rect: QRect = option.rect
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if entry is None:
            painter.setFont(theme.font("caps"))
            painter.setPen(theme.color("muted"))
            painter.drawText(rect.adjusted(12, 8, -10, 0), _LEFT, str(index.data()))
            painter.restore()
            return
        if option.state & QStyle.StateFlag.State_Selected:
            tokens = theme.current()
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(theme.mix(tokens.card, tokens.muted, 0.16)))
            painter.drawRoundedRect(rect.adjusted(2, 1, -2, -1), 6, 6)
        if entry.key == self._current:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("accent"))
            painter.drawRoundedRect(QRectF(rect.left() + 2, rect.top() + 8, 3, _ROW - 16), 1.5, 1.5)
        inner = rect.adjusted(12, 5, -10, -5)
        upper = QRect(inner.left(), inner.top(), inner.width(), inner.height() // 2)
        lower = upper.translated(0, inner.height() // 2)
        width = inner.width()
        if entry.objection:
            painter.setFont(theme.font("caption"))
            painter.setPen(theme.text_color("finetuned"))
            painter.drawText(upper, _RIGHT, entry.objection)
            taken = QFontMetricsF(theme.font("caption")).horizontalAdvance(entry.objection)
            width -= round(taken) + 12
        painter.setFont(theme.font("body"))
        painter.setPen(theme.color("muted" if entry.objection else "text"))
        painter.drawText(upper, _LEFT, _short(painter, entry.title, width))
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("muted"))
        painter.drawText(lower, _LEFT, _short(painter, entry.sentence, inner.width()))
        painter.restore()


def _short(painter: QPainter, text: str, width: int) -> str:
    return painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, width)
