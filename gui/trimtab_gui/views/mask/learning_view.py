"""How a learning of SOMF's goes: its curves, its steps, and what can be done with it."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from trimtab_gui import texts, theme
from trimtab_gui.mask_building import PAUSED, RUNNING, MaskBuilding
from trimtab_gui.plots.trace import TracePlot
from trimtab_gui.widgets import label


class LearningView(QWidget):
    """Loss and reward margin, steps, and what can be done with a learning."""

    def __init__(self, building: MaskBuilding) -> None:
        super().__init__()
        self._building = building
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        self.steps = label("", "number")
        self.now = label("", "caption", "muted")
        head = QHBoxLayout()
        head.addWidget(self.steps)
        head.addStretch(1)
        head.addWidget(self.now)
        rows.addLayout(head)
        self.loss = TracePlot(self.tr("preference loss"), "aligned")
        self.margin = TracePlot(self.tr("reward margin"), "merged")
        for plot in (self.loss, self.margin):
            rows.addWidget(label(plot.accessibleName(), "caption", "muted"))
            plot.setFixedHeight(84)
            rows.addWidget(plot)
        self.pause = QPushButton()
        self._pause_icon = theme.bind_icon(self.pause, "pause")
        self.pause.clicked.connect(self._pause)
        self.enough = QPushButton(self.tr("Use as it is"))
        self.enough.clicked.connect(building.use_as_it_is)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.pause)
        row.addWidget(self.enough)
        row.addStretch(1)
        rows.addLayout(row)
        building.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show how far the learning has come."""
        learning = self._building.learning
        log, state = learning.log, learning.state
        self.steps.setText(
            self.tr("{n} of {m} steps").format(n=log.step, m=log.steps) if log.steps else ""
        )
        preferred = texts.percent(log.preferred[-1], 0) if log.preferred else ""
        said = self.tr("{share} preferred").format(share=preferred) if preferred else ""
        self.now.setText(self.tr("paused") if state == PAUSED else said)
        self.now.setToolTip(
            self.tr("Pairs of the last step whose safe answer is the likelier one, under the mask "
                    "drawn then")
        )  # fmt: skip
        self.loss.set_values(log.at, log.loss, log.steps)
        self.margin.set_values(log.at, log.margin, log.steps)
        self.pause.setVisible(bool(state))
        self.enough.setVisible(bool(state))
        # a paused one is gone on with when nothing else is being built
        free = state == RUNNING or not self._building.running
        self.pause.setEnabled(free)
        self.enough.setEnabled(free and log.step > 0)
        self.pause.setText(self.tr("Resume") if state == PAUSED else self.tr("Pause"))
        if self._pause_icon is not None:
            self._pause_icon.set_icon("play" if state == PAUSED else "pause")

    def _pause(self) -> None:
        if self._building.learning.state == PAUSED:
            self._building.resume()
        else:
            self._building.stop()
