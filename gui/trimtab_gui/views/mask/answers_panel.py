"""What the merge answers with these masks, beside the same with the random control."""

from __future__ import annotations

from trimtab_gui import texts
from trimtab_gui.masking import Masking
from trimtab_gui.preview import LivePreview
from trimtab_gui.widgets import Panel, label
from trimtab_gui.widgets.share_line import ShareLine


class MaskAnswersPanel(Panel):
    """Refusal and task of the live preview; the control's once it was asked for."""

    def __init__(self, masking: Masking, live: LivePreview) -> None:
        super().__init__("Live preview")
        self.set_title(self.tr("Live preview"))
        self._masking, self._live = masking, live
        self.refusal = ShareLine(self.tr("refusal of harmful"), "aligned")
        self.control = ShareLine(self.tr("random control, refusal"), "base")
        self.task = ShareLine(self.tr("task accuracy"), "finetuned")
        self.control_task = ShareLine(self.tr("random control, task"), "base")
        self.lines = (self.refusal, self.control, self.task, self.control_task)
        for line in self.lines:
            self.body.addWidget(line)
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.body.addWidget(self.note)
        live.changed.connect(self.refresh)
        masking.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show where the preview stands."""
        live, answer, control = self._live, self._live.answer, self._masking.control_answers
        said = ""
        if live.state == "unable":
            said = live.reason
        elif live.state == "error" and live.error is not None:
            said = f"{live.error.what} {live.error.fix}".strip()
        elif live.state == "empty":
            said = self.tr("What the merge will answer appears here.")
        self.set_aside(live.standing())
        shown = answer if live.state == "ready" else None
        for line, key in ((self.refusal, "refusal_share"), (self.task, "task_accuracy")):
            value = shown.merged[key].value if shown is not None else None
            line.set_share(value, "–" if value is None else texts.percent(value))
        for line, key in ((self.control, "refusal_share"), (self.control_task, "task_accuracy")):
            value = control["merged"][key]["value"] if control is not None else None
            line.set_share(value, "–" if value is None else texts.percent(value))
            line.setVisible(self._masking.control is not None and not said)
        for line in (self.refusal, self.task):
            line.setVisible(not said)
        self.note.setText(said)
        self.note.setVisible(bool(said))
