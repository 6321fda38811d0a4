"""Before and after: two targets, pair by pair, with harm and over-refusal side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QWidget

from trimtab.evaluation.changes import QUESTIONS, Change
from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.suite import PromptKind
from trimtab_gui import texts
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.widgets import Choice, ElidedLabel, Panel, label
from trimtab_gui.widgets.labels import set_tone

_METRICS: dict[PromptKind, str] = {
    "harmful": "attack_success",
    "lookalike": "over_refusal",
    "utility": "utility",
}


def points_text(estimate: Estimate, sign: float = 1.0) -> str:
    """Return a difference in percentage points with its interval, such as "+3.2 [0.4, 6.1]"."""
    if estimate.value is None:
        return "no data"
    text = texts.signed_points(100 * sign * estimate.value)
    if estimate.low is not None and estimate.high is not None and estimate.low < estimate.high:
        low, high = sorted((100 * sign * estimate.low, 100 * sign * estimate.high))
        # + 0.0: there is no minus zero for a reader
        text += f" [{round(low, 1) + 0.0:.1f}, {round(high, 1) + 0.0:.1f}]"
    return text.replace("-", "−")


def score_text(estimate: Estimate) -> str:
    """Return a difference of mean scores with its interval."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "no data"
    text = f"{estimate.value:+.2f} [{estimate.low:.2f}, {estimate.high:.2f}], by prompt"
    return text.replace("-", "−")


def p_text(value: float | None) -> str:
    """Return a p value as people write it."""
    if value is None:
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def percent_text(estimate: Estimate) -> str:
    """Return a share in percent, or that there is no data."""
    return "no data" if estimate.value is None else f"{100 * estimate.value:.1f} %"


@dataclass(frozen=True)
class _Line:
    name: ElidedLabel
    before: QLabel
    arrow: QLabel
    after: QLabel
    says: QLabel


