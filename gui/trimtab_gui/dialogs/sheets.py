"""Short texts in a window of their own: shortcuts, about, doctor, a fault's traceback."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase, QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from trimtab import __version__
from trimtab_gui.actions import Actions
from trimtab_gui.widgets import label


class Sheet(QDialog):
    """A titled dialog that goes when it is closed."""

    def __init__(self, title: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(22, 18, 22, 16)
        self.body.setSpacing(10)
        self.body.addWidget(label(title, "title"))


_PLOT_KEYS = (
    ("Arrow keys", "Move the cell cursor; Shift extends the selection"),
    ("Home", "Show everything"),
    ("Backspace", "Back to the view before"),
    ("Wheel", "Zoom at the pointer; drag with Shift or the middle button to pan"),
    ("Arrows on a slider", "One step; Page Up and Down ten; digits or Enter to type"),
)


class Shortcuts(Sheet):
    """Every shortcut, as declared, and the keys of the plots."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent.tr("Keyboard shortcuts"), parent)
        grid = QGridLayout()
        grid.setHorizontalSpacing(28)
        grid.setVerticalSpacing(6)
        native = QKeySequence.SequenceFormat.NativeText
        self.rows = [
            (QKeySequence(a.shortcut).toString(native), a.text) for a in actions if a.shortcut
        ]
        plots = [(self.tr(keys), self.tr(what)) for keys, what in _PLOT_KEYS]
        for row, (keys, what) in enumerate([*self.rows, *plots]):
            grid.addWidget(label(keys, "strong"), row, 0)
            grid.addWidget(label(what, "body", "muted"), row, 1)
        self.body.addLayout(grid)


class About(Sheet):
    """What this is, and what it does not do."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(f"Trimtab {__version__}", parent)
        for text in (
            self.tr("See what fine-tuning did to a language model’s safety, layer by layer, "
                    "and steer it back by merging."),
            self.tr("Trimtab uses no network unless you ask it to; in this version nothing does. "
                    "It never runs code from a checkpoint."),
            self.tr("Numbers here are computed from weights. They say how far weights moved, not "
                    "how a model answers."),
            self.tr("Apache License 2.0. Inter by Rasmus Andersson (OFL 1.1); "
                    "Material Design Icons (Apache 2.0)."),
        ):  # fmt: skip
            line = label(text, "body", "muted")
            line.setWordWrap(True)
            line.setMinimumWidth(420)
            self.body.addWidget(line)


class TextSheet(Sheet):
    """A longer text that can be copied."""

    def __init__(self, title: str, text: str, parent: QWidget) -> None:
        super().__init__(title, parent)
        self.text = QPlainTextEdit(text)
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setAccessibleName(title)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.body.addWidget(self.text, 1)
        row = QHBoxLayout()
        row.addStretch(1)
        copy = QPushButton(self.tr("Copy"))
        copy.clicked.connect(self.copy)
        row.addWidget(copy)
        self.body.addLayout(row)
        self.resize(720, 460)

    def set_text(self, text: str) -> None:
        """Show another text."""
        self.text.setPlainText(text)

    def copy(self) -> None:
        """Put the text on the clipboard."""
        QGuiApplication.clipboard().setText(self.text.toPlainText())
