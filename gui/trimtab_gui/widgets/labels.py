"""Labels in the window's few kinds of text, and one that shortens what does not fit."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from trimtab_gui import theme


def label(text: str = "", kind: theme.Kind = "body", tone: str = "text") -> QLabel:
    """Return a label; ``tone`` is text, muted, accent, danger or a role."""
    result = QLabel(text)
    result.setTextFormat(Qt.TextFormat.PlainText)
    result.setFont(theme.font(kind))
    set_tone(result, tone)
    return result


def set_tone(target: QWidget, tone: str) -> None:
    """Give a label the colour of a token, live through theme changes."""
    if target.property("tone") != tone:
        target.setProperty("tone", tone)
        target.style().unpolish(target)
        target.style().polish(target)


class ElidedLabel(QLabel):
    """One line that ends in an ellipsis where the room ends; the full text is its tooltip."""

    def __init__(
        self,
        text: str = "",
        kind: theme.Kind = "body",
        tone: str = "text",
        mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._mode = mode
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setFont(theme.font(kind))
        set_tone(self, tone)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setText(text)

    def setText(self, text: str, /) -> None:
        super().setText(text)
        self._refresh_tip()

    def minimumSizeHint(self) -> QSize:
        return QSize(16, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._refresh_tip()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        short = self.fontMetrics().elidedText(self.text(), self._mode, self.width())
        painter.drawText(self.rect(), int(self.alignment()), short)

    def _refresh_tip(self) -> None:
        fits = self.fontMetrics().horizontalAdvance(self.text()) <= self.width()
        self.setToolTip("" if fits else self.text())
