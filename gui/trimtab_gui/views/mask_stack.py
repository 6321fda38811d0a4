"""The masks of the active model: which are on, how each joins those above it, adding, removing."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QSizePolicy, QWidget

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry, Op
from trimtab.masks.file import MaskFile
from trimtab.project import edits
from trimtab_gui.desk import Desk
from trimtab_gui.notices import Notice
from trimtab_gui.widgets import Panel, label, quiet_button
from trimtab_gui.widgets.buttons import link_button
from trimtab_gui.widgets.choice import Choice
from trimtab_gui.widgets.labels import ElidedLabel

#: what an entry does with the mask of those above it: sign and words
OPS: dict[Op, tuple[str, str]] = {
    "and": ("∩", "keep what both keep"),
    "or": ("∪", "keep what either keeps"),
    "minus": ("−", "keep what this one does not"),
    "xor": ("⊕", "keep what exactly one keeps"),
    "times": ("×", "multiply soft masks"),
}
_TOPIC = "mask"


class MaskRow(QWidget):
    """One entry of the stack; every gesture is one undoable edit."""

    def __init__(self, panel: MaskStackPanel, number: int, entry: MaskEntry) -> None:
        super().__init__()
        self._panel, self._number, self._entry = panel, number, entry
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.on = QCheckBox()
        self.on.setChecked(entry.on)
        self.on.setAccessibleName(self.tr("{mask} is on").format(mask=entry.title))
        self.on.toggled.connect(lambda on: self._change("Switch {mask}", on=on))
        row.addWidget(self.on)
        self.title = ElidedLabel(entry.title)
        self.title.setToolTip(entry.path or entry.title)
        self.title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.title.setEnabled(entry.on)
        row.addWidget(self.title, 1)
        self.op = Choice()
        for key, (sign, words) in OPS.items():
            self.op.addItem(sign, key)
            self.op.setItemData(self.op.count() - 1, self.tr(words), Qt.ItemDataRole.ToolTipRole)
        self.op.setCurrentIndex(list(OPS).index(entry.op))
        self.op.setFixedWidth(58)
        self.op.setAccessibleName(self.tr("How {mask} joins those above").format(mask=entry.title))
        self.op.setToolTip(self.tr(OPS[entry.op][1]))
        self.op.activated.connect(lambda i: self._change("Join {mask}", op=self.op.itemData(i)))
        row.addWidget(self.op)
        self.invert = QCheckBox(self.tr("not"))
        self.invert.setChecked(entry.invert)
        self.invert.setToolTip(self.tr("Take its complement"))
        self.invert.setAccessibleName(self.tr("{mask} inverted").format(mask=entry.title))
        self.invert.toggled.connect(lambda on: self._change("Invert {mask}", invert=on))
        row.addWidget(self.invert)
        self.remove = quiet_button("close", self.tr("Remove {mask}").format(mask=entry.title))
        self.remove.clicked.connect(self._remove)
        row.addWidget(self.remove)

    def _change(self, label_text: str, **changes: object) -> None:
        changed = self._entry.model_copy(update=changes)
        if changed != self._entry:
            text = self.tr(label_text).format(mask=self._entry.title)
            self._panel.put(self._number, changed, text)

    def _remove(self) -> None:
        text = self.tr("Remove {mask}").format(mask=self._entry.title)
        self._panel.put(self._number, None, text)


class MaskStackPanel(Panel):
    """Shown while the active model has masks, and when one is to be added."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Mask stack")
        self.set_title(self.tr("Mask stack"))
        self._desk = desk
        self.rows: list[MaskRow] = []
        self._shown: tuple[MaskEntry, ...] | None = None
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.add = link_button(self.tr("Add a mask file…"))
        self.add.clicked.connect(self.choose_file)
        self.body.addWidget(self.note)
        self.body.addWidget(self.add)
        desk.recipe_changed.connect(self.refresh)
        desk.project_changed.connect(self.refresh)
        desk.active_changed.connect(self.refresh)
        self.refresh()

    @property
    def _stack(self) -> tuple[MaskEntry, ...]:
        active = self._desk.active
        return self._desk.recipe.finetuned[active].masks if active >= 0 else ()

    def refresh(self) -> None:
        """Show the active model's stack."""
        stack = self._stack
        self.setVisible(bool(stack))
        if stack == self._shown:
            return
        self._shown = stack
        for row in self.rows:
            self.body.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = [MaskRow(self, i, entry) for i, entry in enumerate(stack)]
        for i, row in enumerate(self.rows):
            self.body.insertWidget(i, row)
        on = sum(entry.on for entry in stack)
        self.set_aside(self.tr("{n} of {m} on").format(n=on, m=len(stack)))
        self.note.setText(
            self.tr("From top to bottom; what no mask keeps goes back to the {reference} model.")
            .format(reference=self._desk.reference_word)
        )  # fmt: skip

    def put(self, number: int, entry: MaskEntry | None, label_text: str) -> None:
        """Replace an entry, or take it out."""
        stack = list(self._stack)
        stack[number : number + 1] = [] if entry is None else [entry]
        self._edit(stack, label_text)

    def choose_file(self) -> None:
        """Ask for a mask file and put it at the end of the stack."""
        path, _ = QFileDialog.getOpenFileName(
            self, self.tr("Add a mask"), "", self.tr("Masks (*.mask.safetensors)")
        )
        if path:
            self.add_file(Path(path))

    def add_file(self, path: Path) -> None:
        """Put a mask file at the end of the active model's stack; says why where it is none."""
        if self._desk.active < 0:
            return
        try:
            MaskFile.open(path)
        except UserError as error:
            self._desk.notice.emit(Notice.of(error, topic=_TOPIC))
            return
        self._desk.withdrawn.emit(_TOPIC)
        entry = MaskEntry(path=str(path.absolute()))
        self._edit([*self._stack, entry], self.tr("Add {mask}").format(mask=entry.title))

    def _edit(self, stack: list[MaskEntry], label_text: str) -> None:
        desk = self._desk
        desk.edit(edits.set_masks(desk.recipe, desk.active, stack, label_text))
