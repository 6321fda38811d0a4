"""Below the overlap while it shows activations: on which prompts, and what came of it."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from trimtab.activations.calibration import SHIPPED
from trimtab_gui import texts
from trimtab_gui.activations_found import ActivationsFinding
from trimtab_gui.desk import Desk
from trimtab_gui.scores_found import EXAMPLES
from trimtab_gui.views.mask.builders import Field
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import ElidedLabel

_REFUSED, _HARMFUL, _BENIGN = SHIPPED


class ActivationsStrip(QWidget):
    """Two sets of prompts, what was measured on them, and the button that measures."""

    def __init__(self, desk: Desk, finding: ActivationsFinding) -> None:
        super().__init__()
        self._finding = finding
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 2, 4, 2)
        row.setSpacing(10)
        self.safe = PromptSet(desk, Field(
            "safe", self.tr("safe answers"),
            self.tr("Harmful prompts, with the refusals that the reference gives."),
            sets="examples", demo=(_REFUSED, _HARMFUL),
        ))  # fmt: skip
        self.useful = PromptSet(desk, Field(
            "useful", self.tr("useful answers"), self.tr("Benign prompts with their answers."),
            sets="examples", demo=(_BENIGN,),
        ))  # fmt: skip
        for prompts in (self.safe, self.useful):
            prompts.setMinimumWidth(110)
            prompts.setMaximumWidth(190)
            prompts.changed.connect(self._choose)
            row.addWidget(prompts, 2)
        self.said = ElidedLabel("", "caption", "muted")
        row.addWidget(self.said, 3)
        self.start_button = QPushButton(self.tr("Measure"))
        self.start_button.clicked.connect(finding.start)
        self.stop_button = QPushButton(self.tr("Stop"))
        self.stop_button.clicked.connect(finding.stop)
        row.addWidget(self.start_button)
        row.addWidget(self.stop_button)
        self.refresh()

    def _choose(self) -> None:
        self._finding.choose(self.safe.path, self.useful.path)

    def refresh(self) -> None:
        """Say what was measured, and offer what can be done."""
        finding, found = self._finding, self._finding.known
        self.start_button.setVisible(found is None and not finding.running)
        self.start_button.setEnabled(finding.can_start)
        self.stop_button.setVisible(found is None and finding.running)
        wrong = next((p.error for p in (self.safe, self.useful) if p.error is not None), None)
        if found is not None:
            about = found.about
            self.said.setText(
                self.tr("{n} examples of each · {m} tokens of answers · {digest}").format(
                    n=about["examples"], m=f"{about['counted']['answers']:,}",
                    digest=about["digest"][:8],
                )
            )  # fmt: skip
        elif wrong is not None:
            self.said.setText(f"{wrong.what} {wrong.why}")
        elif finding.can_start:
            counts = (EXAMPLES, self.safe.count, self.useful.count)
            text = self.tr("{n} examples of each · {size} of weights to read")
            size = texts.size(finding.bytes_read())
            self.said.setText(text.format(n=min(counts), size=size))
        else:
            self.said.setText(self.tr("Choose both sets of prompts."))
