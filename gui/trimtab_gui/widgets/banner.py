"""A notice in place: what happened, why, and the button that helps; never a modal box."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.buttons import link_button, quiet_button
from trimtab_gui.widgets.labels import label
from trimtab_gui.widgets.paint import card

Action = tuple[str, Callable[[], None]]

_TONES = {"info": "accent", "ok": "aligned", "warning": "finetuned", "error": "danger"}
ICONS = {
    "info": "information-outline",
    "ok": "check-circle-outline",
    "warning": "alert-outline",
    "error": "alert-circle-outline",
}


class Banner(QWidget):
    """Hidden until a message is set; ``dismissed`` when the reader closes it."""

    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = "info"
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 10, 8, 10)
        outer.setSpacing(10)
        self._mark = QLabel()
        self._mark.setFixedSize(18, 18)
        texts = QVBoxLayout()
        texts.setSpacing(3)
        self._what = label("", "strong")
        self._why = label("", "body", "muted")
        self._fix = label("", "body")
        for line in (self._what, self._why, self._fix):
            line.setWordWrap(True)
            line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            texts.addWidget(line)
        self._details = QPlainTextEdit()
        self._details.setObjectName("details")
        self._details.setReadOnly(True)
        self._details.setFont(theme.font("caption"))
        self._details.setFixedHeight(110)
        self._details.setAccessibleName(self.tr("Details"))
        texts.addWidget(self._details)
        self._tools = QWidget()
        self._row = QHBoxLayout(self._tools)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(6)
        texts.addWidget(self._tools)
        self._outer, self._texts = outer, texts
        self._toggle = link_button(self.tr("Details"))
        self._toggle.setCheckable(True)
        self._toggle.toggled.connect(self._details.setVisible)
        self._row.addWidget(self._toggle)
        self._buttons: list[QPushButton] = []
        self._close = quiet_button("close", self.tr("Dismiss"))
        self._close.setIconSize(QSize(14, 14))
        self._close.clicked.connect(self.dismiss)
        outer.addWidget(self._mark, 0, Qt.AlignmentFlag.AlignTop)
        outer.addLayout(texts, 1)
        outer.addWidget(self._close, 0, Qt.AlignmentFlag.AlignTop)
        theme.manager().changed.connect(self._recolour)
        self.hide()

    def set_message(
        self,
        kind: str,
        what: str,
        why: str = "",
        fix: str = "",
        details: str = "",
        actions: list[Action] | None = None,
    ) -> None:
        """Show a message; ``kind`` is info, ok, warning or error, details stay folded."""
        self._kind = kind
        for line, text in ((self._what, what), (self._why, why), (self._fix, fix)):
            line.setText(text)
            line.setVisible(bool(text))
        self._details.setPlainText(details)
        self._toggle.setChecked(False)
        self._details.hide()
        self._toggle.setVisible(bool(details))
        for button in self._buttons:
            self._row.removeWidget(button)
            button.deleteLater()
        self._buttons = []
        for position, (text, callback) in enumerate(actions or []):
            button = QPushButton(text)
            button.clicked.connect(lambda _checked=False, call=callback: call())
            self._row.insertWidget(position, button)
            self._buttons.append(button)
        self._place_tools(compact=not (why or fix))
        self.setAccessibleName(what)
        self.setAccessibleDescription(" ".join(part for part in (why, fix) if part))
        self._recolour()
        self.show()

    def _place_tools(self, compact: bool) -> None:
        """Put the buttons beside a message of one line, under a longer one."""
        level = Qt.AlignmentFlag.AlignVCenter if compact else Qt.AlignmentFlag.AlignTop
        for widget in (self._mark, self._close):
            self._outer.setAlignment(widget, level)
        if compact:
            self._outer.insertWidget(2, self._tools, 0, level)
        else:
            self._texts.addWidget(self._tools, 0, Qt.AlignmentFlag.AlignLeft)
        self._tools.setVisible(bool(self._buttons) or not self._toggle.isHidden())

    def kind(self) -> str:
        """Return the kind of the message shown."""
        return self._kind

    def text(self) -> str:
        """Return what happened, as shown."""
        return self._what.text()

    def buttons(self) -> list[QPushButton]:
        """Return the buttons of the actions offered."""
        return list(self._buttons)

    def dismiss(self) -> None:
        """Hide the notice."""
        self.hide()
        self.dismissed.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.dismiss()
        else:
            super().keyPressEvent(event)

    def _recolour(self) -> None:
        ratio = self.devicePixelRatioF()
        mark = theme.icon(ICONS[self._kind], _TONES[self._kind])
        self._mark.setPixmap(mark.pixmap(QSize(18, 18), ratio))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        tokens = theme.current()
        tone = tokens.get(_TONES[self._kind])
        card(
            QPainter(self),
            QRectF(self.rect()),
            theme.CARD_RADIUS,
            QColor(theme.mix(tokens.card, tone, 0.06)),
            QColor(theme.mix(tokens.line, tone, 0.35)),
            QColor(tone),
        )
