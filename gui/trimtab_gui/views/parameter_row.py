"""One parameter of the method: its control, and one for each model where it has several values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import yaml
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from trimtab.merging.recipe import Recipe
from trimtab.merging.settings import Filtered
from trimtab.methods.registry import Scalar
from trimtab.project import Edit
from trimtab.project.edits import (
    clear_model_parameters,
    clear_parameter,
    set_model_parameter,
    set_parameter,
)
from trimtab_gui import theme
from trimtab_gui.catalogue import MethodInfo, ParameterInfo
from trimtab_gui.desk import Desk
from trimtab_gui.views.gestures import Gestures, show_value
from trimtab_gui.widgets import Choice, ElidedLabel, RatioSlider, fold_button, label
from trimtab_gui.widgets.buttons import link_button
from trimtab_gui.widgets.slider_scale import scale_for


def help_text(parameter: ParameterInfo, method: MethodInfo) -> str:
    """Return name, sentence, range, default, formula and reference, for a tooltip."""
    default = parameter.default
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    if parameter.kind == "choice":
        shown = parameter.choices[str(default)]
        span = " · ".join(parameter.choices.values())
    elif parameter.kind == "switch":
        span = "on or off"
    else:
        span = parameter.range_text
    number = f"{shown:g}" if isinstance(shown, float) else str(shown)
    return (
        f"{parameter.title}\n{parameter.sentence}\n{span}; default {number}".replace("-", "−")
        + f"\n{method.formula}\n{method.reference}"
    )


def is_varied(setting: object) -> bool:
    """Whether a setting changes over layers or tensor names."""
    return isinstance(setting, list)


def varied_text(setting: Sequence[Any]) -> str:
    """Return the values of a gradient, or by tensor name, as they stand in a recipe."""
    plain = [v.model_dump(exclude_none=True) if isinstance(v, Filtered) else v for v in setting]
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)


class Varied(QWidget):
    """Stands where a slider would, for values that one slider cannot show."""

    asked_for_one = Signal()

    def __init__(self, title: str) -> None:
        super().__init__()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        head = QHBoxLayout()
        self._title = ElidedLabel(title, "body", mode=Qt.TextElideMode.ElideMiddle)
        self._what = label(self.tr("by layer or name"), "caption", "accent")
        head.addWidget(self._title, 1)
        head.addWidget(self._what)
        self.link = link_button(self.tr("Use one value"))
        self.link.setFont(theme.font("caption"))
        self.link.setStyleSheet("padding-left: 0;")
        self.link.clicked.connect(self.asked_for_one)
        outer.addLayout(head)
        outer.addWidget(self.link, 0, Qt.AlignmentFlag.AlignLeft)
        self.setAccessibleName(title)

    def show_values(self, setting: Sequence[Any]) -> None:
        """Tell the values in the tooltip."""
        text = varied_text(setting)
        self.setToolTip(text.rstrip())
        self.setAccessibleDescription(text)
        gradient = bool(setting) and not isinstance(setting[0], Filtered)
        self._what.setText(
            self.tr("gradient over layers") if gradient else self.tr("by layer or name")
        )


class ParameterRow(QWidget):
    """The common value, and under a fold one for each model where the method takes several."""

    def __init__(
        self,
        desk: Desk,
        gestures: Gestures,
        method: MethodInfo,
        parameter: ParameterInfo,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self._desk, self.parameter = desk, parameter
        self.slider: RatioSlider | None = None
        self.switch: QCheckBox | None = None
        self.choice: Choice | None = None
        self.own: list[RatioSlider] = []
        self._own_varied: list[Varied] = []
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(4)
        self._tip = help_text(parameter, method)
        self.control = self._make_control(gestures)
        self.control.setToolTip(self._tip)
        self.varied = Varied(parameter.title)
        self.varied.asked_for_one.connect(
            lambda: desk.edit(clear_parameter(desk.recipe, parameter.name))
        )
        outer.addWidget(self.control)
        outer.addWidget(self.varied)
        self.fold = fold_button(self.tr("Each model"))
        self.fold.setAccessibleName(
            self.tr("{parameter} of each model").format(parameter=parameter.title)
        )
        self._box = QWidget()
        self._models = QVBoxLayout(self._box)
        self._models.setContentsMargins(14, 2, 0, 2)
        self._models.setSpacing(6)
        self.same = link_button(self.tr("One value for all"))
        self.same.setFont(theme.font("caption"))
        self.same.setStyleSheet("padding-left: 0;")
        self.same.clicked.connect(
            lambda: desk.edit(clear_model_parameters(desk.recipe, parameter.name))
        )
        outer.addWidget(self.fold, 0, Qt.AlignmentFlag.AlignLeft)
        outer.addWidget(self._box)
        self._box.hide()
        several = parameter.per_model and len(names) > 1
        self.fold.setVisible(several)
        if several:
            self._add_models(gestures, names)
        self._models.addWidget(self.same, 0, Qt.AlignmentFlag.AlignLeft)
        self.fold.toggled.connect(self._box.setVisible)

    def _make_control(self, gestures: Gestures) -> QWidget:
        p = self.parameter
        if p.kind == "switch":
            self.switch = QCheckBox(p.title)
            self.switch.clicked.connect(self._set)
            return self.switch
        if p.kind == "choice":
            return self._make_choice()
        assert not isinstance(p.default, str)
        scale = scale_for(p.kind, p.minimum, p.maximum, float(p.default))
        self.slider = RatioSlider(
            p.title, p.minimum, p.maximum, float(p.default), color_role="accent", scale=scale
        )
        gestures.connect(
            self.slider,
            lambda value, key: set_parameter(self._desk.recipe, p.name, self._typed(value), key),
        )
        return self.slider

    def _make_choice(self) -> QWidget:
        p = self.parameter
        holder = QWidget()
        rows = QVBoxLayout(holder)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        self.choice = Choice()
        self.choice.setAccessibleName(p.title)
        self.choice.setSizeAdjustPolicy(
            Choice.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.choice.setMinimumContentsLength(12)
        for key, title in p.choices.items():
            self.choice.addItem(title, key)
        choice = self.choice
        choice.activated.connect(lambda: self._set(str(choice.currentData())))
        rows.addWidget(ElidedLabel(p.title, "body"))
        rows.addWidget(choice)
        return holder

    def _add_models(self, gestures: Gestures, names: Sequence[str]) -> None:
        p = self.parameter
        assert not isinstance(p.default, str)
        default = float(p.default)
        for i, name in enumerate(names):
            slider = RatioSlider(
                name, p.minimum, p.maximum, default, color_role="finetuned", color_index=i,
                scale=scale_for(p.kind, p.minimum, p.maximum, default),
            )  # fmt: skip
            slider.track.setAccessibleName(f"{p.title}, {name}")
            slider.setToolTip(self._tip)
            gestures.connect(slider, partial(self._own_edit, i))
            varied = Varied(name)
            varied.asked_for_one.connect(
                lambda i=i: self._desk.edit(self._own_edit(i, self._common(), ""))
            )
            self._models.addWidget(slider)
            self._models.addWidget(varied)
            self.own.append(slider)
            self._own_varied.append(varied)

    def _typed(self, value: float) -> Scalar:
        return round(value) if self.parameter.kind == "integer" else value

    def _own_edit(self, index: int, value: float, key: str) -> Edit:
        name = self.parameter.name
        return set_model_parameter(self._desk.recipe, index, name, self._typed(value), key)

    def _set(self, value: Scalar) -> None:
        self._desk.edit(set_parameter(self._desk.recipe, self.parameter.name, value))

    def _common(self) -> float:
        setting = self._desk.recipe.parameters.get(self.parameter.name, self.parameter.default)
        given = self.parameter.default if isinstance(setting, list) else setting
        return float(given)

    def show_recipe(self, recipe: Recipe) -> None:
        """Show the recipe's values."""
        p = self.parameter
        setting: Any = recipe.parameters.get(p.name, p.default)
        self.varied.setVisible(is_varied(setting))
        self.control.setVisible(not is_varied(setting))
        if is_varied(setting):
            self.varied.show_values(setting)
        elif self.slider is not None:
            show_value(self.slider, float(setting))
        elif self.switch is not None:
            self.switch.setChecked(bool(setting))
        elif self.choice is not None:
            self.choice.setCurrentIndex(self.choice.findData(setting))
        self._show_own(recipe)

    def _show_own(self, recipe: Recipe) -> None:
        name = self.parameter.name
        common: Any = recipe.parameters.get(name, self.parameter.default)
        given = [model.parameters.get(name) for model in recipe.finetuned]
        several = sum(value is not None for value in given)
        for own, slider, varied in zip(given, self.own, self._own_varied, strict=False):
            value: Any = common if own is None else own
            slider.setVisible(not is_varied(value))
            varied.setVisible(is_varied(value))
            if is_varied(value):
                varied.show_values(value)
            else:
                show_value(slider, float(value))
        self.same.setVisible(bool(several))
        text = self.tr("Each model · {n} of its own") if several else self.tr("Each model")
        self.fold.setText(text.format(n=several))
        if self.slider is not None and self.own:
            tail = self.tr("all models") if not several else self.tr("all others")
            self.slider.set_label(f"{self.parameter.title}  ·  {tail}")

    def focus_order(self) -> list[QWidget]:
        """Return what the Tab key goes through, from top to bottom."""
        first: list[QWidget] = []
        if self.slider is not None:
            first = [self.slider.track]
        elif self.switch is not None:
            first = [self.switch]
        elif self.choice is not None:
            first = [self.choice]
        own: list[QWidget] = []
        for slider, varied in zip(self.own, self._own_varied, strict=True):
            own += [slider.track, varied.link]
        tail = [self.fold, *own, self.same] if self.own else []
        return [*first, self.varied.link, *tail]
