"""The form of one builder: its parameters, whose method it is, and the data it needs."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QGridLayout, QLineEdit, QSpinBox, QVBoxLayout, QWidget

from trimtab_gui.desk import Desk
from trimtab_gui.views.mask.builders import Builder, Field, mode_of
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import Choice, label

_WIDTH = 118


class BuilderForm(QWidget):
    """Controls for the fields of a builder; ``changed`` follows every change of a value."""

    changed = Signal()

    def __init__(self, desk: Desk, builder: Builder) -> None:
        super().__init__()
        self.builder = builder
        self.controls: dict[str, QWidget] = {}
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(6)
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(5)
        grid.setColumnStretch(0, 1)
        for row, field in enumerate(builder.fields):
            name = label(field.title, "caption", "muted")
            name.setToolTip(field.tip)
            control = self._control(desk, field)
            control.setFixedWidth(_WIDTH)
            control.setToolTip(f"{field.tip}\n{_default(field)}".strip())
            top = Qt.AlignmentFlag.AlignTop if field.sets else Qt.AlignmentFlag.AlignVCenter
            grid.addWidget(name, row, 0, top)
            grid.addWidget(control, row, 1)
            self.controls[field.key] = control
        rows.addLayout(grid)

    def _control(self, desk: Desk, field: Field) -> QWidget:
        if field.sets:
            prompts = PromptSet(desk, field)
            prompts.changed.connect(self.changed)
            return prompts
        if field.choices is not None:
            box = Choice()
            for key, text in field.choices.items():
                box.addItem(text, key)
            box.setCurrentIndex(box.findData(field.default))
            box.setMinimumContentsLength(6)
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setAccessibleName(field.title)
            box.currentIndexChanged.connect(self.changed)
            return box
        if isinstance(field.default, str):
            line = QLineEdit(field.default)
            line.setAccessibleName(field.title)
            line.textChanged.connect(self.changed)
            return line
        spin = QSpinBox() if field.decimals == 0 else QDoubleSpinBox()
        if isinstance(spin, QDoubleSpinBox):
            spin.setDecimals(field.decimals)
            spin.setSingleStep(0.05 if field.high <= 1 and field.decimals == 2 else 0.01)
            spin.setRange(field.low, field.high)
            spin.setValue(field.default)
        else:
            spin.setRange(int(field.low), int(field.high))
            spin.setValue(field.default)
        spin.setAlignment(Qt.AlignmentFlag.AlignRight)
        spin.setAccessibleName(field.title)
        spin.valueChanged.connect(self.changed)
        return spin

    @property
    def values(self) -> dict[str, Any]:
        """What is chosen, by the fields' keys; a prompt set by its file."""
        found: dict[str, Any] = {}
        for key, control in self.controls.items():
            if isinstance(control, PromptSet):
                found[key] = control.path
            elif isinstance(control, Choice):
                found[key] = control.currentData()
            elif isinstance(control, QLineEdit):
                found[key] = control.text()
            elif isinstance(control, QSpinBox | QDoubleSpinBox):
                found[key] = control.value()
        return found

    @property
    def lacking(self) -> str:
        """Say which prompts are still to be chosen; empty when nothing is missing."""
        for field in self.builder.fields:
            control = self.controls[field.key]
            if isinstance(control, PromptSet) and not control.path:
                return self.tr("Choose the {what}.").format(what=field.title)
        return ""

    @property
    def mode(self) -> str:
        """Whose method this is as it is set."""
        return mode_of(self.builder.id, self.values)


def _default(field: Field) -> str:
    if field.sets or field.default in (None, ""):
        return ""
    shown = field.choices[field.default] if field.choices else f"{field.default:g}"
    span = "" if field.choices else f"{field.low:g} to {field.high:g}; "
    return f"{span}default {shown}"
