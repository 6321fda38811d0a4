"""What one model said, under its name in its role's colour, with what was made of it."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.widgets.labels import ElidedLabel, label, set_tone
from trimtab_gui.widgets.paint import card


class AnswerCard(QWidget):
    """The answer can be selected and copied; the judge's reason stands below it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(12, 8, 10, 9)
        outer.setSpacing(3)
        head = QHBoxLayout()
        head.setSpacing(8)
        self.name = ElidedLabel("", "strong")
        self.verdict = label("", "caption", "muted")
        head.addWidget(self.name, 1)
        head.addWidget(self.verdict)
        self.answer = label("")
        self.answer.setWordWrap(True)
        self.answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.reason = ElidedLabel("", "caption", "muted")
        outer.addLayout(head)
        outer.addWidget(self.answer)
        outer.addWidget(self.reason)
        theme.manager().changed.connect(self.update)

    def show_answer(self, role: str, name: str, text: str, verdict: str, reason: str) -> None:
        """Show an answer."""
        set_tone(self.name, role if role in theme.ROLES else "muted")
        self.name.setText(name)
        self.answer.setText(text)
        self.verdict.setText(verdict)
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))
        self.setAccessibleName(f"{name}: {verdict}")
        self.answer.setAccessibleName(self.accessibleName())
        self.answer.setAccessibleDescription(text)

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self), QRectF(self.rect()), theme.CARD_RADIUS,
            theme.color("card"), theme.color("line"),
        )  # fmt: skip
