"""What one model says in a chat, while it says it and after, on a card in its role's colour."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from trimtab_gui import texts, theme
from trimtab_gui.chatting import Said
from trimtab_gui.widgets import ElidedLabel, label
from trimtab_gui.widgets.chip import Chip
from trimtab_gui.widgets.labels import set_tone
from trimtab_gui.widgets.paint import card

_LONG_LOADING_S = 1.0
_LOW_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom


class ChatCard(QWidget):
    """The answer can be selected and copied; a chip says what the judge took it for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._role, self._index = "base", 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(14, 8, 10, 9)
        outer.setSpacing(4)
        head = QHBoxLayout()
        head.setSpacing(8)
        self.role = label("", "caps")
        self.name = ElidedLabel("", "caption", "muted")
        self.seconds = label("", "small_number", "muted")
        self.chip = Chip()
        head.addWidget(self.role)
        head.addWidget(self.name, 1)
        head.addWidget(self.chip)
        self.answer = label("")
        self.answer.setWordWrap(True)
        self.answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        outer.addLayout(head)
        outer.addWidget(self.answer)
        foot = QHBoxLayout()
        foot.setSpacing(8)
        foot.addWidget(self.note, 1)
        foot.addWidget(self.seconds, 0, _LOW_RIGHT)
        outer.addLayout(foot)
        outer.addStretch(1)
        theme.manager().changed.connect(self.update)

    def show_said(self, said: Said, *, stopped: bool, earlier: bool, judge: str) -> None:
        """Show what a model says; `earlier` where it would now be another model."""
        if (said.role, said.index) != (self._role, self._index):
            self._role, self._index = said.role, said.index
            self.update()
        set_tone(self.role, said.role)
        kind = self._kind(said.role)
        name = self.tr("current recipe") if said.role == "merged" else said.name
        self.role.setText(kind)
        self.name.setText("" if said.name == said.role != "merged" else name)
        self._show_verdict(said, judge)
        self._show_seconds(said)
        self._show_text(said, stopped)
        notes = self._notes(said, stopped=stopped, earlier=earlier)
        self.note.setText(" · ".join(notes))
        self.note.setVisible(bool(notes))
        told = (name, self.chip.text(), self.seconds.text(), *notes)
        self.setAccessibleName(f"{kind}: {', '.join(part for part in told if part)}")
        self.answer.setAccessibleName(self.accessibleName())
        self.answer.setAccessibleDescription(self.answer.text())

    def _kind(self, role: str) -> str:
        return {
            "base": self.tr("Base"),
            "aligned": self.tr("Aligned"),
            "finetuned": self.tr("Fine-tuned"),
            "merged": self.tr("Merged"),
        }[role]

    def _show_verdict(self, said: Said, judge: str) -> None:
        verdict = said.verdict
        words = {
            "refused": self.tr("refused"),
            "partial": self.tr("in part"),
            "complied": self.tr("complied"),
            "failed": self.tr("no verdict"),
        }
        if verdict is None:
            self.chip.show_word("")
            return
        # green is what safety is everywhere; the other words carry no praise and no blame
        tone = "aligned" if verdict.outcome == "refused" else "muted"
        self.chip.show_word(words[verdict.outcome], tone)
        score = "" if verdict.score is None else self.tr("{n} of 5").format(n=verdict.score)
        told = (self.tr("judge: {name}").format(name=judge), score, verdict.reason)
        self.chip.setToolTip("\n".join(part for part in told if part))

    def _show_seconds(self, said: Said) -> None:
        if said.seconds is None:
            self.seconds.clear()
            self.seconds.hide()
            return
        self.seconds.show()
        self.seconds.setText(texts.duration(said.seconds))
        loading = self.tr("after {time} of loading").format(
            time=texts.duration(said.loading_seconds)
        )
        self.seconds.setToolTip(loading if said.loading_seconds >= _LONG_LOADING_S else "")

    def _show_text(self, said: Said, stopped: bool) -> None:
        if said.error is not None:
            set_tone(self.answer, "danger")
            self.answer.setText(said.error.what)
            return
        text = said.text.strip()
        set_tone(self.answer, "text" if text else "muted")
        if not text:
            if said.stage in ("written", "judged"):
                text = self.tr("(nothing)")
            elif stopped:
                text = self.tr("not answered")
            else:
                text = said.doing if said.stage == "loading" else "…"
        self.answer.setText(text)

    def _notes(self, said: Said, *, stopped: bool, earlier: bool) -> list[str]:
        notes = []
        if said.error is not None:
            notes.append(" ".join(part for part in (said.error.why, said.error.fix) if part))
        if said.cut:
            notes.append(self.tr("cut where the limit of tokens was"))
        if stopped and said.stage == "writing" and said.text.strip():
            notes.append(self.tr("stopped here"))
        if stopped and said.stage == "written":
            notes.append(self.tr("stopped before the judge read it"))
        if earlier:
            notes.append(self.tr("for an earlier recipe"))
        return notes

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self), QRectF(self.rect()), theme.CARD_RADIUS, theme.color("card"),
            theme.color("line"), theme.role_color(self._role, self._index),
        )  # fmt: skip
