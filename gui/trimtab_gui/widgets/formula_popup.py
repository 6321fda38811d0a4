"""What an (i) opens: name, sentence, formula, range and reference, to be read and copied."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QVBoxLayout, QWidget

from trimtab_gui.widgets.labels import label
from trimtab_gui.widgets.panel import Surface

#: name, sentence, formula, range, reference
Formula = tuple[str, str, str, str, str]


def formula_popup(parent: QWidget, parts: Formula) -> QFrame:
    """Return the popup; empty parts are left out. Whoever opens it moves and shows it."""
    name, sentence, formula, value_range, reference = parts
    popup = QFrame(parent, Qt.WindowType.Popup)
    popup.setObjectName("formula")
    popup.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
    popup.setFixedWidth(360)
    surface = Surface(popup)
    whole = QVBoxLayout(popup)
    whole.setContentsMargins(0, 0, 0, 0)
    whole.addWidget(surface)
    rows = QVBoxLayout(surface)
    rows.setContentsMargins(14, 12, 14, 12)
    rows.setSpacing(6)
    shown = [
        label(name, "title"),
        label(sentence, "body"),
        label(formula, "body", "accent"),
        label(value_range, "caption", "muted"),
        label(reference, "caption", "muted"),
    ]
    for line in shown:
        line.setWordWrap(True)
        line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        line.setVisible(bool(line.text()))
        rows.addWidget(line)
    popup.setFixedHeight(whole.heightForWidth(popup.width()))
    return popup
