"""An arc that shows one measured share at a glance."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from trimtab_gui import theme

_START = 215.0
_SPAN = 250.0
_STROKE = 9.0
_DIAMETER = 92.0


class Gauge(QWidget):
    """A number in an arc of 250 degrees, with what it is and how it changed written below."""

    def __init__(
        self,
        caption: str,
        color_role: str,
        unit: str = "%",
        maximum: float = 100.0,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._caption, self._role, self._unit = caption, color_role, unit
        self._maximum = maximum
        self._value: float | None = None
        self._text, self._note = "–", ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(caption)
        self._describe()
        theme.manager().changed.connect(self.update)

    def set_value(self, value: float | None, text: str, note: str = "") -> None:
        """Show ``value`` (0..maximum; None: nothing measured yet) as ``text`` with a ``note``."""
        if (value, text, note) == (self._value, self._text, self._note):
            return
        self._value, self._text, self._note = value, text, note
        self._describe()
        self.update()

    def _describe(self) -> None:
        known = self._value is not None
        spoken = f"{self._text} {self._unit}" if known else self.tr("not measured")
        self.setAccessibleDescription(f"{spoken} {self._note}".strip())
        self.setToolTip(f"{self._caption}: {spoken}")

    def value(self) -> float | None:
        """Return what is shown."""
        return self._value

    def sizeHint(self) -> QSize:
        return QSize(132, 128)

    def minimumSizeHint(self) -> QSize:
        return QSize(104, 128)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        centre = QPointF(self.width() / 2, 4 + _DIAMETER / 2 + _STROKE / 2 - 2)
        arc = QRectF(centre.x() - _DIAMETER / 2, centre.y() - _DIAMETER / 2, _DIAMETER, _DIAMETER)
        pen = QPen(theme.color("line"), _STROKE)
        pen.setCapStyle(Qt.PenCapStyle.RoundCap)
        painter.setPen(pen)
        painter.drawArc(arc, round(_START * 16), round(-_SPAN * 16))
        if self._value is not None:
            share = min(max(self._value / self._maximum, 0.0), 1.0)
            if share > 0:
                pen.setColor(theme.role_color(self._role))
                painter.setPen(pen)
                painter.drawArc(arc, round(_START * 16), round(-_SPAN * share * 16))
        self._paint_number(painter, centre)
        middle = int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter)
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("muted"))
        painter.drawText(QRectF(0, 92, self.width(), 16), middle, self._caption)
        painter.setFont(theme.font("small_number"))
        painter.setPen(theme.text_color(self._role))
        painter.drawText(QRectF(0, 108, self.width(), 16), middle, self._note)

    def _paint_number(self, painter: QPainter, centre: QPointF) -> None:
        large = theme.font("large_number")
        small = theme.font("caption")
        known = self._value is not None
        unit = self._unit if known else ""
        number = QFontMetricsF(large).horizontalAdvance(self._text)
        extra = QFontMetricsF(small).horizontalAdvance(unit) + 2 if unit else 0.0
        left = centre.x() - (number + extra) / 2
        baseline = centre.y() + 7.5
        painter.setFont(large)
        painter.setPen(theme.color("text" if known else "muted"))
        painter.drawText(QPointF(left, baseline), self._text)
        if unit:
            painter.setFont(small)
            painter.setPen(theme.color("muted"))
            painter.drawText(QPointF(left + number + 2, baseline), unit)
