"""The bounds that results are held against: fixed before a run, and judged only if they were."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QToolButton,
)

from trimtab.evaluation.metrics import BY_ID
from trimtab.evaluation.thresholds import BoundVerdict, Status
from trimtab_gui import theme
from trimtab_gui.bounds import DEFAULTS, FURTHER, is_share, limit_of
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.widgets import ElidedLabel, Panel, label, quiet_button
from trimtab_gui.widgets.buttons import link_button

_NONE = -1.0
_MARK = QSize(15, 15)
#: what is drawn before a bound, and its colour; nothing where nothing is known
_MARKS: dict[Status, tuple[str, str]] = {
    "pass": ("check", "aligned"), "fail": ("close", "danger"),
    "greyed": ("alert-outline", "muted"),
}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    mark: QLabel
    name: QLabel | ElidedLabel


class ThresholdsPanel(Panel):
    """``provenance_requested`` asks for what the numbers rest on, ``log_requested`` for the log."""

    provenance_requested = Signal()
    log_requested = Signal()

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("Thresholds, set before")
        self.set_title(self.tr("Thresholds, set before"))
        self._evaluating = evaluating
        self.further = quiet_button("plus", self.tr("Bound another number"))
        self.further.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._menu = QMenu(self.further)
        self.further.setMenu(self._menu)
        for metric in FURTHER:
            action = self._menu.addAction(BY_ID[metric].title)
            action.setToolTip(BY_ID[metric].sentence)
            action.triggered.connect(lambda _checked=False, m=metric: self.offer(m))
        self.header_layout.addWidget(self.further)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(1, 1)
        self.fields: dict[str, QDoubleSpinBox] = {}
        self._rows: dict[str, _Row] = {}
        self._guard = label("", "caption", "muted")
        self._guard.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._guard.setContentsMargins(0, 0, 9, 0)
        self._rows["coherence"] = self._row(0, self.tr("coherence guard"))
        self._grid.addWidget(self._guard, 0, 2)
        self.body.addLayout(self._grid)
        self.verdict = label("", "caption", "muted")
        self.verdict.setWordWrap(True)
        self.body.addWidget(self.verdict)
        self.body.addStretch(1)
        foot = label(
            self.tr("Capability layer only. Absence of evidence is not safety."),
            "caption", "muted",
        )  # fmt: skip
        foot.setWordWrap(True)
        self.body.addWidget(foot)
        self.more, self.log = self._links()
        for bound in (*DEFAULTS.bounds, *evaluating.bounds.bounds):
            self.offer(bound.metric)
        theme.manager().changed.connect(self.refresh)
        evaluating.changed.connect(self.refresh)
        evaluating.results_changed.connect(self.refresh)
        self.refresh()

    def _links(self) -> tuple[QPushButton, QPushButton]:
        more, log = link_button(self.tr("Provenance")), link_button(self.tr("Decisions…"))
        more.setToolTip(self.tr("What the numbers rest on, and what they do not show"))
        log.setToolTip(self.tr("Record what is decided on these results, and read the log"))
        more.clicked.connect(self.provenance_requested)
        log.clicked.connect(self.log_requested)
        row = QHBoxLayout()
        row.setSpacing(0)
        for button in (more, log):
            row.addWidget(button, 1)
        self.body.addLayout(row)
        return more, log

    # Rows.

    def _row(self, place: int, text: str) -> _Row:
        mark, name = QLabel(), ElidedLabel(text)
        mark.setFixedWidth(16)
        mark.hide()
        self._grid.addWidget(mark, place, 0)
        self._grid.addWidget(name, place, 1)
        return _Row(mark, name)

    def offer(self, metric: str) -> None:
        """Show a field for the bound on a metric."""
        if metric in self.fields:
            self.fields[metric].setFocus()
            return
        texts, share = BY_ID[metric], is_share(metric)
        lower = texts.better == "lower"
        field = QDoubleSpinBox()
        field.setRange(_NONE, 100.0 if share else 10000.0)
        field.setDecimals(1 if share else 2)
        field.setSpecialValueText(self.tr("none"))
        field.setPrefix("≤ " if lower else "≥ ")
        field.setSuffix(" %" if share else "")
        field.setFixedSize(86, 25)
        bound = self.tr("at most") if lower else self.tr("at least")
        field.setAccessibleName(f"{texts.title}, {bound}")
        field.setToolTip(texts.sentence)
        field.setKeyboardTracking(False)
        field.setAlignment(Qt.AlignmentFlag.AlignRight)
        field.setValue(_NONE)
        field.valueChanged.connect(lambda value: self._set(metric, value))
        # the guard stays the last line
        place = len(self.fields)
        guard = self._rows["coherence"]
        for column, widget in enumerate((guard.mark, guard.name, self._guard)):
            self._grid.addWidget(widget, place + 1, column)
        self._rows[metric] = self._row(place, texts.title.lower())
        self._grid.addWidget(field, place, 2)
        self.fields[metric] = field
        self.refresh()

    def _set(self, metric: str, value: float) -> None:
        scale = 100.0 if is_share(metric) else 1.0
        # what is shown is what is meant: no digit more
        limit = None if value < 0 else round(value / scale, 6)
        self._evaluating.set_bound(metric, limit)

    def refresh(self) -> None:
        """Show the bounds, and whether what was measured keeps to them."""
        evaluating, examined = self._evaluating, self._evaluating.examined
        judged = examined is not None and evaluating.judged_bounds
        held = {v.bound.metric: v for v in examined.bounds} if examined and judged else {}
        for metric, field in self.fields.items():
            limit = limit_of(evaluating.bounds, metric)
            value = _NONE if limit is None else limit * (100 if is_share(metric) else 1)
            blocked = field.blockSignals(True)
            if abs(field.value() - value) > 1e-9:
                field.setValue(value)
            field.blockSignals(blocked)
            field.setEnabled(not evaluating.running)
            verdict = held.get(metric)
            self._mark(metric, None if verdict is None else verdict.status, _told(verdict))
        self.further.setEnabled(not evaluating.running)
        guard = None if examined is None else examined.coherence
        self._mark("coherence", None if guard is None else "pass" if guard.ok else "fail", "")
        self._guard.setText(
            "" if guard is None else self.tr("passes") if guard.ok else self.tr("fails")
        )
        self._guard.setToolTip("\n".join(guard.reasons) if guard else "")
        self.verdict.setText(self._verdict(judged))
        self.more.setVisible(evaluating.facts is not None)

    def _mark(self, key: str, status: Status | None, told: str) -> None:
        row = self._rows[key]
        known = status in _MARKS
        row.mark.setVisible(known)
        if status is None or not known:
            row.mark.setAccessibleName("")
            return
        name, tone = _MARKS[status]
        words: dict[Status, str] = {
            "pass": self.tr("kept"), "fail": self.tr("missed"),
            "greyed": self.tr("not to be read"),
        }  # fmt: skip
        row.mark.setPixmap(theme.icon(name, tone).pixmap(_MARK, self.devicePixelRatioF()))
        row.mark.setAccessibleName(words[status])
        row.mark.setToolTip("\n".join(part for part in (words[status], told) if part))

    def _verdict(self, judged: bool) -> str:
        evaluating, examined = self._evaluating, self._evaluating.examined
        if examined is None or evaluating.facts is None:
            if evaluating.running:
                return self.tr("Fixed now, until the run has ended.")
            return self.tr("Fixed when the run begins; the verdict comes after it.")
        if not judged:
            return self.tr("Changed after the answers were seen: judged at the next run.")
        text = self._of_all() if len(evaluating.found) > 1 else self._of_one(examined.bounds)
        if evaluating.facts.set_before is False:
            known = self.tr("Some answers were known before the thresholds were set.")
            text = f"{text}\n{known}"
        return text

    def _of_one(self, bounds: tuple[BoundVerdict, ...]) -> str:
        examined = self._evaluating.examined
        assert examined is not None
        known = [verdict.status for verdict in bounds if verdict.status in ("pass", "fail")]
        if not examined.coherence.ok:
            return self.tr("{name} fails the coherence guard: harm is not judged.").format(
                name=examined.name
            )
        if not known:
            return self.tr("No threshold could be judged.")
        if all(status == "pass" for status in known):
            return self.tr("{name} keeps to all {n} thresholds.").format(
                name=examined.name, n=len(known)
            )
        return self.tr("{name} misses {k} of {n} thresholds.").format(
            name=examined.name, k=known.count("fail"), n=len(known)
        )

    def _of_all(self) -> str:
        """Say what each suite comes to: a pass on one is none on another."""
        evaluating = self._evaluating
        words: dict[Status, str] = {
            "pass": self.tr("keeps to all"), "fail": self.tr("fails"),
            "greyed": self.tr("not to be read"), "no data": self.tr("not all judged"),
        }  # fmt: skip
        parts = [
            f"{evaluating.suites.title(name)}: {words[facts.examined.verdict]}"
            for name, facts in evaluating.found.items()
        ]
        return "\n".join(parts)


def _told(verdict: BoundVerdict | None) -> str:
    """Return how a bound came out, with the interval and whether that may be chance."""
    if verdict is None:
        return ""
    if verdict.why:
        return verdict.why
    estimate, scale = verdict.estimate, 100.0 if is_share(verdict.bound.metric) else 1.0
    unit = " %" if scale > 1 else ""
    assert estimate.value is not None
    text = f"{scale * estimate.value:.3g}{unit}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{scale * estimate.low:.3g}, {scale * estimate.high:.3g}]"
    if verdict.beyond_chance is False:
        text += ": the interval reaches across the bound"
    return text
