"""What seldom changes of the output: the size of shards, the device, and the memory allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QVBoxLayout, QWidget

from trimtab.project.edits import set_output
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.merging import AUTO, Merging, device_key
from trimtab_gui.views.device_text import device_texts
from trimtab_gui.widgets import Choice, label
from trimtab_gui.widgets.panel import Surface

GIGABYTE = 10**9
SHARD_SIZES = (1, 2, 5, 10)
MEMORY_LIMITS = (1, 2, 4, 8)
_WIDTH = 330

Options = Sequence[tuple[str, Any]]


def size_text(n_bytes: int) -> str:
    """Return a size that somebody chose: "5 GB" rather than "5.00 GB"."""
    whole = n_bytes / GIGABYTE
    return f"{whole:g} GB" if whole == round(whole, 1) else texts.size(n_bytes)


def options_text(desk: Desk, merging: Merging) -> str:
    """Return what is not as usual among the options, "" where all is."""
    parts = []
    shards = desk.recipe.output.shard_size
    if isinstance(shards, int):
        parts.append(desk.tr("shards of {size}").format(size=size_text(shards)))
    if merging.device != AUTO:
        parts.append(desk.tr("on {device}").format(device=merging.device))
    if merging.memory is not None:
        parts.append(desk.tr("within {size} of memory").format(size=size_text(merging.memory)))
    return " · ".join(parts)


class OutputOptions(QFrame):
    """Three choices; the shard size is part of the recipe, the others of this machine."""

    def __init__(self, desk: Desk, merging: Merging, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self._desk, self._merging = desk, merging
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAccessibleName(self.tr("More about the output"))
        self.setFixedWidth(_WIDTH)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        surface = Surface()
        whole.addWidget(surface)
        self._grid = QGridLayout(surface)
        self._grid.setContentsMargins(14, 12, 14, 12)
        self._grid.setHorizontalSpacing(14)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(1, 1)
        self.shards = self._row(
            self.tr("Shards"),
            self.tr("No weight file of the result is larger, single tensors aside."),
            self._shard_options(), desk.recipe.output.shard_size, self._shards_chosen,
        )  # fmt: skip
        self.device = self._row(
            self.tr("Device"),
            self.tr("Where the merge computes; the result is the same."),
            self._device_options(), merging.device, merging.set_device,
        )  # fmt: skip
        self.memory = self._row(
            self.tr("Memory"),
            self.tr("The most that the merging process takes; less is slower."),
            self._memory_options(), merging.memory, merging.set_memory,
        )  # fmt: skip

    def _row(
        self, name: str, hint: str, options: Options, chosen: Any, call: Callable[[Any], None]
    ) -> Choice:
        box = Choice()
        box.setAccessibleName(name)
        box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(10)
        values = [value for _, value in options]
        for text, _ in options:
            box.addItem(text)
        box.setCurrentIndex(values.index(chosen) if chosen in values else 0)
        box.activated.connect(lambda index: call(values[index]))
        box.setToolTip(hint)
        note = label(hint, "caption", "muted")
        note.setWordWrap(True)
        row = self._grid.rowCount()
        self._grid.addWidget(label(name), row, 0)
        self._grid.addWidget(box, row, 1)
        self._grid.addWidget(note, row + 1, 1)
        self._grid.setRowMinimumHeight(row + 2, 6)
        return box

    def _shard_options(self) -> Options:
        own = self._desk.recipe.output.shard_size
        sizes = {n * GIGABYTE for n in SHARD_SIZES} | ({own} if isinstance(own, int) else set())
        listed = [(self.tr("at most {size}").format(size=size_text(n)), n) for n in sorted(sizes)]
        return [(self.tr("as the reference"), "reference"), *listed]

    def _device_options(self) -> Options:
        found = []
        for device in self._desk.devices:
            if device["kind"] != "mps":  # which merges do not use
                name, facts = device_texts(device)
                found.append((f"{name} · {facts.partition(' · ')[0]}", device_key(device)))
        return [(self.tr("the best there is"), AUTO), *found]

    def _memory_options(self) -> Options:
        own = self._merging.memory
        limits = {n * GIGABYTE for n in MEMORY_LIMITS} | ({own} if own is not None else set())
        listed = [(self.tr("at most {size}").format(size=size_text(n)), n) for n in sorted(limits)]
        return [(self.tr("no limit"), None), *listed]

    def _shards_chosen(self, size: Any) -> None:
        recipe = self._desk.recipe
        output = recipe.output.model_copy(update={"shard_size": size})
        self._desk.edit(set_output(recipe, output))

    def open_above(self, button: QWidget) -> None:
        """Open with the right edges in line, above the button or below it where the room is."""
        self.adjustSize()
        corner = button.mapToGlobal(QPoint(button.width(), 0))
        room = button.screen().availableGeometry()
        y = corner.y() - self.height() - 4
        if y < room.top():
            y = corner.y() + button.height() + 4
        self.move(max(corner.x() - self.width(), room.left()), y)
        self.show()
        self.shards.setFocus(Qt.FocusReason.PopupFocusReason)
