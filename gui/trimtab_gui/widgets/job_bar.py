"""The bottom line of the window: the running job, how far it is, and how the document stands."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.labels import ElidedLabel, label, set_tone

_TONES = {"ok": "aligned", "error": "danger", "cancelled": "muted"}
_ICONS = {"ok": "check-circle-outline", "error": "alert-circle-outline", "cancelled": "stop"}
_TICK_MS = 40


class ProgressLine(QWidget):
    """A thin bar; None as its fraction means busy without knowing how long."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fraction: float | None = 0.0
        self._phase = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._advance)
        self.setFixedHeight(6)
        theme.manager().changed.connect(self.update)

    def set_fraction(self, fraction: float | None) -> None:
        """Show a fraction in 0..1."""
        self._fraction = fraction
        self._set_moving(self.isVisible())
        self.update()

    def fraction(self) -> float | None:
        """Return the fraction shown."""
        return self._fraction

    def sizeHint(self) -> QSize:
        return QSize(240, 6)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._set_moving(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._set_moving(False)

    def _set_moving(self, shown: bool) -> None:
        busy = shown and self._fraction is None and not theme.reduced_motion()
        if not busy:
            self._timer.stop()
        elif not self._timer.isActive():
            self._timer.start()

    def _advance(self) -> None:
        self._phase = (self._phase + 0.02) % 1.0
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        width, height = float(self.width()), float(self.height())
        painter.setBrush(theme.color("line"))
        painter.drawRoundedRect(QRectF(0, 0, width, height), height / 2, height / 2)
        painter.setBrush(theme.color("accent"))
        if self._fraction is None:
            start = (width + width * 0.3) * self._phase - width * 0.3
            bar = QRectF(start, 0, width * 0.3, height).intersected(QRectF(0, 0, width, height))
        else:
            bar = QRectF(0, 0, width * min(max(self._fraction, 0.0), 1.0), height)
        if bar.width() > 0:
            painter.drawRoundedRect(bar, height / 2, height / 2)


class JobBar(QWidget):
    """Title, bar, counts and a way to cancel; at the right a quiet ``status`` label."""

    cancel_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 0, 14, 0)
        row.setSpacing(10)
        self._mark = QToolButton()
        self._mark.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._mark.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._mark.setIconSize(QSize(15, 15))
        self._title = label("", "body")
        self.bar = ProgressLine()
        self.bar.setFixedWidth(240)
        self._text = ElidedLabel("", "small_number", "muted")
        self._cancel = QToolButton()
        self._cancel.setText(self.tr("Cancel"))
        self._cancel.setFont(theme.font("caption"))
        self._cancel.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._cancel.setToolTip(self.tr("Stop the running job"))
        self._cancel.setAccessibleName(self.tr("Cancel the running job"))
        theme.bind_icon(self._cancel, "close", "muted")
        self._cancel.setIconSize(QSize(13, 13))
        self._cancel.clicked.connect(self._ask_cancel)
        self.status = label("", "caption", "muted")
        row.addWidget(self._mark)
        row.addWidget(self._title)
        row.addWidget(self.bar)
        row.addWidget(self._cancel)
        row.addWidget(self._text, 1)
        row.addWidget(self.status)
        self.setFixedHeight(34)
        self._kind = ""
        theme.manager().changed.connect(self._recolour)
        self.clear()

    def show_job(self, title: str) -> None:
        """Begin to show a job."""
        self._set_kind("")
        self._title.setText(title)
        self._text.setText("")
        set_tone(self._text, "muted")
        self._title.show()
        self.bar.show()
        self._cancel.show()
        self._cancel.setEnabled(True)
        self.bar.set_fraction(None)
        self.bar.setAccessibleName(title)

    def set_progress(self, fraction: float | None, text: str) -> None:
        """Show how far the job is (0..1, None: unknown) and its counts, rate and time left."""
        self.bar.set_fraction(fraction)
        self._text.setText(text)
        spoken = "" if fraction is None else f"{fraction:.0%}"
        self.bar.setAccessibleDescription(spoken)

    def finish(self, text: str, kind: str = "ok") -> None:
        """Show the end of a job; ``kind`` is ok, error or cancelled."""
        self._set_kind(kind)
        self.bar.set_fraction(0.0)
        self.bar.hide()
        self._cancel.hide()
        self._text.setText(text)
        set_tone(self._text, _TONES[kind])

    def clear(self) -> None:
        """Show no job."""
        self._set_kind("")
        self._title.setText("")
        self._text.setText("")
        self.bar.set_fraction(0.0)
        for widget in (self._title, self.bar, self._cancel):
            widget.hide()

    def texts(self) -> tuple[str, str]:
        """Return title and text as they are shown."""
        return self._title.text(), self._text.text()

    def _ask_cancel(self) -> None:
        # Greyed at once: the click is acknowledged before the worker has answered.
        self._cancel.setEnabled(False)
        self._text.setText(self.tr("Cancelling …"))
        self.cancel_requested.emit()

    def _set_kind(self, kind: str) -> None:
        self._kind = kind
        self._mark.setVisible(bool(kind))
        self._recolour()

    def _recolour(self) -> None:
        if self._kind:
            self._mark.setIcon(theme.icon(_ICONS[self._kind], _TONES[self._kind]))
