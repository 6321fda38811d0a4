"""What is decided on the results that are shown, and the log of all that was decided before."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from trimtab.evaluation.decisions import CHOICES
from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.thresholds import BoundVerdict, Status
from trimtab_gui import texts
from trimtab_gui.bounds import is_share
from trimtab_gui.deciding import SUFFIX, Deciding, Entry
from trimtab_gui.dialogs.sheets import Sheet
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.evaluation_facts import Facts
from trimtab_gui.widgets import Choice, ElidedLabel, label, primary_button
from trimtab_gui.widgets.buttons import link_button
from trimtab_gui.widgets.chip import Chip
from trimtab_gui.widgets.labels import set_tone

_TONES: dict[str, str] = {
    "pass": "aligned", "fail": "danger", "accepted": "aligned", "rejected": "text",
}  # fmt: skip
#: px that the longest decision takes, so that names stand below each other
_CHIPS = 76
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


class DecisionsSheet(Sheet):
    """Verdicts at the top, the decision below them, and the log, the latest line first."""

    def __init__(self, evaluating: Evaluating, deciding: Deciding, parent: QWidget) -> None:
        super().__init__(parent.tr("Decisions"), parent)
        self._evaluating, self._deciding = evaluating, deciding
        self.setMinimumSize(560, 460)
        self.resize(860, 520)
        self.verdicts = QVBoxLayout()
        self.verdicts.setSpacing(6)
        self.body.addLayout(self.verdicts)
        self.before = _note("")
        self.body.addWidget(self.before)
        self.body.addWidget(_rule())
        self.body.addLayout(self._file_row())
        self.body.addLayout(self._form())
        self.says = _note("")
        self.body.addWidget(self.says)
        self.body.addWidget(_rule())
        self.chain = _note("")
        self.body.addWidget(self.chain)
        content = QWidget()
        content.setObjectName("scrolled")
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 0, 8, 0)
        self._list.setSpacing(10)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(content)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setAccessibleName(self.tr("Decision log"))
        self.body.addWidget(area, 1)
        self.rows: list[QWidget] = []
        self._shown: tuple[Entry, ...] | None = None
        self._judged: list[Facts] | None = None
        deciding.changed.connect(self.refresh)
        deciding.read()
        self.refresh()

    def _file_row(self) -> QHBoxLayout:
        self.file = ElidedLabel("", "body", "text", Qt.TextElideMode.ElideMiddle)
        self.begin_button, self.find_button = (
            link_button(self.tr("New log…")),
            link_button(self.tr("Open log…")),
        )
        self.begin_button.clicked.connect(self.choose_new)
        self.find_button.clicked.connect(self.choose_old)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(label(self.tr("log"), "caption", "muted"))
        row.addWidget(self.file, 1)
        row.addWidget(self.begin_button)
        row.addWidget(self.find_button)
        return row

    def _form(self) -> QGridLayout:
        self.who, self.note = QLineEdit(self._deciding.who), QLineEdit()
        self.who.setAccessibleName(self.tr("Who decides"))
        self.who.setPlaceholderText(self.tr("name"))
        self.note.setAccessibleName(self.tr("Note"))
        self.note.setPlaceholderText(self.tr("why, and for what (may be empty)"))
        self.choice = Choice()
        self.choice.setAccessibleName(self.tr("Decision"))
        words = {
            "accepted": self.tr("accepted"), "rejected": self.tr("rejected"),
            "deferred": self.tr("deferred"), "noted": self.tr("noted"),
        }  # fmt: skip
        for key in CHOICES:
            self.choice.addItem(words[key], key)
        self.choice.setCurrentIndex(self.choice.findData("noted"))
        self.record = primary_button(self.tr("Record"))
        self.record.setDefault(True)
        self.record.clicked.connect(self.decide)
        self.who.textChanged.connect(self.refresh)
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(2, 1)
        for column, (text, widget) in enumerate(
            ((self.tr("who"), self.who), (self.tr("decision"), self.choice),
             (self.tr("note"), self.note))
        ):  # fmt: skip
            grid.addWidget(label(text, "caption", "muted"), 0, column)
            grid.addWidget(widget, 1, column)
        grid.addWidget(self.record, 1, 3)
        self.who.setMaximumWidth(180)
        return grid

    # What can be done.

    def decide(self) -> None:
        """Add a line to the log."""
        if self._deciding.record(self.choice.currentData(), self.who.text(), self.note.text()):
            self.note.clear()

    def choose_new(self) -> None:
        """Ask where a log is to be begun."""
        name, _ = QFileDialog.getSaveFileName(
            self, self.tr("New decision log"), str(self._deciding.proposed), f"*{SUFFIX}",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if name:
            path = Path(name)
            if not path.suffix:
                path = path.with_name(path.name + SUFFIX)
            self._deciding.choose(path)

    def choose_old(self) -> None:
        """Ask for a log that there is already."""
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Open decision log"), str(self._deciding.proposed.parent),
            self.tr("Decision logs (*{suffix} *.jsonl);;All (*)").format(suffix=SUFFIX),
        )  # fmt: skip
        if name:
            self._deciding.choose(Path(name))

    # Showing.

    def refresh(self) -> None:
        """Show the verdicts, the log, and whether a line can be added."""
        deciding = self._deciding
        self._show_verdicts()
        log, obstacle = deciding.log, deciding.obstacle(self.who.text())
        self.file.setText(self.tr("none chosen") if log is None else texts.home_path(log))
        set_tone(self.file, "muted" if log is None else "text")
        self.record.setEnabled(obstacle is None)
        error = deciding.refused
        self.says.setText(
            f"{error.what} {error.why} {error.fix}" if error is not None else obstacle or self.tr(
                "Holds the SHA-256 of the results, the bounds and verdicts; nothing is taken back."
            )
        )  # fmt: skip
        set_tone(self.says, "danger" if error is not None else "muted")
        self._show_chain()
        if self._shown != deciding.entries:
            self._fill(deciding.entries)

    def _show_chain(self) -> None:
        deciding, count = self._deciding, len(self._deciding.entries)
        error = deciding.error
        set_tone(self.chain, "danger" if error is not None else "muted")
        if error is not None:
            self.chain.setText(f"{error.what} {error.why} {error.fix}")
        elif deciding.reading:
            self.chain.setText(self.tr("Reading the log …"))
        elif not count:
            self.chain.setText(self.tr("No decision yet. Each line will hold the hash of the one "
                                       "before it, so that a changed one is noticed."))  # fmt: skip
        elif count == 1:
            self.chain.setText(self.tr("1 decision; the chain begins with it."))
        else:
            text = self.tr("{n} decisions; the chain of hashes is whole: none was changed or "
                           "taken out before the last line.")  # fmt: skip
            self.chain.setText(text.format(n=count))

    def _show_verdicts(self) -> None:
        found = self._evaluating.found
        if self._judged == list(found.values()):
            return
        self._judged = list(found.values())
        _clear(self.verdicts)
        if not found:
            self.verdicts.addWidget(_note(self.tr("Nothing is evaluated yet.")))
        for name, facts in found.items():
            self.verdicts.addWidget(self._table(self._evaluating.suites.title(name), facts))
        self.before.setText(self._when())
        self.before.setVisible(bool(found))

    def _when(self) -> str:
        facts = next(iter(self._evaluating.found.values()), None)
        if facts is None:
            return ""
        if not facts.results.thresholds.bounds:
            return self.tr("No threshold was set.")
        when = moment(facts.results.thresholds.set_at)
        if all(each.set_before for each in self._evaluating.found.values()):
            return self.tr("Thresholds set {when}, before anything was asked.").format(when=when)
        return self.tr("Thresholds set {when}. Some answers were known before this run: they may "
                       "have been looked at.").format(when=when)  # fmt: skip

    def _table(self, title: str, facts: Facts) -> QWidget:
        table = QWidget()
        grid = QGridLayout(table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(18)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(0, 1)
        bounds = facts.results.thresholds.bounds
        grid.addWidget(label(title, "strong"), 0, 0)
        for column, bound in enumerate(bounds, 1):
            text = f"{BY_ID[bound.metric].title.lower()} {_limit(bound.relation)} "
            grid.addWidget(
                label(text + _number(bound.metric, bound.limit), "caption", "muted"), 0, column
            )
        for row, target in enumerate(facts.targets, 1):
            grid.addWidget(label(target.name, "body", _tone_of(target.info.role)), row, 0)
            for column, verdict in enumerate(target.bounds, 1):
                grid.addWidget(_cell(verdict), row, column)
            chip = Chip()
            chip.show_word(self._word(target.verdict), _TONES.get(target.verdict, "muted"))
            grid.addWidget(chip, row, len(bounds) + 1, _LEFT)
        return table

    def _word(self, status: Status) -> str:
        return {
            "pass": self.tr("pass"), "fail": self.tr("fail"), "greyed": self.tr("greyed"),
            "no data": self.tr("no data"),
        }[status]  # fmt: skip

    def _fill(self, entries: tuple[Entry, ...]) -> None:
        self._shown = entries
        _clear(self._list)
        self.rows = [self._line(entry) for entry in reversed(entries)]
        for row in self.rows:
            self._list.addWidget(row)
        self._list.addStretch(1)

    def _line(self, entry: Entry) -> QWidget:
        decision, line = entry.decision, QWidget()
        grid = QGridLayout(line)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(2, 1)
        grid.setColumnMinimumWidth(0, _CHIPS)
        chip = Chip()
        chip.show_word(decision.choice, _TONES.get(decision.choice, "muted"))
        when = moment(decision.when)
        verdicts = " · ".join(f"{name} {status}" for name, status in decision.verdicts.items())
        words = {
            "same": "", "changed": self.tr("its results file holds another run by now"),
            "gone": self.tr("its results file is gone"),
        }  # fmt: skip
        told = [verdicts or self.tr("no thresholds"), words[entry.results]]
        grid.addWidget(chip, 0, 0, _LEFT)
        grid.addWidget(label(decision.who, "strong"), 0, 1)
        grid.addWidget(ElidedLabel(decision.note), 0, 2)
        grid.addWidget(label(when, "small_number", "muted"), 0, 3)
        below = ElidedLabel(" · ".join(filter(None, told)), "caption", "muted")
        grid.addWidget(below, 1, 1, 1, 3)
        line.setAccessibleName(f"{when}, {decision.who}: {decision.choice}. {decision.note}")
        line.setToolTip(f"{decision.path}\nSHA-256 {decision.results}")
        return line


def moment(text: str) -> str:
    """Return a moment in ISO 8601 as the clock here showed it."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _limit(relation: str) -> str:
    return "≤" if relation == "<=" else "≥"


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.3g} %" if is_share(metric) else f"{value:.3g}"


def _measured(metric: str, value: float) -> str:
    # down a column the same number of decimals
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.2f}"


def _cell(verdict: BoundVerdict) -> QWidget:
    value, metric = verdict.estimate.value, verdict.bound.metric
    text = "no data" if value is None else _measured(metric, value)
    if verdict.status == "fail":
        text += " ✗"
    elif verdict.status == "pass":
        text += " ✓"
    if verdict.beyond_chance is False:
        text += " ?"
    cell = label(text, "number", "text" if verdict.status == "fail" else "muted")
    told = verdict.why
    if verdict.beyond_chance is False:
        told = cell.tr("The interval reaches across the bound.")
    cell.setToolTip(told)
    return cell


def _tone_of(role: str) -> str:
    return role if role in ("base", "aligned", "finetuned", "merged") else "muted"


def _note(text: str) -> QLabel:
    note = label(text, "caption", "muted")
    note.setWordWrap(True)
    return note


def _rule() -> QFrame:
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setProperty("kind", "rule")
    return rule


def _clear(rows: QVBoxLayout) -> None:
    while (item := rows.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
