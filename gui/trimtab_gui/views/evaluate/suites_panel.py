"""What is asked: suites of prompts, how many of them, and who judges the answers."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from trimtab.evaluation.suite import PromptKind
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import JUDGES, Evaluating
from trimtab_gui.suites import OWN_SUITES
from trimtab_gui.widgets import Choice, Panel, label, quiet_button

_LIMITS = (None, 8, 16, 32, 64, 128)


class SuitesPanel(Panel):
    """A row for each suite; files and folders can be dropped here, or chosen by the button."""

    def __init__(self, desk: Desk, evaluating: Evaluating) -> None:
        super().__init__("Suites")
        self.set_title(self.tr("Suites"))
        self._desk, self._evaluating = desk, evaluating
        self.setAcceptDrops(True)
        self.open = quiet_button("folder-open-outline", self.tr("Prompts of your own"))
        self.open.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.open)
        menu.addAction(self.tr("Choose a file…")).triggered.connect(self.choose_file)
        menu.addAction(self.tr("Choose a folder…")).triggered.connect(self.choose_folder)
        self.open.setMenu(menu)
        self.header_layout.addWidget(self.open)
        self.rows: dict[str, SuiteRow] = {}
        self._list = QVBoxLayout()
        self._list.setSpacing(4)
        self.body.addLayout(self._list)
        self.says = label("", "caption", "muted")
        self.says.setWordWrap(True)
        self.body.addWidget(self.says)
        self.judge, self.limit = self._boxes()
        self.shown = Choice()
        self.shown.setAccessibleName(self.tr("Results of"))
        self.shown.activated.connect(
            lambda row: evaluating.show_suite(str(self.shown.itemData(row)))
        )
        _narrow(self.shown)
        self._of = label(self.tr("results of"), "caption", "muted")
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(1, 1)
        for row, (text, box) in enumerate(
            ((self.tr("judge"), self.judge), (self.tr("prompts"), self.limit))
        ):
            grid.addWidget(label(text, "caption", "muted"), row, 0)
            grid.addWidget(box, row, 1)
        grid.addWidget(self._of, 2, 0)
        grid.addWidget(self.shown, 2, 1)
        self.body.addLayout(grid)
        evaluating.results_changed.connect(self.refresh)
        evaluating.changed.connect(self.refresh)
        self.refresh()

    def _boxes(self) -> tuple[Choice, Choice]:
        evaluating = self._evaluating
        judge, limit = Choice(), Choice()
        judge.setAccessibleName(self.tr("Judge"))
        names = {
            "phrases": self.tr("Refusal phrases"),
            "keywords-29": self.tr("29 keywords (authors’ code)"),
            "demo": self.tr("Demo language"),
        }
        for key in JUDGES:
            judge.addItem(names[key], key)
        judge.activated.connect(lambda row: evaluating.choose_judge(str(judge.itemData(row))))
        limit.setAccessibleName(self.tr("Prompts of each kind"))
        for most in _LIMITS:
            text = self.tr("all") if most is None else self.tr("{n} a kind").format(n=most)
            limit.addItem(text, most)
        limit.activated.connect(lambda row: evaluating.suites.set_limit(limit.itemData(row)))
        _narrow(judge)
        _narrow(limit)
        return judge, limit

    def refresh(self) -> None:
        """Show the suites with their counts, judge and limit."""
        evaluating, suites = self._evaluating, self._evaluating.suites
        self._fill()
        self.judge.setCurrentIndex(self.judge.findData(evaluating.judge))
        self.limit.setCurrentIndex(self.limit.findData(suites.limit))
        total = sum(evaluating.counts.values())
        self.set_aside(self.tr("{n} prompts").format(n=f"{total:,}") if suites.ready else "")
        self.says.setText(self._text())
        self._show_results()

    def _show_results(self) -> None:
        """Offer the suites of which there are results, where there are several."""
        evaluating = self._evaluating
        names = list(evaluating.found)
        for widget in (self._of, self.shown):
            widget.setVisible(len(names) > 1)
        if [self.shown.itemData(i) for i in range(self.shown.count())] != names:
            self.shown.clear()
            for name in names:
                self.shown.addItem(evaluating.suites.title(name), name)
        self.shown.setCurrentIndex(self.shown.findData(evaluating.shown))

    def _fill(self) -> None:
        suites = self._evaluating.suites
        for name in [name for name in self.rows if name not in suites.names]:
            row = self.rows.pop(name)
            self._list.removeWidget(row)
            row.hide()
            row.deleteLater()
        for name in suites.names:
            if name not in self.rows:
                row = self.rows[name] = SuiteRow(suites.title(name), name not in OWN_SUITES)
                row.setToolTip(name if name not in OWN_SUITES else "")
                row.box.toggled.connect(lambda on, name=name: suites.switch(name, on))
                row.drop.clicked.connect(lambda _checked=False, name=name: suites.remove(name))
                self._list.addWidget(row)
            on, counts = suites.is_on(name), sum(suites.counts_of(name).values())
            read = name in suites.read
            number = f"{counts:,}" if read and on else "–" if name in suites.errors else ""
            self.rows[name].show_state(on, number, enabled=not self._evaluating.running)

    def _text(self) -> str:
        suites = self._evaluating.suites
        error = suites.error
        if error is not None:
            return f"{error.what} {error.why}"
        if suites.loading:
            return self.tr("Reading the prompts …")
        if not suites.chosen:
            return self.tr("Choose one or more, or drop a file of prompts here.")
        words: dict[PromptKind, str] = {
            "harmful": self.tr("{n} harmful"),
            "lookalike": self.tr("{n} lookalikes"),
            "utility": self.tr("{n} questions"),
            "text": self.tr("{n} texts"),
        }
        counts = self._evaluating.counts
        parts = [words[kind].format(n=f"{n:,}") for kind, n in counts.items()]
        return " · ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)

    # Prompts of the user's own.

    def choose_file(self) -> None:
        """Ask for a file of prompts."""
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Open prompts"), self._folder(),
            self.tr("Prompts (*.jsonl *.jsonl.gz *.csv *.parquet *.json);;All (*)"),
        )  # fmt: skip
        self._take([name])

    def choose_folder(self) -> None:
        """Ask for a folder of prompt files."""
        name = QFileDialog.getExistingDirectory(self, self.tr("Open prompts"), self._folder())
        self._take([name])

    def _folder(self) -> str:
        return str(self._desk.session.get("suites", str(Path.home())))

    def _take(self, names: list[str]) -> None:
        for name in filter(None, names):
            self._desk.session.set("suites", str(Path(name).absolute().parent))
            self._evaluating.suites.add(str(Path(name).absolute()))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        names = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if names:
            event.acceptProposedAction()
            self._take(names)


def _narrow(box: Choice) -> None:
    """Let a long name not make the column wider than it is."""
    box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)


class SuiteRow(QWidget):
    """A suite to tick, how many prompts of it are asked, and a cross for the user's own."""

    def __init__(self, title: str, own: bool) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.box = QCheckBox(title)
        # a long name is cut where the column ends
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.number = label("", "small_number", "muted")
        self.number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.drop = quiet_button("close", self.tr("Take {suite} off the list").format(suite=title))
        self.drop.setIconSize(QSize(12, 12))
        self.drop.setVisible(own)
        row.addWidget(self.box, 1)
        row.addWidget(self.number)
        row.addWidget(self.drop)
        self.setFixedHeight(22)

    def show_state(self, on: bool, number: str, *, enabled: bool) -> None:
        """Show whether it is asked, without emitting."""
        blocked = self.box.blockSignals(True)
        self.box.setChecked(on)
        self.box.blockSignals(blocked)
        self.box.setEnabled(enabled)
        self.drop.setEnabled(enabled)
        self.number.setText(number)
