"""What both plots over layers share: margins, the visible range and the column axis."""

from __future__ import annotations

import time

from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QFocusEvent,
    QFontMetricsF,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QGraphicsScene, QGraphicsView, QSizePolicy, QWidget

from trimtab_gui import theme

LEFT, TOP, RIGHT, BOTTOM = 54.0, 8.0, 74.0, 42.0
_BURST_S = 0.5
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 50, 100, 200, 250, 500, 1000)


class Canvas(QGraphicsView):
    """Columns are unit wide: column j covers j to j + 1. Rows likewise where there are rows.

    Both plots keep the same margins, so that a column stands exactly over itself when one lies
    above the other.
    """

    view_changed = Signal(float, float)
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setScene(QGraphicsScene(self))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setViewportUpdateMode(QGraphicsView.ViewportUpdateMode.FullViewportUpdate)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.NoAnchor)
        self.setResizeAnchor(QGraphicsView.ViewportAnchor.NoAnchor)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setInteractive(False)
        self.setMouseTracking(True)
        self.viewport().setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(240, 130)
        self.columns: list[str] = []
        self.rows_shown = 1
        self._zoom_rows = False
        self._view = QRectF(0, 0, 1, 1)
        self._history: list[QRectF] = []
        self._last_wheel = 0.0
        self._pan_from: QPointF | None = None
        self._ring = False
        theme.manager().changed.connect(self.recolour)

    # The visible range.

    def home(self) -> QRectF:
        """Return the range that shows everything."""
        return QRectF(0, 0, max(len(self.columns), 1), max(self.rows_shown, 1))

    def view_range(self) -> QRectF:
        """Return the visible range in columns and rows."""
        return QRectF(self._view)

    def set_view(self, view: QRectF) -> None:
        """Show a range, moved and shrunk so that it lies within the data."""
        home = self.home()
        width = min(max(view.width(), min(4.0, home.width())), home.width())
        height = min(max(view.height(), min(2.0, home.height())), home.height())
        left = min(max(view.left(), 0.0), home.width() - width)
        top = min(max(view.top(), 0.0), home.height() - height)
        held = QRectF(left, top, width, height)
        if held != self._view:
            self._view = held
            self.place_items()
            self.viewport().update()
            self.view_changed.emit(left, left + width)

    def set_x_range(self, low: float, high: float) -> None:
        """Follow another plot's columns without emitting."""
        blocked = self.blockSignals(True)
        self.set_view(QRectF(low, self._view.top(), high - low, self._view.height()))
        self.blockSignals(blocked)

    def fit(self) -> None:
        """Show everything; Backspace comes back."""
        self.remember()
        self.set_view(self.home())

    def back(self) -> None:
        """Return to the range before the last zoom, pan or fit."""
        if self._history:
            self.set_view(self._history.pop())

    def remember(self) -> None:
        """Keep the present range for ``back``."""
        if not self._history or self._history[-1] != self._view:
            self._history.append(QRectF(self._view))
            del self._history[:-50]

    def reset_view(self) -> None:
        """Show everything of new data and forget earlier ranges."""
        self._history.clear()
        self._view = QRectF()
        self.set_view(self.home())

    # Geometry; scene coordinates are viewport pixels.

    def plot_rect(self) -> QRectF:
        """Return where the data is drawn, in pixels."""
        size = self.viewport().size()
        return QRectF(
            LEFT,
            TOP,
            max(size.width() - LEFT - RIGHT, 10.0),
            max(size.height() - TOP - BOTTOM, 10.0),
        )

    def x_px(self, x: float) -> float:
        """Return the pixel of a column coordinate."""
        rect = self.plot_rect()
        return rect.left() + (x - self._view.left()) / self._view.width() * rect.width()

    def column_px(self) -> float:
        """Return the width of a column in pixels."""
        return self.plot_rect().width() / self._view.width()

    def column_at(self, x: float) -> int:
        """Return the column under a pixel, held within the columns."""
        rect = self.plot_rect()
        place = self._view.left() + (x - rect.left()) / rect.width() * self._view.width()
        return min(max(int(place // 1), 0), max(len(self.columns) - 1, 0))

    def place_items(self) -> None:
        """Move scene items after a change of range or size; plots without items need not."""

    def recolour(self) -> None:
        """Draw again in the colours of a new theme."""
        self.viewport().update()

    # Events.

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.setSceneRect(QRectF(self.viewport().rect()))
        self.place_items()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self._ring = event.reason() != Qt.FocusReason.MouseFocusReason
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.viewport().update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        delta = event.angleDelta().y()
        rect = self.plot_rect()
        if not self.columns or delta == 0 or not rect.contains(event.position()):
            event.ignore()
            return
        now = time.monotonic()
        if now - self._last_wheel > _BURST_S:
            self.remember()
        self._last_wheel = now
        factor = 0.999**delta
        fx = (event.position().x() - rect.left()) / rect.width()
        fy = (event.position().y() - rect.top()) / rect.height()
        home = self.home()
        width = min(max(self._view.width() * factor, min(4.0, home.width())), home.width())
        height = self._view.height()
        if self._zoom_rows:
            height = min(max(height * factor, min(2.0, home.height())), home.height())
        left = self._view.left() + fx * (self._view.width() - width)
        top = self._view.top() + fy * (self._view.height() - height)
        self.set_view(QRectF(left, top, width, height))
        event.accept()

    def begin_pan(self, event: QMouseEvent) -> bool:
        """Start to pan on the middle or right button or with Shift; return whether it did.

        Ctrl+Shift is left to those who join selections.
        """
        keys = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.ControlModifier
        shifted = event.modifiers() & keys == Qt.KeyboardModifier.ShiftModifier
        other = event.button() in (Qt.MouseButton.MiddleButton, Qt.MouseButton.RightButton)
        if not other and not (shifted and event.button() == Qt.MouseButton.LeftButton):
            return False
        self.remember()
        self._pan_from = event.position()
        self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
        return True

    def continue_pan(self, event: QMouseEvent) -> bool:
        """Move the range with the hand; return whether a pan is under way."""
        if self._pan_from is None:
            return False
        rect = self.plot_rect()
        change = event.position() - self._pan_from
        self._pan_from = event.position()
        view = QRectF(self._view)
        view.translate(
            -change.x() / rect.width() * view.width(),
            -change.y() / rect.height() * view.height(),
        )
        self.set_view(view)
        return True

    def end_pan(self) -> bool:
        """Let go; return whether a pan was under way."""
        if self._pan_from is None:
            return False
        self._pan_from = None
        self.viewport().unsetCursor()
        return True

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Home:
            self.fit()
        elif event.key() == Qt.Key.Key_Backspace:
            self.back()
        elif event.key() == Qt.Key.Key_Escape:
            self.cleared.emit()
        else:
            event.ignore()

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self.pointer_left()
        return super().viewportEvent(event)

    def pointer_left(self) -> None:
        """The pointer is no longer over the plot."""

    # Drawing.

    def drawBackground(self, painter: QPainter, rect: QRectF) -> None:  # type: ignore[override]
        painter.fillRect(rect, theme.color("panel"))

    def drawForeground(self, painter: QPainter, rect: QRectF) -> None:  # type: ignore[override]
        self.paint_plot(painter)
        if self._ring and self.hasFocus():
            painter.setPen(QPen(theme.color("accent"), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.plot_rect().adjusted(-2.5, -2.5, 2.5, 2.5))

    def paint_plot(self, painter: QPainter) -> None:
        """Draw everything that is not a scene item, in pixels."""

    def paint_to(self, painter: QPainter, vector: bool) -> None:
        """Draw the plot for a file, at its size on screen; ``vector`` keeps shapes and text."""
        if vector:
            painter.fillRect(QRectF(self.viewport().rect()), theme.color("panel"))
            self.paint_plot(painter)
        else:
            self.render(painter, QRectF(self.viewport().rect()), self.viewport().rect())

    def column_ticks(self, metrics: QFontMetricsF) -> list[int]:
        """Return the columns that get a label: words always, numbers where there is room."""
        if not self.columns:
            return []
        width = self.column_px()
        room = max(metrics.horizontalAdvance(text) for text in self.columns) + 20
        step = next((s for s in _STEPS if s * width >= room), _STEPS[-1])
        low = max(int(self._view.left()), 0)
        high = min(int(self._view.right()) + 1, len(self.columns))
        words = [j for j in range(low, high) if not self.columns[j].lstrip("-").isdigit()]
        if len(words) > 4:
            return [j for j in range(low, high) if j % step == 0]
        chosen = list(words)
        for j in range(low, high):
            text = self.columns[j]
            far = all(abs(j - word) * width >= room for word in words)
            if j not in words and int(text) % step == 0 and far:
                chosen.append(j)
        return sorted(chosen)

    def paint_columns(self, painter: QPainter, caption: str, readout: str) -> None:
        """Draw the labels of the columns, what they are, and what is under the pointer."""
        rect = self.plot_rect()
        small = theme.font("caption")
        painter.setFont(small)
        painter.setPen(theme.color("muted"))
        for j in self.column_ticks(QFontMetricsF(small)):
            x = self.x_px(j + 0.5)
            if rect.left() - 1 <= x <= rect.right() + 1:
                box = QRectF(x - 40, rect.bottom() + 4, 80, 15)
                painter.drawText(box, CENTRE, self.columns[j])
        figures = theme.font("small_number")
        metrics = QFontMetricsF(figures)
        shown = metrics.elidedText(readout, Qt.TextElideMode.ElideMiddle, rect.width() + 50)
        if metrics.horizontalAdvance(shown) < rect.width() / 2 + 20:
            box = QRectF(rect.left(), rect.bottom() + 22, rect.width(), 16)
            painter.drawText(box, CENTRE, caption)
        painter.setFont(figures)
        painter.setPen(theme.color("text"))
        box = QRectF(rect.left(), rect.bottom() + 22, rect.width() + 50, 16)
        painter.drawText(box, RIGHT_ALIGNED, shown)


CENTRE = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter)
RIGHT_ALIGNED = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
LEFT_ALIGNED = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
