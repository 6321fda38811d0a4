"""Two gauges of what the merge will answer, measured while the hand moves."""

from __future__ import annotations

import math

from PySide6.QtCore import QSize
from PySide6.QtWidgets import (
    QHBoxLayout,
    QSizePolicy,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from trimtab.evaluation.probes import MEASURE
from trimtab.evaluation.statistics import wilson
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.preview import Answer, LivePreview, Measured
from trimtab_gui.views.distance_panel import DistancePanel
from trimtab_gui.widgets import Gauge, Panel, Unknown, quiet_button

#: the height of a panel's title
_SWITCH = 14


class PreviewPanel(Panel):
    """Refusal and task of the merge as the recipe stands, beside those of the fine-tuned model."""

    def __init__(self, desk: Desk, preview: LivePreview) -> None:
        super().__init__("Live preview")
        self.set_title(self.tr("Live preview"))
        self._desk, self._preview = desk, preview
        self.refusal = Gauge(self.tr("refusal of harmful"), "aligned")
        self.task = Gauge(self.tr("task accuracy"), "finetuned")
        gauges = QWidget()
        row = QHBoxLayout(gauges)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.refusal)
        row.addWidget(self.task)
        self.message = Unknown()
        self._pages = QStackedWidget()
        self._pages.addWidget(gauges)
        self._pages.addWidget(self.message)
        self._pages.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._pages.setFixedHeight(self.refusal.sizeHint().height())
        self.body.addWidget(self._pages)
        self.switch = add_switch(self, "vector-polyline", self.tr("Show how far the weights move"))
        preview.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show where the preview stands."""
        preview = self._preview
        state, answer = preview.state, preview.answer
        says = why = ""
        if state == "unable":
            says = preview.reason
        elif state == "error" and preview.error is not None:
            says = f"{preview.error.what} {preview.error.fix}".strip()
            why = preview.error.why
        elif state == "empty":
            says = self.tr("What the merge will answer appears here.")
        self._pages.setCurrentIndex(1 if says else 0)
        self.message.set_text(says)
        self.message.setToolTip(why)
        self.set_aside(preview.standing())
        if answer is None or says:
            for gauge in (self.refusal, self.task):
                gauge.set_value(None, "–", "")
            return
        _show(self.refusal, "refusal_share", answer, self.tr("{difference} vs fine-tuned"))
        _show(self.task, "task_accuracy", answer, self.tr("{difference} vs fine-tuned"))
        self.refusal.setToolTip(
            "\n".join([*_lines("refusal_share", answer), *_lines("refusal_margin", answer), "",
                       *_lines("kl", answer), "", self._probes(answer)])
        )  # fmt: skip
        self.task.setToolTip(
            "\n".join([*_lines("task_accuracy", answer), *_lines("task_margin", answer), "",
                       *_lines("perplexity", answer), "", self._probes(answer)])
        )  # fmt: skip

    def _probes(self, answer: Answer) -> str:
        probes = answer.probes
        text = self.tr(
            "{harmful} harmful and {task} task prompts of {suite}, chosen by seed {seed}. "
            "R: {openings}."
        ).format(**{**probes, "openings": ", ".join(probes["openings"])})
        if probes["template"] == "plain":
            text += " " + self.tr("The model has no chat template: prompts are put as they are.")
        if answer.streamed:
            text += " " + self.tr(
                "The models do not fit in memory: they are read, merged and measured one block "
                "after the other, the last time in {duration}."
            ).format(duration=texts.duration(answer.seconds))
        return text


def add_switch(panel: Panel, icon: str, tooltip: str) -> QToolButton:
    """Put a button that turns the page at the right of a panel's title, no higher than that."""
    button = quiet_button(icon, tooltip)
    button.setIconSize(QSize(_SWITCH - 2, _SWITCH - 2))
    button.setFixedSize(_SWITCH + 4, _SWITCH)
    button.setStyleSheet("padding: 0;")
    panel.header_layout.addWidget(button)
    return button


def _show(gauge: Gauge, key: str, answer: Answer, versus: str) -> None:
    now = answer.merged[key]
    if now.value is None:
        gauge.set_value(None, "–", "")
        return
    before = answer.finetuned[key].value if answer.finetuned else None
    note = ""
    if before is not None:
        note = versus.format(difference=texts.signed_points(100 * (now.value - before)))
    gauge.set_value(100 * now.value, f"{100 * now.value:.1f}", note)


def _lines(key: str, answer: Answer) -> list[str]:
    """Return a measure's name with its values, what it says, and its formula."""
    measure = MEASURE[key]
    if not answer.merged[key].n:
        return [f"{measure.title}: no data", measure.sentence]
    shown = [_value(answer.merged[key])]
    if answer.finetuned is not None:
        shown.append(f"fine-tuned {_value(answer.finetuned[key], short=True)}")
    shown.append(f"reference {_value(answer.reference[key], short=True)}")
    return [f"{measure.title}: {' · '.join(shown)}", measure.sentence, measure.formula]


def _value(measured: Measured, short: bool = False) -> str:
    if measured.value is None or not math.isfinite(measured.value):
        return "–"
    if measured.hits is None:
        number = f"{measured.value:.3g}".replace("-", "−")
        return number if short else f"{number} (n = {measured.n})"
    if short:
        return texts.percent(measured.value)
    low, high = wilson(measured.hits, measured.n)
    return (
        f"{measured.hits} of {measured.n}, {texts.percent(measured.value)} "
        f"[{100 * low:.0f}, {100 * high:.0f}]"
    )


class PreviewPages(QWidget):
    """The live preview, and the distances that are known without running the model behind it.

    Until somebody chooses, the preview is in front where it can measure anything.
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.live = LivePreview(desk)
        self.preview = PreviewPanel(desk, self.live)
        self.distance = DistancePanel(desk)
        self.back = add_switch(
            self.distance, "shield-outline", self.tr("Show what the merge will answer")
        )
        self._chosen: QWidget | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for panel in (self.preview, self.distance):
            layout.addWidget(panel)
        self.preview.switch.clicked.connect(lambda: self.show_page(self.distance))
        self.back.clicked.connect(lambda: self.show_page(self.preview))
        self.live.changed.connect(self._settle)
        desk.project_changed.connect(self._forget)
        self._settle()

    def show_page(self, page: QWidget) -> None:
        """Bring one of the two to the front, for as long as the project is open."""
        self._chosen = page
        self._settle()

    def _forget(self) -> None:
        self._chosen = None
        self._settle()

    def _settle(self) -> None:
        able = self.live.state in ("loading", "ready", "error")
        front = self._chosen or (self.preview if able else self.distance)
        self.preview.setVisible(front is self.preview)
        self.distance.setVisible(front is self.distance)