class ChangePanel(Panel):
    """The pair can be chosen; a number of a model that fails the guard is greyed out."""

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("Before → after")
        self.set_title(self.tr("Before → after"))
        self._evaluating = evaluating
        self.before, self.after = Choice(), Choice()
        self.before.setAccessibleName(self.tr("Before"))
        self.after.setAccessibleName(self.tr("After"))
        pair = QHBoxLayout()
        pair.setSpacing(6)
        pair.addWidget(self.before, 1)
        pair.addWidget(label("→", "caption", "muted"))
        pair.addWidget(self.after, 1)
        self._pair = QWidget()
        self._pair.setLayout(pair)
        pair.setContentsMargins(0, 0, 0, 0)
        self.body.addWidget(self._pair)
        for box in (self.before, self.after):
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(6)
            box.activated.connect(self._chosen)
        grid = QGridLayout()
        grid.setHorizontalSpacing(7)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(0, 1)
        self._lines = [self._line(grid, 2 * row) for row in range(4)]
        self._numbers = QWidget()
        self._numbers.setLayout(grid)
        grid.setContentsMargins(0, 0, 0, 0)
        self.body.addWidget(self._numbers)
        self.says = label("", "caption", "muted")
        self.says.setWordWrap(True)
        self.body.addWidget(self.says)
        for first, second in pairwise((self.before, self.after)):
            self.setTabOrder(first, second)
        evaluating.results_changed.connect(self._offer)
        evaluating.pair_changed.connect(self.refresh)
        evaluating.changed.connect(self.refresh)
        self._offer()
        self.refresh()

    def _line(self, grid: QGridLayout, row: int) -> _Line:
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        line = _Line(
            ElidedLabel(""), label("", "small_number", "muted"), label("→", "caption", "muted"),
            label("", "strong", "merged"), label("", "small_number", "muted"),
        )  # fmt: skip
        for column, widget in enumerate((line.name, line.before, line.arrow, line.after)):
            grid.addWidget(widget, row, column)
        line.after.setAlignment(right)
        line.says.setAlignment(right)
        line.says.setContentsMargins(0, 0, 0, 6)
        grid.addWidget(line.says, row + 1, 0, 1, 4)
        return line

    def _offer(self) -> None:
        names = self._evaluating.facts.names if self._evaluating.facts is not None else ()
        for box in (self.before, self.after):
            box.clear()
            box.addItems(list(names))

    def _chosen(self) -> None:
        before, after = self.before.currentText(), self.after.currentText()
        if before and after:
            self._evaluating.compare(before, after)

    def show_after(self, name: str) -> None:
        """Compare another target with the one before."""
        pair = self._evaluating.pair
        if pair is not None and name != pair[0]:
            self._evaluating.compare(pair[0], name)

    def refresh(self) -> None:
        """Show the pair's numbers."""
        evaluating = self._evaluating
        facts, pair = evaluating.facts, evaluating.pair
        shown = facts is not None and pair is not None
        self._pair.setVisible(shown)
        self._numbers.setVisible(shown)
        if facts is None or pair is None:
            self.set_aside("")
            self.says.setVisible(True)
            self.says.setText(
                self.tr("One target has nothing to be compared with.") if facts is not None
                else self.tr("What two models do differently, prompt by prompt, and whether "
                             "that may be chance.")
            )  # fmt: skip
            return
        for box, name in zip((self.before, self.after), pair, strict=True):
            box.setCurrentIndex(box.findText(name))
        found = None if evaluating.comparison is None else evaluating.comparison.whole
        self.set_aside("" if found is None else self._count(found))
        before, after = (facts.target(name) for name in pair)
        tone = after.info.role if after.info.role in ("base", "aligned", "finetuned") else "merged"
        greyed = found["harmful"].greyed if found and "harmful" in found else ""
        for line, (kind, metric) in zip(self._lines, _METRICS.items(), strict=False):
            values = before.overall[metric], after.overall[metric]
            change = found.get(kind) if found is not None else None
            grey = bool(greyed) and kind == "harmful"
            self._show(line, BY_ID[metric].title.lower(), values, "muted" if grey else tone)
            line.name.setToolTip(BY_ID[metric].sentence)
            line.says.setText("…" if found is None else self._difference(kind, change))
        score = "harmfulness_score"
        scores = before.overall[score], after.overall[score]
        self._show_score(scores, found, "muted" if greyed else tone)
        notes = []
        if greyed:
            notes.append(self.tr("Harm is not to be read: {why}.").format(why=greyed))
        if evaluating.outdated:
            notes.append(self.tr("The recipe has changed since: merged is of the earlier one."))
        self.says.setText("\n".join(notes))
        self.says.setVisible(bool(notes))

    def _count(self, found: Mapping[PromptKind, Change]) -> str:
        n = sum(change.table.n for change in found.values())
        return self.tr("paired, n = {n}").format(n=f"{n:,}") if n else self.tr("no pairs")

    def _show(self, line: _Line, title: str, values: tuple[Estimate, Estimate], tone: str) -> None:
        line.name.setText(title)
        line.before.setText(percent_text(values[0]))
        line.after.setText(percent_text(values[1]))
        set_tone(line.after, tone)

    def _difference(self, kind: PromptKind, change: Change | None) -> str:
        if change is None:
            return self.tr("no prompt of this kind")
        question = QUESTIONS[kind]
        # a change counts bad answers; of a share of right ones the reader wants the opposite
        difference = points_text(change.difference, -1.0 if kind == "utility" else 1.0)
        turned = f"{change.newly_bad} {question.newly_bad}, {change.newly_good} "
        turned += question.newly_good
        return f"{difference} · McNemar {p_text(change.p_value)}\n{turned}"

    def _show_score(
        self,
        values: tuple[Estimate, Estimate],
        found: Mapping[PromptKind, Change] | None,
        tone: str,
    ) -> None:
        """Show the mean score, where a judge has given scores."""
        line = self._lines[-1]
        known = values[0].value is not None and values[1].value is not None
        for widget in (line.name, line.before, line.arrow, line.after, line.says):
            widget.setVisible(known)
        if values[0].value is None or values[1].value is None:
            return
        line.name.setText(self.tr("mean score (1–5)"))
        line.before.setText(f"{values[0].value:.2f}")
        line.after.setText(f"{values[1].value:.2f}")
        set_tone(line.after, tone)
        score = found["harmful"].score if found and "harmful" in found else None
        line.says.setText(self.tr("bootstrap by prompt") if score is None else score_text(score))
