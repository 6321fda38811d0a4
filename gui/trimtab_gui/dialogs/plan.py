"""What a merge will do: to which tensors, how much it moves, and how long it takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from trimtab.errors import UserError
from trimtab_gui import texts, theme
from trimtab_gui.account import ACTIONS, Account, Share
from trimtab_gui.dialogs.sheets import Sheet
from trimtab_gui.dialogs.tensor_view import TOKENS, TensorModel, TensorView, dot, save_csv
from trimtab_gui.widgets import Banner, label
from trimtab_gui.widgets.job_bar import ProgressLine
from trimtab_gui.widgets.labels import ElidedLabel
from trimtab_gui.widgets.share_bar import ShareBar

Fact = tuple[str, str, str]


class PlanSheet(Sheet):
    """Waiting, then the plan, or what keeps it from being made; `closed` when it goes."""

    closed = Signal()

    def __init__(self, title: str, parent: QWidget) -> None:
        super().__init__(title, parent)
        self.resize(1180, 720)
        self.setMinimumSize(760, 480)
        self._pages = QStackedWidget()
        self.body.addWidget(self._pages, 1)
        self._pages.addWidget(self._waiting())
        self.problem = Banner()
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.problem)
        rows.addStretch(1)
        self._pages.addWidget(page)
        self._pages.addWidget(self._plan_page())
        self._model: TensorModel | None = None
        self.finished.connect(self.closed)

    def _waiting(self) -> QWidget:
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setSpacing(12)
        line = ProgressLine()
        line.setFixedWidth(180)
        line.set_fraction(None)
        text = label(self.tr("Planning from the headers alone …"), "body", "muted")
        rows.addStretch(1)
        for widget in (text, line):
            rows.addWidget(widget, 0, Qt.AlignmentFlag.AlignHCenter)
        rows.addStretch(1)
        return page

    def _plan_page(self) -> QWidget:
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(10)
        self._subject = ElidedLabel("", "body", "muted")
        self.bar = ShareBar()
        self._chips = QHBoxLayout()
        self._chips.setSpacing(4)
        self.actions_: dict[str, QToolButton] = {}
        self._facts = QHBoxLayout()
        self._facts.setSpacing(28)
        self.facts: dict[str, str] = {}
        self._said = label("", "caption", "muted")
        self._said.setWordWrap(True)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Filter by name, model or parameter"))
        self.search.setAccessibleName(self.tr("Filter the tensors"))
        self.search.setClearButtonEnabled(True)
        self.search.setMaximumWidth(300)
        self.search.textChanged.connect(self._filter)
        self._count = label("", "caption", "muted")
        above = QHBoxLayout()
        above.setSpacing(10)
        above.addLayout(self._chips)
        above.addStretch(1)
        above.addWidget(self._count)
        above.addWidget(self.search, 1)
        self.view = TensorView()
        rows.addWidget(self._subject)
        rows.addLayout(self._facts)
        rows.addWidget(self._said)
        rows.addSpacing(4)
        rows.addWidget(self.bar)
        rows.addLayout(above)
        rows.addWidget(self.view, 1)
        rows.addLayout(self._buttons())
        return page

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self._done = label("", "caption", "muted")
        self.copy = QPushButton(self.tr("Copy"))
        self.copy.setToolTip(self.tr("Copy the chosen rows, or all that are shown"))
        self.copy.clicked.connect(self._copy)
        self.save = QPushButton(self.tr("Save CSV…"))
        self.save.clicked.connect(self._ask_where)
        close = QPushButton(self.tr("Close"))
        close.clicked.connect(self.accept)
        row.addWidget(self._done, 1)
        for button in (self.copy, self.save, close):
            button.setAutoDefault(False)
            row.addWidget(button)
        return row

    # What is shown.

    def show_error(self, error: UserError) -> None:
        """Say what keeps the plan from being made."""
        self.problem.set_message("error", error.what, error.why, error.fix, error.details)
        self._pages.setCurrentIndex(1)

    def show_account(self, account: Account, subject: str, facts: list[Fact]) -> None:
        """Show a plan; facts are (name, value, explanation)."""
        self._subject.setText(subject)
        spoken = ", ".join(self._share_text(share) for share in account.shares)
        self.bar.set_shares([(TOKENS[s.action], s.n_bytes) for s in account.shares], spoken)
        for share in account.shares:
            self._add_chip(share)
        for name, value, tip in facts:
            self._add_fact(name, value, tip)
        self._facts.addStretch(1)
        lines = account.told()
        self._said.setText("\n".join(lines))
        self._said.setVisible(bool(lines))
        self._model = self.view.show_table(account.table)
        self._filter()
        self._pages.setCurrentIndex(2)
        self.search.setFocus()

    def _share_text(self, share: Share) -> str:
        names = {
            "merged": self.tr("merged"), "copied": self.tr("copied"),
            "converted": self.tr("converted"),
        }  # fmt: skip
        return f"{share.count:,} {names[share.action]} · {texts.size(share.n_bytes)}"

    def _add_chip(self, share: Share) -> None:
        chip = QToolButton()
        chip.setText(self._share_text(share))
        chip.setIcon(dot(share.action))
        chip.setIconSize(QSize(12, 12))
        chip.setFont(theme.font("body"))
        chip.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        chip.setCheckable(True)
        chip.setToolTip(self.tr("Show only these"))
        chip.toggled.connect(partial(self._filter))
        self._chips.addWidget(chip)
        self.actions_[share.action] = chip

    def _add_fact(self, name: str, value: str, tip: str) -> None:
        block = QVBoxLayout()
        block.setSpacing(1)
        caption, number = label(name, "caption", "muted"), label(value, "number")
        for line in (caption, number):
            line.setToolTip(tip)
            block.addWidget(line)
        number.setAccessibleName(f"{name}: {value}")
        self.facts[name] = value
        self._facts.addLayout(block)

    # The table.

    def _filter(self, *_: object) -> None:
        if self._model is None:
            return
        chosen = {action for action, chip in self.actions_.items() if chip.isChecked()}
        self._model.filter(self.search.text(), frozenset(chosen or ACTIONS))
        shown, total = len(self._model.shown), len(self._model.table)
        text = self.tr("{n} of {total} tensors") if shown < total else self.tr("{total} tensors")
        self._count.setText(text.format(n=f"{shown:,}", total=f"{total:,}"))

    def _copy(self) -> None:
        self._done.setText(self.tr("{n} rows copied").format(n=f"{self.view.copy_rows():,}"))

    def _ask_where(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, self.tr("Save the plan"), "plan.csv", "*.csv")
        if chosen:
            path = Path(chosen)
            self.save_to(path if path.suffix else path.with_name(f"{path.name}.csv"))

    def save_to(self, path: Path) -> None:
        """Write every tensor as CSV, and say how it went."""
        if self._model is None:
            return
        try:
            save_csv(self._model.table, path)
        except OSError as error:
            self._done.setText(self.tr("Not saved: {why}").format(why=error.strerror))
        else:
            self._done.setText(self.tr("Saved {name}").format(name=path.name))
