"""The Evaluate place: choices at the left, plots in the middle, answers at the right."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QWidget

from trimtab_gui.chatting import Chatting
from trimtab_gui.deciding import Deciding
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.plots.card import PlotCard
from trimtab_gui.sweeping import Sweeping
from trimtab_gui.views.columns import column, scrolled, splitter, three_columns
from trimtab_gui.views.evaluate.answers_panel import AnswersPanel
from trimtab_gui.views.evaluate.change_panel import ChangePanel
from trimtab_gui.views.evaluate.chat_panel import ChatPanel
from trimtab_gui.views.evaluate.coverage_card import CoverageCard
from trimtab_gui.views.evaluate.decisions_sheet import DecisionsSheet
from trimtab_gui.views.evaluate.dots_card import DotsCard
from trimtab_gui.views.evaluate.run_panel import RunPanel
from trimtab_gui.views.evaluate.slopes_card import SlopesCard
from trimtab_gui.views.evaluate.suites_panel import SuitesPanel
from trimtab_gui.views.evaluate.sweep_card import SweepCard
from trimtab_gui.views.evaluate.targets_panel import TargetsPanel
from trimtab_gui.views.evaluate.thresholds_panel import ThresholdsPanel
from trimtab_gui.views.evaluate.trade_card import TradeCard
from trimtab_gui.widgets.tabs import Tabs
from trimtab_gui.widgets.title_switch import TitleSwitch

LEFT, RIGHT, RIGHT_LEAST, TRADE_LEAST = 264, 322, 290, 300


class EvaluatePlace(QWidget):
    """``run_requested`` begins an evaluation, ``stop_requested`` gives it up."""

    run_requested = Signal()
    stop_requested = Signal()
    provenance_requested = Signal()

    def __init__(self, desk: Desk, evaluating: Evaluating, sweeping: Sweeping) -> None:
        super().__init__()
        self._session, self._evaluating = desk.session, evaluating
        self.targets = TargetsPanel(desk, evaluating)
        self.suites = SuitesPanel(desk, evaluating)
        self.thresholds = ThresholdsPanel(evaluating)
        self.dots = DotsCard(evaluating)
        self.slopes = SlopesCard(evaluating)
        self.categories = CategoryCards(self.dots, self.slopes)
        self.coverage = CoverageCard(evaluating)
        self.trade = TradeCard(evaluating)
        self.sweep = SweepCard(desk, sweeping)
        self.trade_offs = QStackedWidget()
        for card, other in ((self.trade, self.sweep), (self.sweep, self.trade)):
            self.trade_offs.addWidget(card)
            card.switched.connect(partial(self.trade_offs.setCurrentWidget, other))
        self.trade_offs.currentChanged.connect(self._make_room)
        self._make_room()
        self.change = ChangePanel(evaluating)
        self.answers = AnswersPanel(evaluating)
        self.chatting = Chatting(desk, evaluating, self)
        self.chat = ChatPanel(self.chatting)
        self.talk = QStackedWidget()
        titles = {"answers": self.tr("Answers"), "chat": self.tr("Chat")}
        self.headings = {key: TitleSwitch(titles, key) for key in titles}
        for key, panel in (("answers", self.answers), ("chat", self.chat)):
            panel.set_heading(self.headings[key])
            self.headings[key].chosen.connect(self.show_talk)
            self.talk.addWidget(panel)
        self._put_in_front(str(desk.session.get("talk", "answers")))
        self.run = RunPanel(desk, evaluating)
        self.deciding = Deciding(desk, evaluating, self)
        self.thresholds.log_requested.connect(self.show_decisions)
        for shows in (self.dots.category_chosen, self.slopes.category_chosen):
            shows.connect(self._show_category)
        self.trade.target_chosen.connect(self._show_change)
        self.thresholds.provenance_requested.connect(self.provenance_requested)
        for asks in (
            self.dots.run_requested, self.slopes.run_requested, self.run.run_requested,
        ):  # fmt: skip
            asks.connect(self.run_requested)
        self.run.stop_requested.connect(self.stop_requested)
        left = column(self.targets, self.suites, self.thresholds, grows=2)
        right = column(self.change, self.talk, self.run, grows=1)
        right.setMinimumWidth(RIGHT_LEAST)
        self.plots = splitter(Qt.Orientation.Horizontal, self.coverage, self.trade_offs)
        self.plots.setStretchFactor(0, 5)
        self.plots.setStretchFactor(1, 3)
        self.plots.setSizes([500, 300])
        self.rows = splitter(Qt.Orientation.Vertical, self.categories, self.plots)
        self.rows.setStretchFactor(0, 11)
        self.rows.setStretchFactor(1, 9)
        self.rows.setSizes([440, 360])
        self.columns = three_columns(scrolled(left, 250), self.rows, right, LEFT, 900, RIGHT)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 0, 14, 0)
        outer.addWidget(self.columns)

    def _make_room(self) -> None:
        """Let the card that is shown be as narrow as it can be, whatever the hidden one needs."""
        card = self.trade_offs.currentWidget()
        least = card.minimumSizeHint().width() if card is not None else 0
        half = self.width() * 2 // 9  # in the narrowest window the two share what there is
        self.trade_offs.setMinimumWidth(min(max(least, TRADE_LEAST), half))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._make_room()

    def show_decisions(self) -> DecisionsSheet:
        """Show what can be decided on the results, and what was decided before."""
        sheet = DecisionsSheet(self._evaluating, self.deciding, self)
        sheet.open()
        return sheet

    def show_talk(self, key: str) -> None:
        """Show the answers of the evaluation, or the chat, and go on with the keyboard there."""
        self._session.set("talk", key)
        self._put_in_front(key)
        goes_on = self.chat.input if key == "chat" else self.headings[key].buttons[key]
        goes_on.setFocus(Qt.FocusReason.OtherFocusReason)

    def _put_in_front(self, key: str) -> None:
        self.talk.setCurrentWidget(self.chat if key == "chat" else self.answers)
        # what is measured is compared beside its answers; a chat takes the room
        self.change.setVisible(key != "chat")

    def _show_category(self, name: str) -> None:
        self._put_in_front("answers")
        self.answers.show_category(name)

    def _show_change(self, target: str) -> None:
        self._put_in_front("answers")
        self.change.show_after(target)

    @property
    def cards(self) -> tuple[PlotCard, ...]:
        """The cards that hold plots."""
        return self.dots, self.slopes, self.coverage, self.trade, self.sweep


class CategoryCards(QStackedWidget):
    """The shares by category, or how they moved; each bears both names in its title's place."""

    def __init__(self, dots: DotsCard, slopes: SlopesCard) -> None:
        super().__init__()
        self.cards: dict[str, PlotCard] = {"dots": dots, "slopes": slopes}
        names = [(key, card.title()) for key, card in self.cards.items()]
        self.tabs: dict[str, Tabs] = {}
        for key, card in self.cards.items():
            tabs = self.tabs[key] = Tabs(self.tr("What is shown by category"), names)
            tabs.set_current(key)
            tabs.chosen.connect(self.choose)
            card.set_heading(tabs)
            self.addWidget(card)

    def choose(self, key: str) -> None:
        """Show a card; the focus stays on its name."""
        before = list(self.cards)[self.currentIndex()]
        focused = any(button.hasFocus() for button in self.tabs[before].buttons.values())
        self.tabs[before].set_current(before)
        self.setCurrentWidget(self.cards[key])
        if focused:
            self.tabs[key].buttons[key].setFocus()
