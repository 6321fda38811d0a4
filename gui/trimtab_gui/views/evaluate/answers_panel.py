"""The answers themselves: what each target said to a prompt, and what the judge made of it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import Exchange, Facts, Reply
from trimtab_gui.widgets import Choice, ElidedLabel, Panel, label, quiet_button
from trimtab_gui.widgets.answer_card import AnswerCard

_MOST = 4000


def verdict_text(reply: Reply) -> str:
    """Return what was made of an answer, in a word or two."""
    if reply.right is not None:
        return "right" if reply.right else "wrong"
    verdict = reply.verdict
    if verdict is None:
        return ""
    return verdict.outcome if verdict.score is None else f"{verdict.outcome}, {verdict.score} of 5"


class AnswersPanel(Panel):
    """Prompts one at a time, filtered by how they changed sides between the two compared."""

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("Answers")
        self.set_title(self.tr("Answers"))
        self._evaluating = evaluating
        self._place = 0
        self._found: list[Exchange] = []
        self.filter, self.category = Choice(), Choice()
        self.filter.setAccessibleName(self.tr("Which prompts"))
        self.category.setAccessibleName(self.tr("Category"))
        for box in (self.filter, self.category):
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(6)
        self.filter.activated.connect(self._search)
        self.category.activated.connect(self._search)
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.filter, 1)
        top.addWidget(self.category, 1)
        self._top = QWidget()
        self._top.setLayout(top)
        top.setContentsMargins(0, 0, 0, 0)
        self.body.addWidget(self._top)
        self.prompt = label("", "body", "muted")
        self.prompt.setWordWrap(True)
        self.prompt.setAccessibleName(self.tr("Prompt"))
        self.prompt.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.cards: list[AnswerCard] = []
        content = QWidget()
        content.setObjectName("scrolled")
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(theme.ROW_GAP)
        self._list.addWidget(self.prompt)
        self._list.addStretch(1)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setWidget(content)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.body.addWidget(self._area, 1)
        foot = QHBoxLayout()
        foot.setSpacing(6)
        self.previous = quiet_button("chevron-left", self.tr("Previous prompt"))
        self.next = quiet_button("chevron-right", self.tr("Next prompt"))
        self.previous.clicked.connect(lambda: self.step(-1))
        self.next.clicked.connect(lambda: self.step(1))
        self._where = ElidedLabel("", "caption", "muted")
        foot.addWidget(self.previous)
        foot.addWidget(self.next)
        foot.addWidget(self._where, 1)
        self._foot = QWidget()
        self._foot.setLayout(foot)
        foot.setContentsMargins(0, 0, 0, 0)
        self.body.addWidget(self._foot)
        evaluating.results_changed.connect(self._new_results)
        evaluating.pair_changed.connect(self._offer)
        self._new_results()

    # What is looked through.

    def _new_results(self) -> None:
        self.category.clear()
        self.category.addItem(self.tr("all categories"), None)
        facts = self._evaluating.facts
        if facts is not None:
            kinds = dict.fromkeys(e.prompt.category for e in facts.exchanges)
            for name in kinds:
                self.category.addItem(name or self.tr("no category"), name)
        self._offer()

    def _offer(self) -> None:
        """Offer the ways in which prompts changed sides, with their numbers."""
        kept = self.filter.currentData()
        facts, pair = self._evaluating.facts, self._evaluating.pair
        self.filter.clear()
        if facts is not None:
            self.filter.addItem(self.tr("all prompts"), "")
        if facts is not None and pair is not None:
            sides = [facts.sides(exchange, *pair) for exchange in facts.exchanges]
            for side in sorted(set(sides) - {""}):
                self.filter.addItem(f"{side}: {sides.count(side)}", side)
        self.filter.setCurrentIndex(max(self.filter.findData(kept), 0))
        self._search()

    def show_category(self, name: str) -> None:
        """Look through one category's prompts."""
        place = self.category.findText(name)
        if place >= 0:
            self.category.setCurrentIndex(place)
            self._search()

    def _search(self) -> None:
        facts = self._evaluating.facts
        shown = facts is not None
        self._top.setVisible(shown)
        self._foot.setVisible(shown)
        self._found = [] if facts is None else self._matching(facts)
        self._place = 0
        self._show()

    def _matching(self, facts: Facts) -> list[Exchange]:
        side, category, pair = (
            self.filter.currentData(), self.category.currentData(), self._evaluating.pair,
        )  # fmt: skip
        return [
            exchange
            for exchange in facts.exchanges
            if (category is None or exchange.prompt.category == category)
            and (not side or (pair is not None and facts.sides(exchange, *pair) == side))
        ]

    # One prompt.

    def step(self, by: int) -> None:
        """Go on to another prompt."""
        if self._found:
            self._place = min(max(self._place + by, 0), len(self._found) - 1)
            self._show()

    @property
    def shown(self) -> Exchange | None:
        """The prompt that is shown, with its answers."""
        return self._found[self._place] if self._found else None

    def _show(self) -> None:
        exchange, facts = self.shown, self._evaluating.facts
        count = len(self._found)
        self.previous.setEnabled(self._place > 0)
        self.next.setEnabled(self._place < count - 1)
        if exchange is None or facts is None:
            self._where.setText(self.tr("none") if facts is not None else "")
            self.prompt.setText(
                self.tr("No prompt is like that.") if facts is not None
                else self.tr("What each model said, prompt by prompt, and why the judge took it "
                             "for a refusal or an answer.")
            )  # fmt: skip
            self._fill(())
            self.set_aside("")
            return
        kind = {"harmful": self.tr("harmful"), "lookalike": self.tr("looks harmful, is not"),
                "utility": self.tr("has a right answer")}.get(exchange.prompt.kind, "")  # fmt: skip
        self.set_aside(kind)
        where = self.tr("{i} of {n}").format(i=self._place + 1, n=f"{count:,}")
        self._where.setText(" · ".join(p for p in (where, exchange.prompt.category) if p))
        self.prompt.setText(exchange.prompt.asked[:_MOST])
        self._fill(exchange.replies)
        self._area.verticalScrollBar().setValue(0)

    def _fill(self, replies: tuple[Reply, ...]) -> None:
        facts = self._evaluating.facts
        while len(self.cards) < len(replies):
            card = AnswerCard()
            self._list.insertWidget(self._list.count() - 1, card)
            self.cards.append(card)
        for i, card in enumerate(self.cards):
            card.setVisible(i < len(replies))
            if i < len(replies) and facts is not None:
                reply = replies[i]
                target = facts.target(reply.target)
                reason = reply.verdict.reason if reply.verdict is not None else ""
                text = reply.answer.strip()[:_MOST] or self.tr("(nothing)")
                card.show_answer(target.info.role, target.name, text, verdict_text(reply), reason)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_PageDown: 1, Qt.Key.Key_PageUp: -1}
        step = steps.get(Qt.Key(event.key()))
        if step is None:
            super().keyPressEvent(event)
        else:
            self.step(step)
