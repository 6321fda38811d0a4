"""How models are merged: the method, a ratio for each model, its parameters, and modules."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QComboBox, QFrame, QScrollArea, QToolButton, QVBoxLayout, QWidget

from trimtab.methods import get_method, methods
from trimtab.project import Edit
from trimtab.project.edits import (
    reset_layer_ratios,
    set_method,
    set_module_factor,
    set_parameter,
    set_ratio,
)
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.undo import gesture
from trimtab_gui.views.profile_card import RATIO_MAXIMUM
from trimtab_gui.widgets import Panel, RatioSlider, label
from trimtab_gui.widgets.buttons import link_button

MODULE_MAXIMUM = 150.0
# a key pressed again within this time belongs to the same undo step
RUN_ON_S = 0.8


class MethodPanel(Panel):
    """Every gesture on a slider is one undoable edit."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Method")
        self.set_title(self.tr("Method"))
        self._desk = desk
        self._key = ""
        self._last_key = ""
        self._last_end = 0.0
        self._last_slider: RatioSlider | None = None
        self.ratios: list[RatioSlider] = []
        self.parameters: dict[str, RatioSlider] = {}
        self.modules: dict[str, RatioSlider] = {}
        self.method = QComboBox()
        self.method.setAccessibleName(self.tr("Merge method"))
        for method in methods():
            self.method.addItem(method.title, method.name)
            tip = f"{method.sentence}\n{method.formula}\n{method.reference}"
            self.method.setItemData(self.method.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.method.activated.connect(self._method_chosen)
        self.body.addWidget(self.method)
        self._problem = label("", "caption", "danger")
        self._problem.setWordWrap(True)
        self.body.addWidget(self._problem)
        content = QWidget()
        content.setObjectName("scrolled")
        self._rows = QVBoxLayout(content)
        self._rows.setContentsMargins(0, 0, 6, 0)
        self._rows.setSpacing(8)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        area.viewport().setAutoFillBackground(False)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setMinimumHeight(120)
        self.body.addWidget(area, 1)
        self._ratio_rows = QVBoxLayout()
        self._parameter_rows = QVBoxLayout()
        self._module_rows = QVBoxLayout()
        for layout in (self._ratio_rows, self._parameter_rows, self._module_rows):
            layout.setSpacing(8)
        self._reset = link_button(self.tr("Reset curve"))
        self._reset.setFont(theme.font("caption"))
        self._reset.setStyleSheet("padding-left: 0;")
        self._reset.clicked.connect(self._reset_curve)
        self.fold = QToolButton()
        self.fold.setText(self.tr("Modules"))
        self.fold.setFont(theme.font("caption"))
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.setCheckable(True)
        self.fold.setIconSize(QSize(14, 14))
        self.fold.setProperty("kind", "fold")
        theme.bind_icon(self.fold, "chevron-right")
        self.fold.toggled.connect(self._folded)
        self._module_box = QWidget()
        self._module_box.setLayout(self._module_rows)
        self._module_rows.setContentsMargins(0, 0, 0, 0)
        self._module_box.hide()
        self._rows.addLayout(self._ratio_rows)
        self._rows.addWidget(self._reset, 0, Qt.AlignmentFlag.AlignLeft)
        self._rows.addLayout(self._parameter_rows)
        self._rows.addWidget(self.fold, 0, Qt.AlignmentFlag.AlignLeft)
        self._rows.addWidget(self._module_box)
        self._rows.addStretch(1)
        self._shape: object = None
        self._lineup: object = None
        self._inside: tuple[str, ...] = ()
        desk.recipe_changed.connect(self.refresh)
        desk.project_changed.connect(self.refresh)
        desk.lineup_changed.connect(self.refresh)
        desk.figures_changed.connect(self.refresh)
        desk.active_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the recipe; the sliders are made anew only when there are others."""
        desk = self._desk
        recipe = desk.recipe
        modules = self._module_names()
        names = [desk.name(i) for i in range(len(recipe.finetuned))]
        shape = (names, recipe.method, modules)
        if shape != self._shape:
            self._shape = shape
            self._build(names, modules)
        method = get_method(recipe.method)
        self.method.setCurrentIndex(self.method.findData(recipe.method))
        self.method.setToolTip(f"{method.sentence}\n{method.formula}\n{method.reference}")
        for i, slider in enumerate(self.ratios):
            _show(slider, recipe.finetuned[i].ratio)
            active = len(names) > 1 and i == desk.active
            slider.set_label(f"λ  {names[i]}{'  ·  ' + self.tr('curve') if active else ''}")
        for parameter in method.parameters:
            _show(self.parameters[parameter.name],
                  recipe.parameters.get(parameter.name, parameter.default))  # fmt: skip
        i = desk.active
        for module, slider in self.modules.items():
            _show(slider, 100.0 * recipe.finetuned[i].modules.get(module, 1.0))
        self._reset.setVisible(i >= 0 and bool(recipe.finetuned[i].layers))
        self.fold.setVisible(bool(self.modules))
        changed = i >= 0 and bool(recipe.finetuned[i].modules)
        self.fold.setText(self.tr("Modules · changed") if changed else self.tr("Modules"))
        error = desk.method_error
        self._problem.setText(f"{error.what} {error.fix}" if error is not None else "")
        self._problem.setVisible(error is not None)

    def _module_names(self) -> tuple[str, ...]:
        lineup = self._desk.lineup
        if lineup is None or not self._desk.recipe.finetuned:
            return ()
        if lineup is self._lineup:
            return self._inside
        inside = {m for m, layer in zip(lineup.grid.modules, lineup.grid.layers, strict=True)
                  if layer >= 0}  # fmt: skip
        ordered = [row for row in lineup.grid.rows if row in inside]
        self._lineup, self._inside = lineup, tuple(ordered) or tuple(sorted(inside))
        return self._inside

    def _build(self, names: list[str], modules: tuple[str, ...]) -> None:
        for slider in (*self.ratios, *self.parameters.values(), *self.modules.values()):
            slider.hide()
            slider.deleteLater()
        self.ratios, self.parameters, self.modules = [], {}, {}
        desk = self._desk
        for i, name in enumerate(names):
            slider = RatioSlider(f"λ  {name}", 0.0, RATIO_MAXIMUM, 1.0, 0.01, "finetuned")
            slider.setToolTip(self.tr("The ratio of {name} where its curve has no point of its own")
                              .format(name=name))  # fmt: skip
            self._connect(slider, partial(self._ratio_edit, i))
            slider.drag_started.connect(partial(desk.set_active, i))
            self._ratio_rows.addWidget(slider)
            self.ratios.append(slider)
        for p in get_method(desk.recipe.method).parameters:
            slider = RatioSlider(p.title, p.minimum, p.maximum, p.default, 0.01, "accent")
            slider.setToolTip(f"{p.sentence} {p.minimum:g} to {p.maximum:g}, default {p.default:g}")
            self._connect(slider, partial(self._parameter_edit, p.name))
            self._parameter_rows.addWidget(slider)
            self.parameters[p.name] = slider
        for module in modules:
            slider = RatioSlider(
                module, 0.0, MODULE_MAXIMUM, 100.0, 1.0, "finetuned", decimals=0, suffix=" %"
            )
            slider.setToolTip(self.tr("The ratio in {module} is multiplied by this")
                              .format(module=module))  # fmt: skip
            self._connect(slider, partial(self._module_edit, module))
            self._module_rows.addWidget(slider)
            self.modules[module] = slider

        # what is made anew would come last for the Tab key: put it where it is seen
        order: list[QWidget] = [
            self.method,
            *(s.track for s in self.ratios),
            self._reset,
            *(s.track for s in self.parameters.values()),
            self.fold,
            *(s.track for s in self.modules.values()),
        ]
        for before, after in pairwise(order):
            self.setTabOrder(before, after)

    def _ratio_edit(self, index: int, value: float, key: str) -> Edit:
        return set_ratio(self._desk.recipe, index, value, key)

    def _parameter_edit(self, name: str, value: float, key: str) -> Edit:
        return set_parameter(self._desk.recipe, name, value, key)

    def _module_edit(self, module: str, percent: float, key: str) -> Edit:
        factor = round(percent / 100.0, 4)
        return set_module_factor(self._desk.recipe, self._desk.active, module, factor, key)

    def _connect(self, slider: RatioSlider, make: Callable[[float, str], Edit]) -> None:
        slider.drag_started.connect(partial(self._drag_started, slider))
        slider.value_moved.connect(
            lambda value: self._desk.edit(make(value, self._key or gesture("slider")))
        )
        slider.drag_finished.connect(self._drag_finished)

    def _drag_started(self, slider: RatioSlider) -> None:
        # presses of a key in quick succession are one gesture; each drag is one of its own
        by_key = QGuiApplication.mouseButtons() == Qt.MouseButton.NoButton
        soon = time.monotonic() - self._last_end < RUN_ON_S
        run_on = by_key and soon and slider is self._last_slider
        self._key = self._last_key if run_on else gesture("slider")
        self._last_slider = slider

    def _drag_finished(self) -> None:
        self._last_key, self._last_end = self._key, time.monotonic()
        self._key = ""

    def _method_chosen(self) -> None:
        name = str(self.method.currentData())
        if name != self._desk.recipe.method:
            self._desk.edit(set_method(self._desk.recipe, name))

    def _reset_curve(self) -> None:
        if self._desk.active >= 0:
            self._desk.edit(reset_layer_ratios(self._desk.recipe, self._desk.active))

    def _folded(self, open_: bool) -> None:
        self._module_box.setVisible(open_)
        self.fold.setIcon(theme.icon("chevron-down" if open_ else "chevron-right"))


def _show(slider: RatioSlider, value: float) -> None:
    if slider.value() != value:
        slider.set_value(value)
