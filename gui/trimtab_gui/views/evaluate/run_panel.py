"""The primary button of the place, with what the run will take or why it cannot begin."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QPushButton, QStackedWidget

from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.merging import device_key
from trimtab_gui.theme import bind_icon
from trimtab_gui.widgets import Panel, label, primary_button


class RunPanel(Panel):
    """``run_requested`` begins, ``stop_requested`` gives up."""

    run_requested = Signal()
    stop_requested = Signal()

    def __init__(self, desk: Desk, evaluating: Evaluating) -> None:
        super().__init__("")
        self.setAccessibleName(self.tr("Run"))
        self._desk, self._evaluating = desk, evaluating
        self.says = label("", "caption", "muted")
        self.says.setWordWrap(True)
        self.button = primary_button("", "shield-check-outline")
        self.button.clicked.connect(self.run_requested)
        self.stop = QPushButton(self.tr("Stop"))
        bind_icon(self.stop, "stop", "text")
        self.stop.clicked.connect(self.stop_requested)
        self._buttons = QStackedWidget()
        self._buttons.addWidget(self.button)
        self._buttons.addWidget(self.stop)
        self.body.addWidget(self.says)
        self.body.addWidget(self._buttons)
        self._buttons.setFixedHeight(self.button.sizeHint().height())
        evaluating.changed.connect(self.refresh)
        desk.devices_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show whether the run can begin, and how long it may take."""
        evaluating = self._evaluating
        count, reason = evaluating.count, evaluating.obstacle()
        one = self.tr("Evaluate 1 target")
        many = self.tr("Evaluate {n} targets").format(n=count)
        self.button.setText(one if count == 1 else many)
        self.button.setEnabled(reason is None)
        self._buttons.setCurrentWidget(self.stop if evaluating.running else self.button)
        self.says.setText(self._text(reason))

    def _text(self, reason: str | None) -> str:
        evaluating = self._evaluating
        if evaluating.running:
            return self.tr("Asking {n} targets on {suite} …").format(
                n=evaluating.count, suite=evaluating.suites.title(evaluating.asking)
            )
        if reason is not None:
            return reason
        seconds = evaluating.seconds_expected()
        device = device_key(self._desk.devices[0])
        if seconds is None:
            asked = sum(evaluating.counts.values())
            text = self.tr("1 prompt each, on {device}")
            if asked != 1:
                text = self.tr("{n:,} prompts each, on {device}")
            return text.format(n=asked, device=device)
        return self.tr("about {time} on {device}").format(
            time=texts.duration(seconds), device=device
        )
