"""Below the heatmap while it shows scores: on which prompts, how, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from trimtab.activations.calibration import SHIPPED
from trimtab.activations.norms import FORMULAS, MODES, Mode
from trimtab.inspection.attribution import KINDS, Score
from trimtab.inspection.attribution_metrics import SCORE_MODES, Scored
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.scores_found import EXAMPLES, ScoresFinding
from trimtab_gui.views.mask.builders import Field
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import Choice, ElidedLabel, label

#: which builder of masks goes by a score; none goes by Fisher's
BUILDERS: dict[Score, str] = {
    "delta-wanda": "antidote",
    "wanda": "difference",
    "snip": "difference",
}
_SHARES = (0.001, 0.01, 0.05, 0.1)


class ScoresStrip(QWidget):
    """``wanted`` asks for the scores that are shown.

    ``mask_requested`` carries a builder's id, and the file of prompts where it is a person's own.
    """

    wanted = Signal()
    mask_requested = Signal(str, str)

    def __init__(self, desk: Desk, finding: ScoresFinding) -> None:
        super().__init__()
        self._desk, self._finding = desk, finding
        self.score: Score = "delta-wanda"
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 2, 4, 2)
        row.setSpacing(10)
        self.prompts = PromptSet(desk, Field(
            "calibration", self.tr("prompts"),
            self.tr("Prompts with answers that the model reads. What they are of decides what the "
                    "scores mean: refusals find what refusing hangs on."),
            sets="examples", demo=SHIPPED,
        ))  # fmt: skip
        self.prompts.setMinimumWidth(120)
        self.prompts.setMaximumWidth(204)
        self.prompts.changed.connect(self._choose)
        self.mode = Choice()
        self.mode.setAccessibleName(self.tr("Mode"))
        self.mode.currentIndexChanged.connect(self._choose)
        self.share = Choice()
        self.share.setAccessibleName(self.tr("Highest"))
        self.share.setToolTip(self.tr("Which share of the model's entries counts as the highest."))
        for share in _SHARES:
            self.share.addItem(f"{100 * share:g} %", share)
        self.share.setCurrentIndex(_SHARES.index(finding.share))
        self.share.currentIndexChanged.connect(self._choose)
        row.addWidget(self.prompts, 2)
        for caption, box in ((self.tr("mode"), self.mode), (self.tr("highest"), self.share)):
            row.addLayout(_captioned(caption, box))
        self.facts = QWidget()
        facts = QVBoxLayout(self.facts)
        facts.setContentsMargins(0, 0, 0, 0)
        facts.setSpacing(1)
        self.said = ElidedLabel("", "caption")
        self.more = ElidedLabel("", "caption", "muted")
        facts.addWidget(self.said)
        facts.addWidget(self.more)
        self.facts.setMinimumWidth(120)
        row.addWidget(self.facts, 3)
        self.start_button = self._button(self.tr("Score"), self.wanted.emit)
        self.stop_button = self._button(self.tr("Stop"), finding.stop)
        self.mask_button = self._button(self.tr("Make a mask…"), self._ask_for_mask)
        self.mask_button.setToolTip(self.tr("Go to the builder of masks that goes by this score"))
        for button in (self.start_button, self.stop_button, self.mask_button):
            row.addWidget(button)
        self.show_score("delta-wanda")

    def _button(self, text: str, call: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda _checked=False: call())
        return button

    def _ask_for_mask(self) -> None:
        own = "" if self.prompts.path in SHIPPED else self.prompts.path
        self.mask_requested.emit(BUILDERS[self.score], own)

    def show_score(self, score: Score) -> None:
        """Offer the modes of a score, and say what is known of it."""
        modes = SCORE_MODES[score]
        self.score = score
        if [self.mode.itemData(k) for k in range(self.mode.count())] != list(modes):
            self.mode.blockSignals(True)
            self.mode.clear()
            for mode in modes:
                self.mode.addItem(mode, mode)
            kept = self._finding.mode
            self.mode.setCurrentIndex(modes.index(kept) if kept in modes else 0)
            self.mode.blockSignals(False)
        self.mode.setEnabled(len(modes) > 1)
        told = "\n".join(f"{mode}: {FORMULAS[mode]}" for mode in MODES)
        only = self.tr("Each example is a batch of its own, as in the authors' code.")
        self.mode.setToolTip(told if len(modes) > 1 else only)
        self.refresh()

    def _choose(self) -> None:
        finding = self._finding
        mode: Mode = self.mode.currentData()
        # the one mode of gradients must not replace what was chosen for input strengths
        chosen = mode if len(SCORE_MODES[self.score]) > 1 else finding.mode
        finding.choose(self.prompts.path, chosen, float(self.share.currentData()))

    def refresh(self) -> None:
        """Say what was scored, and offer what can be done."""
        finding, active = self._finding, self._desk.active
        found = finding.known(self.score, active)
        asked = finding.asked(self.score, active)
        busy = finding.running and finding.asking == asked
        self.start_button.setVisible(found is None and not busy)
        self.start_button.setEnabled(asked is not None)
        self.stop_button.setVisible(busy)
        self.mask_button.setVisible(found is not None and self.score in BUILDERS)
        if found is not None:
            self._tell(found)
        elif self.prompts.error is not None:
            self._say(self.prompts.error.what, self.prompts.error.why)
        elif asked is None:
            self._say(self.tr("Not scored yet"), self.tr("Choose prompts with answers first."))
        else:
            count = min(self.prompts.count, EXAMPLES)
            self._say(
                self.tr("Scoring …") if busy else self.tr("Not scored yet"),
                self.tr("{n} examples · {size} of weights to read").format(
                    n=f"{count:,}", size=texts.size(finding.bytes_read(active))
                ),
            )

    def _tell(self, found: Scored) -> None:
        facts = [
            self.tr("{n} examples").format(n=f"{found.examples:,}"),
            self.tr("{n} tokens, {m} answers'").format(
                n=f"{found.tokens:,}", m=f"{found.answer_tokens:,}"
            ),
        ]
        more = [found.digest[:8], texts.duration(found.seconds)]
        if found.loss is not None:
            more.append(self.tr("loss {loss} nats a token").format(loss=f"{found.loss:.3f}"))
        self._say(" · ".join(facts), f"{found.calibration} · " + " · ".join(more))
        tip = self.tr(
            "{title} of {model}, {mode}\non {set}, template {template}\nSHA-256 {digest}\n{file}"
        )
        self.facts.setToolTip(tip.format(
            title=KINDS[found.score].title, model=found.model, mode=found.mode,
            set=found.calibration, template=found.template, digest=found.digest, file=found.file,
        ))  # fmt: skip

    def _say(self, text: str, more: str) -> None:
        self.said.setText(text)
        self.more.setText(more)
        self.facts.setToolTip("")


def _captioned(caption: str, box: Choice) -> QVBoxLayout:
    column = QVBoxLayout()
    column.setSpacing(1)
    column.addWidget(box)
    column.addWidget(label(caption, "caption", "muted"))
    return column
