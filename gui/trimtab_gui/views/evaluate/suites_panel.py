"""What is asked: a suite of prompts by kind, how many of them, and who judges the answers."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QGridLayout, QMenu, QToolButton

from trimtab.evaluation.suite import PromptKind
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import JUDGES, OWN_SUITES, Evaluating
from trimtab_gui.widgets import Choice, FactsTable, Panel, label, quiet_button

_LIMITS = (None, 8, 16, 32, 64, 128)


class SuitesPanel(Panel):
    """A file or folder of prompts can be dropped here, or chosen by the folder button."""

    def __init__(self, desk: Desk, evaluating: Evaluating) -> None:
        super().__init__("Suite")
        self.set_title(self.tr("Suite"))
        self._desk, self._evaluating = desk, evaluating
        self.setAcceptDrops(True)
        self.open = quiet_button("folder-open-outline", self.tr("Prompts of your own"))
        self.open.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.open)
        menu.addAction(self.tr("Choose a file…")).triggered.connect(self.choose_file)
        menu.addAction(self.tr("Choose a folder…")).triggered.connect(self.choose_folder)
        self.open.setMenu(menu)
        self.header_layout.addWidget(self.open)
        self.suite = Choice()
        self.suite.setAccessibleName(self.tr("Suite of prompts"))
        self.suite.activated.connect(self._suite_chosen)
        self.body.addWidget(self.suite)
        self.counts = FactsTable()
        self.body.addWidget(self.counts)
        self._says = label("", "caption", "muted")
        self._says.setWordWrap(True)
        self.body.addWidget(self._says)
        self.judge = Choice()
        self.judge.setAccessibleName(self.tr("Judge"))
        names = {
            "phrases": self.tr("Refusal phrases"),
            "keywords-29": self.tr("29 keywords (authors’ code)"),
            "demo": self.tr("Demo language"),
        }
        for key in JUDGES:
            self.judge.addItem(names[key], key)
        self.judge.activated.connect(
            lambda row: evaluating.choose_judge(str(self.judge.itemData(row)))
        )
        self.limit = Choice()
        self.limit.setAccessibleName(self.tr("Prompts of each kind"))
        for limit in _LIMITS:
            text = self.tr("all") if limit is None else self.tr("{n} a kind").format(n=limit)
            self.limit.addItem(text, limit)
        self.limit.activated.connect(lambda row: evaluating.set_limit(self.limit.itemData(row)))
        for box in (self.suite, self.judge, self.limit):
            # a long name must not make the column wider than it is
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(6)
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(1, 1)
        for row, (text, box) in enumerate(
            ((self.tr("judge"), self.judge), (self.tr("prompts"), self.limit))
        ):
            grid.addWidget(label(text, "caption", "muted"), row, 0)
            grid.addWidget(box, row, 1)
        self.body.addLayout(grid)
        evaluating.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show suite, counts, judge and limit."""
        evaluating = self._evaluating
        self._fill_suites()
        self.judge.setCurrentIndex(self.judge.findData(evaluating.judge))
        self.limit.setCurrentIndex(self.limit.findData(evaluating.limit))
        counts, suite, error = evaluating.counts, evaluating.suite, evaluating.suite_error
        total = sum(counts.values())
        self.set_aside(self.tr("{n} prompts").format(n=f"{total:,}") if suite else "")
        names: dict[PromptKind, str] = {
            "harmful": self.tr("harmful requests"),
            "lookalike": self.tr("benign lookalikes"),
            "utility": self.tr("questions with an answer"),
            "text": self.tr("texts for perplexity"),
        }
        self.counts.set_rows(
            [(names[k], str(counts.get(k, 0)) if k in counts else "—", "") for k in names]
            if suite
            else []
        )
        self._says.setVisible(suite is None)
        if error is not None:
            self._says.setText(f"{error.what} {error.why}")
        elif suite is None:
            self._says.setText(self.tr("Reading the prompts …"))

    def _fill_suites(self) -> None:
        names = {
            "core": self.tr("Trimtab core"),
            "demo": self.tr("Demo language"),
        }
        chosen = self._evaluating.suite_name
        if chosen not in names:
            names[chosen] = Path(chosen).name
        if [self.suite.itemData(i) for i in range(self.suite.count())] != list(names):
            self.suite.clear()
            for key, name in names.items():
                self.suite.addItem(name, key)
                if key not in OWN_SUITES:
                    self.suite.setItemData(self.suite.count() - 1, key, Qt.ItemDataRole.ToolTipRole)
        self.suite.setCurrentIndex(self.suite.findData(chosen))

    def _suite_chosen(self, row: int) -> None:
        self._evaluating.choose_suite(str(self.suite.itemData(row)))

    def choose_file(self) -> None:
        """Ask for a file of prompts."""
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Open prompts"), self._folder(),
            self.tr("Prompts (*.jsonl *.jsonl.gz *.csv *.parquet *.json);;All (*)"),
        )  # fmt: skip
        self._take(name)

    def choose_folder(self) -> None:
        """Ask for a folder of prompt files."""
        self._take(QFileDialog.getExistingDirectory(self, self.tr("Open prompts"), self._folder()))

    def _folder(self) -> str:
        return str(self._desk.session.get("suites", str(Path.home())))

    def _take(self, name: str) -> None:
        if name:
            self._desk.session.set("suites", str(Path(name).absolute().parent))
            self._evaluating.choose_suite(str(Path(name).absolute()))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        names = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if names:
            event.acceptProposedAction()
            self._take(names[0])
