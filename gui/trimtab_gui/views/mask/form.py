"""The form of one builder: its parameters, whose method it is, and the data it needs."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QDoubleSpinBox,
    QGridLayout,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from trimtab.errors import UserError
from trimtab.realign.antidote_count import target_of
from trimtab_gui.desk import Desk
from trimtab_gui.views.mask.builders import LAST_LAYER, Builder, Field, mode_of
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import Choice, label

#: from here on a number spans so many decades that its steps must follow it
_DECADES = 100
#: a line is cut into so many parts; a few numbers take half of it each, many a third
_PARTS = 6
_FEW = 2


class BuilderForm(QWidget):
    """Controls below their names: what is chosen by words takes a line, numbers share one.

    ``changed`` follows every change of a value.
    """

    changed = Signal()

    def __init__(self, desk: Desk, builder: Builder) -> None:
        super().__init__()
        self.builder = builder
        self._desk = desk
        self.controls: dict[str, QWidget] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        numbers = sum(not field.wide for field in builder.fields)
        narrow = _PARTS // (2 if numbers <= _FEW else 3)
        row, column = 0, 0
        for field in builder.fields:
            control = self.controls[field.key] = self._control(desk, field)
            control.setToolTip(f"{field.tip}\n{_default(field)}".strip())
            name = label(field.title, "caption", "muted")
            name.setToolTip(field.tip)
            name.setBuddy(control)
            width = _PARTS if field.wide else narrow
            if column + width > _PARTS:
                row, column = row + 1, 0
            cell = QVBoxLayout()
            cell.setSpacing(2)
            cell.addWidget(name)
            cell.addWidget(control)
            grid.addLayout(cell, row, column, 1, width)
            column += width
        for part in range(_PARTS):
            grid.setColumnStretch(part, 1)
        self._fit_layers()
        desk.lineup_changed.connect(self._fit_layers)

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
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setSizeAdjustPolicy(Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setAccessibleName(field.title)
            box.currentIndexChanged.connect(self.changed)
            return box
        if isinstance(field.default, str):
            line = QLineEdit(field.default)
            line.setAccessibleName(field.title)
            line.textChanged.connect(self.changed)
            return line
        spin = _spin(field)
        spin.setMinimumWidth(40)
        spin.valueChanged.connect(self.changed)
        return spin

    def _fit_layers(self) -> None:
        """Let the layers of a rule be those of the models."""
        lineup = self._desk.lineup
        last = int(lineup.grid.layers.max(initial=0)) if lineup is not None else LAST_LAYER
        for key in ("first", "last"):
            control = self.controls.get(key)
            if isinstance(control, QSpinBox):
                control.setMaximum(last)

    def prompts(self, key: str) -> PromptSet:
        """Return the control of a field that takes a set of prompts."""
        control = self.controls[key]
        assert isinstance(control, PromptSet)
        return control

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
        """Say what is still to be chosen, or opened; empty when nothing is missing."""
        recipe = self._desk.recipe
        reverts = self.builder.reverts or self.values.get("variant") == "delta-revert"
        if reverts and recipe.aligned is None:
            return self.tr("Open the aligned model: what goes goes back to it.")
        for field in self.builder.fields:
            control = self.controls[field.key]
            if isinstance(control, PromptSet) and not control.path:
                return self.tr("Choose the {what}.").format(what=field.title)
        return self.unfit

    @property
    def unfit(self) -> str:
        """Say why the variant of Antidote that is chosen cannot be had of the active model."""
        variant, desk = self.values.get("variant"), self._desk
        if variant is None or desk.lineup is None or desk.active < 0:
            return ""
        try:
            target_of(desk.lineup, desk.lineup.finetuned[desk.active], variant)
        except UserError as error:
            return f"{error.why} {error.fix}"
        return ""

    @property
    def mode(self) -> str:
        """Whose method this is as it is set."""
        return mode_of(self.builder.id, self.values)


def _spin(field: Field) -> QSpinBox | QDoubleSpinBox:
    spin: QSpinBox | QDoubleSpinBox
    if field.decimals == 0:
        spin = QSpinBox()
        spin.setRange(int(field.low), int(field.high))
    else:
        spin = QDoubleSpinBox()
        spin.setDecimals(field.decimals)
        spin.setSingleStep(0.05)
        spin.setRange(field.low, field.high)
        if field.low > 0 and field.high / field.low >= _DECADES:
            spin.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
    spin.setValue(field.default)
    spin.setKeyboardTracking(False)
    spin.setAlignment(Qt.AlignmentFlag.AlignRight)
    spin.setAccessibleName(field.title)
    return spin


def _default(field: Field) -> str:
    if field.sets or field.default in (None, ""):
        return ""
    shown = field.choices[field.default] if field.choices else f"{field.default:g}"
    span = "" if field.choices else f"{field.low:g} to {field.high:g}; "
    return f"{span}default {shown}"
