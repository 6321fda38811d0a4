"""A labelled slider for a ratio whose value can also be typed."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QDoubleValidator,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QSlider,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from trimtab_gui import theme
from trimtab_gui.widgets.labels import ElidedLabel
from trimtab_gui.widgets.labels import label as make_label
from trimtab_gui.widgets.paint import faded
from trimtab_gui.widgets.slider_scale import EvenScale, SliderScale

_HANDLE = 12.0
_GROOVE = 4.0


class _Track(QSlider):
    """The groove and handle; it counts whole steps, so that a screen reader knows a slider."""

    pressed = Signal()
    moved = Signal(int)
    released = Signal()
    edit = Signal(str)

    def __init__(self, steps: int, page: int, role: str, index: int) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._role, self._index = role, index
        self._held = False
        self.setRange(0, steps)
        self.setPageStep(page)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)

    def sizeHint(self) -> QSize:
        return QSize(160, 18)

    def minimumSizeHint(self) -> QSize:
        return QSize(60, 18)

    def handle_x(self) -> float:
        """Return the middle of the handle in pixels."""
        share = self.value() / max(self.maximum(), 1)
        return _HANDLE / 2 + share * (self.width() - _HANDLE)

    def _step_at(self, x: float) -> int:
        share = (x - _HANDLE / 2) / max(self.width() - _HANDLE, 1.0)
        return round(min(max(share, 0.0), 1.0) * self.maximum())

    def _take(self, step: int) -> None:
        step = min(max(step, 0), self.maximum())
        if step != self.value():
            self.setValue(step)
            self.moved.emit(step)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            event.ignore()
            return
        self._held = True
        self.pressed.emit()
        x = event.position().x()
        if abs(x - self.handle_x()) > _HANDLE / 2:
            self._take(self._step_at(x))
        self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._held:
            self._take(self._step_at(event.position().x()))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self._held and event.button() == Qt.MouseButton.LeftButton:
            self._held = False
            self.released.emit()
            self.update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.mousePressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        # Only a focused slider turns: scrolling the panel must not change a recipe.
        if not self.hasFocus() or event.angleDelta().y() == 0:
            event.ignore()
            return
        self._step(1 if event.angleDelta().y() > 0 else -1)
        event.accept()

    def _step(self, change: int) -> None:
        self.pressed.emit()
        self._take(self.value() + change)
        self.released.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        changes = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Down: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_Up: 1,
            Qt.Key.Key_PageUp: self.pageStep(),
            Qt.Key.Key_PageDown: -self.pageStep(),
            Qt.Key.Key_Home: -self.maximum(),
            Qt.Key.Key_End: self.maximum(),
        }
        if key in changes:
            self._step(changes[Qt.Key(key)])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2):
            self.edit.emit("")
        elif event.text() and event.text() in "0123456789.,-−":
            self.edit.emit(event.text())
        else:
            event.ignore()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        middle = self.height() / 2
        groove = QRectF(0, middle - _GROOVE / 2, self.width(), _GROOVE)
        x = self.handle_x()
        painter.setBrush(theme.color("line"))
        painter.drawRoundedRect(groove, _GROOVE / 2, _GROOVE / 2)
        on = self.isEnabled()
        painter.setBrush(theme.role_color(self._role, self._index) if on else theme.color("muted"))
        done = QRectF(0, groove.top(), x, _GROOVE)
        painter.drawRoundedRect(done, _GROOVE / 2, _GROOVE / 2)
        if on and (self._held or self.underMouse()):
            painter.setBrush(faded(theme.role_color(self._role, self._index), 0.22))
            painter.drawEllipse(QPointF(x, middle), 9, 9)
        painter.setBrush(theme.color("text" if on else "muted"))
        painter.drawEllipse(QPointF(x, middle), _HANDLE / 2, _HANDLE / 2)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.color("accent"), 1.5))
            painter.drawEllipse(QPointF(x, middle), _HANDLE / 2 + 2, _HANDLE / 2 + 2)


class RatioSlider(QWidget):
    """A value between ``minimum`` and ``maximum`` in whole ``step``s, or on a ``scale``.

    One gesture (a drag, a key, a turn of the wheel, a typed number) is one pair of
    ``drag_started`` and ``drag_finished``; ``value_moved`` follows the hand in between.
    """

    value_moved = Signal(float)
    drag_started = Signal()
    drag_finished = Signal(float)

    def __init__(
        self,
        label: str,
        minimum: float,
        maximum: float,
        value: float,
        step: float = 0.01,
        color_role: str = "accent",
        decimals: int = 2,
        suffix: str = "",
        parent: QWidget | None = None,
        *,
        color_index: int = 0,
        scale: SliderScale | None = None,
    ) -> None:
        super().__init__(parent)
        self._scale: SliderScale = scale or EvenScale(minimum, maximum, step, decimals, suffix)
        self._minimum, self._maximum = self._scale.minimum, self._scale.maximum
        self._exact = value
        self.track = _Track(self._scale.steps, 10, color_role, color_index)
        self._label = ElidedLabel(label, "body", mode=Qt.TextElideMode.ElideMiddle)
        self._value = make_label("", "number")
        self._value.setAlignment(_RIGHT)
        self._value.setToolTip(self.tr("Double click to type a value"))
        self._value.installEventFilter(self)
        self._edit = QLineEdit()
        self._edit.setProperty("kind", "inplace")
        self._edit.setFont(theme.font("number"))
        self._edit.setAlignment(_RIGHT)
        self._edit.setValidator(QDoubleValidator(self._minimum, self._maximum, 12, self._edit))
        self._edit.setAccessibleName(label)
        self._edit.installEventFilter(self)
        self._edit.editingFinished.connect(self._commit)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._value)
        self._stack.addWidget(self._edit)
        self._stack.setFixedSize(72, 20)
        self._stack.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        head = QHBoxLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.addWidget(self._label, 1)
        head.addWidget(self._stack)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addLayout(head)
        outer.addWidget(self.track)
        self.track.setAccessibleName(label)
        self.track.pressed.connect(self.drag_started)
        self.track.moved.connect(self._moved)
        self.track.released.connect(lambda: self.drag_finished.emit(self._exact))
        self.track.edit.connect(self.begin_edit)
        theme.manager().changed.connect(self.track.update)
        self.set_value(value)

    def value(self) -> float:
        """Return the value."""
        return self._exact

    def set_value(self, value: float) -> None:
        """Show ``value`` without emitting; one beyond the limits is told, the handle stays."""
        self._exact = value
        held = min(max(value, self._minimum), self._maximum)
        blocked = self.track.blockSignals(True)
        self.track.setValue(self._scale.step_of(held))
        self.track.blockSignals(blocked)
        self._show()

    def set_label(self, text: str) -> None:
        """Change the label."""
        self._label.setText(text)
        self.track.setAccessibleName(text)

    def begin_edit(self, typed: str = "") -> None:
        """Open the value for typing, beginning with ``typed`` instead of the present value."""
        self._edit.setText(typed or self._editable())
        self._stack.setCurrentWidget(self._edit)
        self._edit.setFocus(Qt.FocusReason.OtherFocusReason)
        if not typed:
            self._edit.selectAll()

    def _editable(self) -> str:
        return self._scale.editable(self._exact)

    def text(self) -> str:
        """Return the value as it is written."""
        return self._scale.text(self._exact)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._value and event.type() == QEvent.Type.MouseButtonDblClick:
            self.begin_edit()
            return True
        if (
            watched is self._edit
            and isinstance(event, QKeyEvent)
            and event.type() == QEvent.Type.KeyPress
            and event.key() == Qt.Key.Key_Escape
        ):
            self._close_edit()
            return True
        return super().eventFilter(watched, event)

    def _close_edit(self) -> None:
        # Hiding the line finishes an edit: that must not count as one here.
        blocked = self._edit.blockSignals(True)
        self._stack.setCurrentWidget(self._value)
        self._edit.blockSignals(blocked)
        self.track.setFocus(Qt.FocusReason.OtherFocusReason)

    def _commit(self) -> None:
        if self._stack.currentWidget() is not self._edit:
            return
        typed = self._edit.text().replace(",", ".").replace("−", "-")
        held = self._edit.hasFocus()
        self._stack.setCurrentWidget(self._value)
        if held:
            self.track.setFocus(Qt.FocusReason.OtherFocusReason)
        if typed == self._editable():
            return  # opened and left as it was: not even rounded
        try:
            value = min(max(float(typed), self._minimum), self._maximum)
        except ValueError:
            return
        if value != self._exact:
            self.drag_started.emit()
            self.set_value(value)
            self.value_moved.emit(value)
            self.drag_finished.emit(value)

    def _moved(self, step: int) -> None:
        self._exact = self._scale.value_at(step)
        self._show()
        self.value_moved.emit(self._exact)

    def _show(self) -> None:
        self._value.setText(self.text())
        self.track.setAccessibleDescription(self.text())


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
