"""The masks of the active model: which are on, how each joins those above it, adding, moving."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry, Op
from trimtab.masks.file import MaskFile
from trimtab.project.mask_edits import add_mask, move_mask, remove_mask, replace_mask
from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.masking import Masking
from trimtab_gui.notices import Notice
from trimtab_gui.widgets import Panel, label, quiet_button
from trimtab_gui.widgets.buttons import link_button
from trimtab_gui.widgets.labels import ElidedLabel
from trimtab_gui.widgets.op_chip import OpChip

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
    """One entry of the stack; every gesture is one undoable edit.

    Alt with Up or Down moves it, from any of its controls.
    """

    def __init__(self, panel: MaskStackPanel, number: int, entry: MaskEntry) -> None:
        super().__init__()
        self._panel, self._number, self._entry = panel, number, entry
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.op = OpChip()
        for key, (sign, words) in OPS.items():
            self.op.addItem(sign, key)
            self.op.setItemData(self.op.count() - 1, self.tr(words), Qt.ItemDataRole.ToolTipRole)
        self.op.setCurrentIndex(list(OPS).index(entry.op))
        self.op.setAccessibleName(self.tr("How {mask} joins those above").format(mask=entry.title))
        self.op.setToolTip(self.tr(OPS[entry.op][1]))
        self.op.activated.connect(lambda i: self._change("Join {mask}", op=self.op.itemData(i)))
        row.addWidget(self.op)
        self.on = QCheckBox()
        self.on.setChecked(entry.on)
        self.on.setAccessibleName(self.tr("{mask} is on").format(mask=entry.title))
        self.on.toggled.connect(lambda on: self._change("Switch {mask}", on=on))
        row.addWidget(self.on)
        shown = self.tr("not {mask}").format(mask=entry.title) if entry.invert else entry.title
        self.title = ElidedLabel(shown, tone="text" if entry.on else "muted")
        self.title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.title.setAccessibleDescription(entry.path)
        row.addWidget(self.title, 1)
        self.so_far = label("", "small_number", "muted")
        self.so_far.setToolTip(self.tr("Share of entries kept by the stack down to here"))
        row.addWidget(self.so_far)
        self.more = quiet_button("dots-horizontal", self.tr("More of {mask}").format(mask=shown))
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setFixedWidth(22)
        self.more.setIconSize(QSize(15, 15))
        self._fill_menu()
        row.addWidget(self.more)
        for control in (self.op, self.on, self.more):
            control.installEventFilter(self)

    def _fill_menu(self) -> None:
        menu = QMenu(self.more)
        self.invert = menu.addAction(self.tr("Take its complement"))
        self.invert.setCheckable(True)
        self.invert.setChecked(self._entry.invert)
        self.invert.toggled.connect(lambda on: self._change("Invert {mask}", invert=on))
        self.up = menu.addAction(self.tr("Move up"))
        theme.bind_icon(self.up, "arrow-up")
        self.up.setEnabled(self._number > 0)
        self.up.triggered.connect(lambda: self._panel.move_entry(self._number, -1))
        self.down = menu.addAction(self.tr("Move down"))
        theme.bind_icon(self.down, "arrow-down")
        self.down.setEnabled(self._number < self._panel.count - 1)
        self.down.triggered.connect(lambda: self._panel.move_entry(self._number, 1))
        menu.addSeparator()
        self.remove = menu.addAction(self.tr("Remove"))
        theme.bind_icon(self.remove, "close")
        self.remove.triggered.connect(lambda: self._panel.remove(self._number))
        self.more.setMenu(menu)

    def set_so_far(self, share: float | None) -> None:
        """Show how much the stack keeps down to this entry; None where it is off or not known."""
        self.so_far.setText("—" if share is None else texts.percent(share))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # boxes take the arrow keys for themselves, with Alt as without
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}
            step = steps.get(Qt.Key(event.key()), 0)
            if step and event.modifiers() & Qt.KeyboardModifier.AltModifier:
                self._panel.move_entry(self._number, step)
                return True
        return super().eventFilter(watched, event)

    def _change(self, label_text: str, **changes: object) -> None:
        changed = self._entry.model_copy(update=changes)
        if changed != self._entry:
            text = self.tr(label_text).format(mask=self._entry.title)
            self._panel.put(self._number, changed, text)


class MaskStackPanel(Panel):
    """Shown while the active model has masks; with `always` also to say that it has none."""

    def __init__(self, desk: Desk, masking: Masking, always: bool = False) -> None:
        super().__init__("Mask stack")
        self.set_title(self.tr("Mask stack"))
        self._desk, self._masking, self._always = desk, masking, always
        self.rows: list[MaskRow] = []
        self._shown: tuple[MaskEntry, ...] | None = None
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.add = link_button(self.tr("Add a mask file…"))
        self.add.setStyleSheet("padding-left: 0;")
        self.add.clicked.connect(self.choose_file)
        self.body.addWidget(self.note)
        self.body.addWidget(self.add, 0, Qt.AlignmentFlag.AlignLeft)
        desk.recipe_changed.connect(self.refresh)
        desk.project_changed.connect(self.refresh)
        desk.active_changed.connect(self.refresh)
        masking.changed.connect(self._show_shares)
        self.refresh()

    @property
    def _stack(self) -> tuple[MaskEntry, ...]:
        return self._masking.stack

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self._stack)

    def refresh(self) -> None:
        """Show the active model's stack."""
        stack = self._stack
        self.setVisible(bool(stack) or self._always)
        if stack:
            self._masking.watch()
        self.note.setText(self._says())
        if stack == self._shown:
            return
        self._shown = stack
        focused = self._focused()
        for row in self.rows:
            self.body.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = [MaskRow(self, i, entry) for i, entry in enumerate(stack)]
        for i, row in enumerate(self.rows):
            self.body.insertWidget(i, row)
        if focused is not None and focused[0] < len(self.rows):
            getattr(self.rows[focused[0]], focused[1]).setFocus()
        self._show_shares()

    def _says(self) -> str:
        reference = self._desk.reference_word
        if not self._stack:
            return self.tr("No mask yet: all of what fine-tuning changed counts.")
        text = self.tr("From top to bottom; what no mask keeps goes back to the {reference} model.")
        active = self._desk.active
        if active >= 0 and self._desk.recipe.finetuned[active].rescale:
            text += " " + self.tr("What is left is divided by the mask's mean.")
        return text.format(reference=reference)

    def _focused(self) -> tuple[int, str] | None:
        """Return the row and the control that the keyboard is at."""
        for i, row in enumerate(self.rows):
            for name in ("op", "on", "more"):
                if getattr(row, name).hasFocus():
                    return i, name
        return None

    def _show_shares(self) -> None:
        shares = self._masking.shares
        so_far = shares.so_far if shares is not None else ()
        for i, row in enumerate(self.rows):
            if i < len(so_far):
                row.set_so_far(so_far[i])
        on = sum(entry.on for entry in self._stack)
        text = self.tr("{n} of {m} on").format(n=on, m=self.count) if self.count else ""
        if shares is not None and on:
            text = self.tr("{share} kept").format(share=texts.percent(shares.kept))
        self.set_aside(text)

    # Edits.

    def put(self, number: int, entry: MaskEntry, label_text: str) -> None:
        """Replace an entry."""
        desk = self._desk
        desk.edit(replace_mask(desk.recipe, desk.active, number, entry, label_text))

    def remove(self, number: int) -> None:
        """Take an entry out."""
        self._desk.edit(remove_mask(self._desk.recipe, self._desk.active, number))

    def move_entry(self, number: int, step: int) -> None:
        """Move an entry up or down; the keyboard stays with it."""
        place = number + step
        if not 0 <= place < self.count:
            return
        focused = self._focused()
        self._desk.edit(move_mask(self._desk.recipe, self._desk.active, number, place))
        if focused is not None:
            getattr(self.rows[place], focused[1]).setFocus()

    def choose_file(self) -> None:
        """Ask for a mask file and put it at the end of the stack."""
        path, _ = QFileDialog.getOpenFileName(
            self, self.tr("Add a mask"), "", self.tr("Masks (*.mask.safetensors)")
        )
        if path:
            self.add_file(Path(path))

    def add_file(self, path: Path) -> None:
        """Put a mask file at the end of the active model's stack; says why where it is none."""
        desk = self._desk
        if desk.active < 0:
            return
        try:
            MaskFile.open(path)
        except UserError as error:
            desk.notice.emit(Notice.of(error, topic=_TOPIC))
            return
        desk.withdrawn.emit(_TOPIC)
        desk.edit(add_mask(desk.recipe, desk.active, MaskEntry(path=str(path.absolute()))))
