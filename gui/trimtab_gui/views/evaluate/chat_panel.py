"""The chat: one prompt, answered by the models of the recipe side by side."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent, QTextCursor
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from trimtab_gui import theme
from trimtab_gui.chatting import Chatting
from trimtab_gui.theme import bind_icon
from trimtab_gui.views.evaluate.chat_card import ChatCard
from trimtab_gui.widgets import Panel, label, quiet_button
from trimtab_gui.widgets.buttons import link_button

#: px that a card needs to stand beside others
_BESIDE = 256
_LINES = 3


class PromptEdit(QPlainTextEdit):
    """``sent`` on Enter; Shift+Enter begins a line. Up and Down at its ends call for others."""

    sent = Signal()

    def __init__(self, older: Callable[[str], str | None], newer: Callable[[], str | None]) -> None:
        super().__init__()
        self._older, self._newer = older, newer
        self.setTabChangesFocus(True)
        height = _LINES * self.fontMetrics().lineSpacing() + 18
        self.setFixedHeight(height)

    def put(self, text: str) -> None:
        """Replace what is written, so that it can be undone."""
        cursor = self.textCursor()
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.insertText(text)
        self.setTextCursor(cursor)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, plain = Qt.Key(event.key()), Qt.KeyboardModifier.KeypadModifier
        bare = not event.modifiers() & ~plain
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and bare:
            self.sent.emit()
        elif key in (Qt.Key.Key_Escape, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown):
            event.ignore()  # the panel's
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and bare and self._at_end(key):
            found = self._older(self.toPlainText()) if key == Qt.Key.Key_Up else self._newer()
            if found is not None:
                self.put(found)
        else:
            super().keyPressEvent(event)

    def _at_end(self, key: Qt.Key) -> bool:
        """Whether there is no line further up or down to go to."""
        cursor = self.textCursor()
        up = key == Qt.Key.Key_Up
        move = QTextCursor.MoveOperation.Up if up else QTextCursor.MoveOperation.Down
        return not cursor.movePosition(move)


class ChatPanel(Panel):
    """The answers above, below each other or side by side as there is room; the prompt below."""

    def __init__(self, chatting: Chatting) -> None:
        super().__init__("Chat")
        self.set_title(self.tr("Chat"))
        self._chatting = chatting
        self.asked = label("", "body", "muted")
        self.asked.setWordWrap(True)
        self.asked.setAccessibleName(self.tr("Prompt"))
        self.asked.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.cards: list[ChatCard] = []
        self._cards = QGridLayout()
        self._arranged = (0, 0)
        self._cards.setSpacing(theme.ROW_GAP)
        self.error = label("", "body", "danger")
        self.error.setWordWrap(True)
        self.advice = label("", "caption", "muted")
        self.advice.setWordWrap(True)
        self.retry = link_button(self.tr("Try again"))
        self.retry.clicked.connect(chatting.again)
        content = QWidget()
        content.setObjectName("scrolled")
        rows = QVBoxLayout(content)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(theme.ROW_GAP)
        for widget in (self.asked, self.error, self.advice):
            rows.addWidget(widget)
        rows.addWidget(self.retry, 0, Qt.AlignmentFlag.AlignLeft)
        rows.addLayout(self._cards)
        rows.addStretch(1)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setWidget(content)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.body.addWidget(self.area, 1)
        self.input = PromptEdit(chatting.prompts.older, chatting.prompts.newer)
        self.input.setPlaceholderText(self.tr("Ask all of them …"))
        self.input.setAccessibleName(self.tr("Prompt for all models"))
        self.input.setAccessibleDescription(
            self.tr("Enter asks, Shift+Enter begins a line, Up brings earlier prompts back.")
        )
        self.input.sent.connect(self.send)
        self.input.textChanged.connect(self.refresh)
        self.body.addWidget(self.input)
        self.how = label("", "caption", "muted")
        self.how.setWordWrap(True)
        self.body.addWidget(self.how)
        self.body.addLayout(self._foot())
        chatting.changed.connect(self.refresh)
        self.refresh()

    def _foot(self) -> QHBoxLayout:
        self.example = quiet_button("dice-5-outline", self.tr("Take a prompt of the suite"))
        self.example.clicked.connect(self.take_example)
        self.button = QPushButton(self.tr("Ask"))
        self.button.setToolTip(self.tr("Ask (Enter)"))
        self.button.clicked.connect(self.send)
        self.stop = QPushButton(self.tr("Stop"))
        self.stop.setToolTip(self.tr("Stop (Esc)"))
        bind_icon(self.stop, "stop", "text")
        self.stop.clicked.connect(self._chatting.stop)
        foot = QHBoxLayout()
        foot.setSpacing(6)
        foot.addWidget(self.example)
        foot.addStretch(1)
        foot.addWidget(self.stop)
        foot.addWidget(self.button)
        return foot

    # Asking.

    def send(self) -> None:
        """Ask what is written; where nothing is, nothing happens."""
        if self._chatting.ask(self.input.toPlainText()):
            self.input.clear()
            self.input.setFocus()
            self.area.verticalScrollBar().setValue(0)

    def take_example(self) -> None:
        """Write a prompt of the suite, to be asked or changed."""
        text = self._chatting.example()
        if text is not None:
            self.input.put(text)
            self.input.setFocus()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        pages = {Qt.Key.Key_PageUp: -1, Qt.Key.Key_PageDown: 1}
        if key == Qt.Key.Key_Escape and self._chatting.state == "answering":
            self._chatting.stop()
        elif key in pages:
            bar = self.area.verticalScrollBar()
            bar.setValue(bar.value() + pages[key] * bar.pageStep())
        else:
            super().keyPressEvent(event)

    # Showing.

    def refresh(self) -> None:
        """Show what was asked, what each model says, and what can be done now."""
        chatting = self._chatting
        obstacle, answering = chatting.obstacle(), chatting.state == "answering"
        self.asked.setText(chatting.prompt or obstacle or self._invitation())
        self._show_error()
        self._fill()
        self.set_aside(self._aside_text())
        judge = self.tr("judge: {name}").format(name=chatting.judge) if chatting.judge else ""
        self.how.setText(" · ".join(part for part in (chatting.decoding, judge) if part))
        written = bool(self.input.toPlainText().strip())
        self.button.setEnabled(written and obstacle is None)
        self.stop.setVisible(answering)
        self.stop.setEnabled(not chatting.stopping)
        self.input.setEnabled(obstacle is None)
        self.example.setEnabled(obstacle is None)
        self.retry.setEnabled(obstacle is None)

    def _invitation(self) -> str:
        return self.tr(
            "Ask once, and read side by side what the aligned model, the fine-tuned ones and the "
            "merge as it now stands answer. Nothing has to be saved for it. Each question is asked "
            "for itself."
        )

    def _aside_text(self) -> str:
        chatting = self._chatting
        if chatting.stopping:
            return self.tr("stopping …")
        if chatting.waits_for:
            return self.tr("waits for: {job}").format(job=chatting.waits_for)
        words = {"answering": self.tr("answering …"), "stopped": self.tr("stopped")}
        return words.get(chatting.state, "")

    def _show_error(self) -> None:
        error = self._chatting.error
        for widget in (self.error, self.advice, self.retry):
            widget.setVisible(error is not None)
        if error is not None:
            self.error.setText(error.what)
            self.advice.setText(" ".join(part for part in (error.why, error.fix) if part))

    def _fill(self) -> None:
        chatting = self._chatting
        while len(self.cards) < len(chatting.said):
            card = ChatCard()
            self.cards.append(card)
        stopped = chatting.state == "stopped"
        for i, card in enumerate(self.cards):
            if i < len(chatting.said):
                said = chatting.said[i]
                card.show_said(
                    said, stopped=stopped, earlier=chatting.is_earlier(said), judge=chatting.judge
                )
            card.setVisible(i < len(chatting.said))
        self._arrange()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        """Put as many cards beside each other as fit, and as many in each row."""
        shown = len(self._chatting.said)
        fit = self.area.width() // (_BESIDE + theme.ROW_GAP)
        columns = next((n for n in range(min(fit, shown), 1, -1) if shown % n == 0), 1)
        if (columns, shown) == self._arranged:
            return
        self._arranged = columns, shown
        for card in self.cards:
            self._cards.removeWidget(card)
        for i, card in enumerate(self.cards[:shown]):
            self._cards.addWidget(card, i // columns, i % columns)
        for column in range(self._cards.columnCount()):
            self._cards.setColumnStretch(column, int(column < columns))
