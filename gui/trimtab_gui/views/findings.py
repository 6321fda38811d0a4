"""Lists what does not fit in a lineup, and what will be done about each of it."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from trimtab.checkpoints import Finding
from trimtab_gui.widgets import label
from trimtab_gui.widgets.panel import Surface

_TONES = {"error": "danger", "warning": "finetuned", "note": "muted"}
_SHOWN_TENSORS = 6


class FindingsPopup(QFrame):
    """Errors first, then warnings, then notes."""

    def __init__(self, findings: Sequence[Finding], parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setFixedWidth(420)
        self.setAccessibleName(self.tr("What was found"))
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        surface = Surface()
        whole.addWidget(surface)
        around = QVBoxLayout(surface)
        around.setContentsMargins(4, 4, 4, 4)
        content = QWidget()
        content.setObjectName("scrolled")
        rows = QVBoxLayout(content)
        rows.setContentsMargins(10, 8, 10, 8)
        rows.setSpacing(10)
        names = {
            "error": self.tr("Problem"), "warning": self.tr("Warning"), "note": self.tr("Note"),
        }  # fmt: skip
        for finding in sorted(findings, key=lambda f: ("error", "warning", "note").index(f.level)):
            block = QVBoxLayout()
            block.setSpacing(2)
            lines = [
                label(f"{names[finding.level]} · {finding.model}", "caps", _TONES[finding.level]),
                label(finding.what, "strong"),
                label(finding.effect, "body", "muted"),
            ]
            if finding.tensors:
                listed = ", ".join(finding.tensors[:_SHOWN_TENSORS])
                more = len(finding.tensors) - _SHOWN_TENSORS
                tail = self.tr(" and {n} more").format(n=more) if more > 0 else ""
                lines.append(label(listed + tail, "caption", "muted"))
            for line in lines:
                line.setWordWrap(True)
                block.addWidget(line)
            rows.addLayout(block)
        rows.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        area.viewport().setAutoFillBackground(False)
        around.addWidget(area)
        content.setFixedWidth(self.width() - 8)
        needed = rows.heightForWidth(content.width()) + 8
        self.setFixedHeight(min(needed + 2, 440))
