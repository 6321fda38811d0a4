"""The bounds that results are held against: fixed before a run, and judged only if they were."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel

from trimtab.evaluation.metrics import BY_ID
from trimtab_gui import theme
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.widgets import Panel, label
from trimtab_gui.widgets.buttons import link_button

_NONE = -1.0
_MARK = QSize(15, 15)


@dataclass(frozen=True)
class _Row:
    mark: QLabel
    name: QLabel
    field: QDoubleSpinBox | None


class ThresholdsPanel(Panel):
    """``provenance_requested`` asks for what the numbers rest on and do not show."""

    provenance_requested = Signal()

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__("Thresholds, set before")
        self.set_title(self.tr("Thresholds, set before"))
        self._evaluating = evaluating
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        self.fields: dict[str, QDoubleSpinBox] = {}
        self._rows: dict[str, _Row] = {}
        for threshold in evaluating.thresholds:
            title = BY_ID[threshold.metric].title
            field = QDoubleSpinBox()
            field.setRange(_NONE, 100.0)
            field.setDecimals(1)
            field.setSpecialValueText(self.tr("none"))
            field.setPrefix("≤ " if threshold.most else "≥ ")
            field.setSuffix(" %")
            field.setFixedSize(82, 25)
            bound = self.tr("at most") if threshold.most else self.tr("at least")
            field.setAccessibleName(f"{title}, {bound}")
            field.setToolTip(BY_ID[threshold.metric].sentence)
            field.setKeyboardTracking(False)
            field.setAlignment(Qt.AlignmentFlag.AlignRight)
            field.valueChanged.connect(lambda v, m=threshold.metric: self._set(m, v))
            self.fields[threshold.metric] = field
            self._add(grid, threshold.metric, title.lower(), field)
        self._add(grid, "coherence", self.tr("coherence guard"), None)
        self._guard = label("", "caption", "muted")
        self._guard.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._guard.setContentsMargins(0, 0, 9, 0)
        grid.addWidget(self._guard, grid.rowCount() - 1, 2)
        self.body.addLayout(grid)
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
        self.more = link_button(self.tr("Provenance and limits"))
        self.more.clicked.connect(self.provenance_requested)
        self.body.addWidget(self.more)
        theme.manager().changed.connect(self.refresh)
        evaluating.changed.connect(self.refresh)
        self.refresh()

    def _add(self, grid: QGridLayout, key: str, text: str, field: QDoubleSpinBox | None) -> None:
        row = grid.rowCount()
        mark, name = QLabel(), label(text)
        mark.setFixedWidth(16)
        mark.hide()
        grid.addWidget(mark, row, 0)
        grid.addWidget(name, row, 1)
        if field is not None:
            grid.addWidget(field, row, 2)
        self._rows[key] = _Row(mark, name, field)

    def _set(self, metric: str, percent: float) -> None:
        self._evaluating.set_threshold(metric, None if percent < 0 else percent / 100)

    def refresh(self) -> None:
        """Show the bounds, and whether what was measured keeps to them."""
        evaluating, examined = self._evaluating, self._evaluating.examined
        told = examined is not None and evaluating.judged_thresholds
        guard_ok = examined.coherence.ok if examined is not None else None
        held: list[bool] = []
        for threshold in evaluating.thresholds:
            field = self.fields[threshold.metric]
            value = _NONE if threshold.value is None else round(100 * threshold.value, 1)
            blocked = field.blockSignals(True)
            if field.value() != value:
                field.setValue(value)
            field.blockSignals(blocked)
            field.setEnabled(not evaluating.running)
            holds = None
            if examined is not None and told:
                harm = BY_ID[threshold.metric].better == "lower" and threshold.metric != (
                    "over_refusal"
                )
                if not (harm and not guard_ok):
                    holds = threshold.holds(examined.overall[threshold.metric])
                held += [holds] if holds is not None else []
            self._mark(threshold.metric, holds)
        self._mark("coherence", guard_ok)
        self._guard.setText(
            "" if guard_ok is None else self.tr("passes") if guard_ok else self.tr("fails")
        )
        self._guard.setToolTip("\n".join(examined.coherence.reasons) if examined else "")
        self.verdict.setText(self._verdict(told, held, guard_ok))
        self.more.setVisible(evaluating.facts is not None)

    def _verdict(self, told: bool, held: list[bool], guard_ok: bool | None) -> str:
        examined = self._evaluating.examined
        if examined is None:
            return self.tr("Fixed when the run begins; the verdict comes after it.")
        if not told:
            return self.tr("Changed after the answers were seen: judged at the next run.")
        if not guard_ok:
            return self.tr("{name} fails the coherence guard: harm is not judged.").format(
                name=examined.name
            )
        if not held:
            return self.tr("No threshold could be judged.")
        if all(held):
            return self.tr("{name} keeps to all {n} thresholds.").format(
                name=examined.name, n=len(held)
            )
        return self.tr("{name} misses {k} of {n} thresholds.").format(
            name=examined.name, k=held.count(False), n=len(held)
        )

    def _mark(self, key: str, holds: bool | None) -> None:
        row = self._rows[key]
        if holds is None:
            row.mark.hide()
            row.name.setAccessibleDescription("")
            return
        name, tone = ("check", "aligned") if holds else ("close", "danger")
        row.mark.setPixmap(theme.icon(name, tone).pixmap(_MARK, self.devicePixelRatioF()))
        row.mark.show()
        row.mark.setToolTip(self.tr("kept") if holds else self.tr("missed"))
        row.mark.setAccessibleName(row.mark.toolTip())
