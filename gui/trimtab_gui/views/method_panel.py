"""How models are merged: the method, a ratio for each model, its parameters, and modules."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from PySide6.QtCore import QPoint, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from trimtab.project import Edit
from trimtab.project.edits import (
    clear_weight,
    reset_layer_ratios,
    set_method,
    set_module_factor,
    set_ratio,
)
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.views.gestures import Gestures, show_value
from trimtab_gui.views.parameter_row import ParameterRow, Varied
from trimtab_gui.views.profile_card import RATIO_MAXIMUM
from trimtab_gui.views.seed_row import SeedRow
from trimtab_gui.widgets import (
    Chooser,
    Panel,
    RatioSlider,
    fold_button,
    label,
    quiet_button,
)
from trimtab_gui.widgets.buttons import link_button
from trimtab_gui.widgets.chooser import Entry
from trimtab_gui.widgets.formula_popup import formula_popup

MODULE_MAXIMUM = 150.0
_ROOMY = 800


class MethodPanel(Panel):
    """The form is made from what the method says of itself; every gesture is one undoable edit."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("Method")
        self.set_title(self.tr("Method"))
        self._desk = desk
        self._gestures = Gestures(desk)
        self.ratios: list[RatioSlider] = []
        self.weights: list[Varied] = []
        self.rows: dict[str, ParameterRow] = {}
        self.modules: dict[str, RatioSlider] = {}
        self.info = quiet_button("information-outline", self.tr("About this method"))
        self.info.setIconSize(QSize(14, 14))
        self.info.clicked.connect(self.show_formula)
        self.header_layout.addWidget(self.info)
        self._popup: QFrame | None = None
        self.method = Chooser(self.tr("Merge method"), self.tr("Search for a method"))
        self.method.chosen.connect(self._method_chosen)
        self.body.addWidget(self.method)
        self._sentence = label("", "caption", "muted")
        self._sentence.setWordWrap(True)
        self.body.addWidget(self._sentence)
        self._problem = label("", "caption", "danger")
        self._problem.setWordWrap(True)
        self.body.addWidget(self._problem)
        self._ratio_rows, self._parameter_rows = QVBoxLayout(), QVBoxLayout()
        for layout in (self._ratio_rows, self._parameter_rows):
            layout.setSpacing(8)
        self._reset = link_button(self.tr("Reset curve"))
        self._reset.setFont(theme.font("caption"))
        self._reset.setStyleSheet("padding-left: 0;")
        self._reset.clicked.connect(self._reset_curve)
        self.seed = SeedRow(desk)
        self.fold = fold_button(self.tr("Modules"))
        self._module_box = QWidget()
        self._module_rows = QVBoxLayout(self._module_box)
        self._module_rows.setContentsMargins(0, 0, 0, 0)
        self._module_rows.setSpacing(8)
        self._module_box.hide()
        self.fold.toggled.connect(self._folded)
        self.body.addWidget(self._scrolled(), 1)
        self._shape: object = None
        self._lineup: object = None
        self._inside: tuple[str, ...] = ()
        for signal in (
            desk.recipe_changed, desk.project_changed, desk.lineup_changed, desk.figures_changed,
            desk.figures_moved, desk.active_changed, desk.methods_changed,
        ):  # fmt: skip
            signal.connect(self.refresh)
        self.refresh()

    def _scrolled(self) -> QScrollArea:
        content = QWidget()
        content.setObjectName("scrolled")
        rows = QVBoxLayout(content)
        rows.setContentsMargins(0, 0, 6, 0)
        rows.setSpacing(8)
        rows.addLayout(self._ratio_rows)
        rows.addWidget(self._reset, 0, Qt.AlignmentFlag.AlignLeft)
        rows.addLayout(self._parameter_rows)
        rows.addWidget(self.seed)
        rows.addWidget(self.fold, 0, Qt.AlignmentFlag.AlignLeft)
        rows.addWidget(self._module_box)
        rows.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        area.viewport().setAutoFillBackground(False)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setMinimumHeight(100)
        self.area = area
        return area

    @property
    def parameters(self) -> dict[str, RatioSlider]:
        """The sliders of the parameters that are numbers."""
        return {name: row.slider for name, row in self.rows.items() if row.slider is not None}

    def refresh(self) -> None:
        """Show the recipe; the controls are made anew only when there are others."""
        desk = self._desk
        recipe, method = desk.recipe, desk.method
        modules = self._module_names()
        names = [desk.name(i) for i in range(len(recipe.finetuned))]
        shape = (names, recipe.method, modules, method)
        if shape != self._shape:
            self._shape = shape
            self._build(names, modules)
        self._offer(len(names))
        self.method.set_current(recipe.method, recipe.method)
        self.method.setToolTip(method.sentence if method is not None else "")
        self._sentence.setText(method.sentence if method is not None else "")
        self._show_sentence()
        self.info.setVisible(method is not None)
        weighted = method is None or method.weighted
        i = desk.active
        for k, (slider, weight) in enumerate(zip(self.ratios, self.weights, strict=True)):
            model = recipe.finetuned[k]
            show_value(slider, model.ratio)
            active = len(names) > 1 and k == i
            part = method.last if method is not None and k == len(names) - 1 else ""
            part = part or (self.tr("curve") if active else "")
            slider.set_label(f"λ  {names[k]}{'  ·  ' + part if part else ''}")
            slider.setVisible(weighted)
            weight.setVisible(weighted and model.weight is not None)
            if model.weight is not None:
                value = model.weight
                weight.show_values(value if isinstance(value, list) else [value])
        for row in self.rows.values():
            row.show_recipe(recipe)
        self.seed.show_seed(recipe.seed)
        self.seed.setVisible(method is not None and method.random)
        for module, slider in self.modules.items():
            show_value(slider, 100.0 * recipe.finetuned[i].modules.get(module, 1.0))
        self._reset.setVisible(weighted and i >= 0 and bool(recipe.finetuned[i].layers))
        self.fold.setVisible(weighted and bool(self.modules))
        self._module_box.setVisible(weighted and self.fold.isChecked())
        changed = i >= 0 and bool(recipe.finetuned[i].modules)
        self.fold.setText(self.tr("Modules · changed") if changed else self.tr("Modules"))
        error = desk.method_error
        self._problem.setText(f"{error.what} {error.fix}" if error is not None else "")
        self._problem.setVisible(error is not None)

    def _show_sentence(self) -> None:
        # where the window is low the form needs the room; the (i) tells the sentence too
        roomy = self.window().height() >= _ROOMY
        self._sentence.setVisible(roomy and bool(self._sentence.text()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._show_sentence()

    def _offer(self, count: int) -> None:
        recipe = self._desk.recipe
        aligned = recipe.base is not None and recipe.aligned is not None
        entries = [
            Entry(m.name, m.title, m.sentence, heading, m.refusal(count, aligned) if count else "")
            for heading, group in self._desk.catalogue.groups()
            for m in group
        ]
        if tuple(entries) != self.method.entries():
            self.method.set_entries(entries)

    def show_formula(self) -> QFrame:
        """Open the popup with formula and reference below the (i) and return it."""
        method = self._desk.method
        assert method is not None
        if self._popup is not None:
            self._popup.deleteLater()
        least, most = method.takes
        takes = self.tr("takes {n}").format(n=least) if most == least else (
            self.tr("takes {n} and more").format(n=least) if most is None
            else self.tr("takes {n} to {m}").format(n=least, m=most)
        )  # fmt: skip
        parts = (
            method.title, method.sentence, method.formula,
            self.tr("{takes} fine-tuned models").format(takes=takes), method.reference,
        )  # fmt: skip
        self._popup = formula_popup(self, parts)
        corner = self.info.mapToGlobal(QPoint(self.info.width(), self.info.height() + 4))
        self._popup.move(corner.x() - self._popup.width(), corner.y())
        self._popup.show()
        return self._popup

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
        old = (*self.ratios, *self.weights, *self.rows.values(), *self.modules.values())
        for widget in old:
            widget.hide()
            widget.deleteLater()
        self.ratios, self.weights, self.rows, self.modules = [], [], {}, {}
        desk, gestures = self._desk, self._gestures
        for i, name in enumerate(names):
            slider = RatioSlider(
                f"λ  {name}", 0.0, RATIO_MAXIMUM, 1.0, 0.01, "finetuned", color_index=i
            )
            slider.setToolTip(self.tr("The ratio of {name} where its curve has no point of its own")
                              .format(name=name))  # fmt: skip
            gestures.connect(slider, partial(self._ratio_edit, i))
            slider.drag_started.connect(partial(desk.set_active, i))
            weight = Varied(self.tr("× weight of {name}").format(name=name))
            weight.asked_for_one.connect(lambda i=i: desk.edit(clear_weight(desk.recipe, i)))
            self._ratio_rows.addWidget(slider)
            self._ratio_rows.addWidget(weight)
            self.ratios.append(slider)
            self.weights.append(weight)
        method = desk.method
        for parameter in () if method is None else method.parameters:
            assert method is not None
            row = ParameterRow(desk, gestures, method, parameter, names)
            self._parameter_rows.addWidget(row)
            self.rows[parameter.name] = row
        for module in modules:
            slider = RatioSlider(
                module, 0.0, MODULE_MAXIMUM, 100.0, 1.0, "finetuned", decimals=0, suffix=" %"
            )
            slider.setToolTip(self.tr("The ratio in {module} is multiplied by this")
                              .format(module=module))  # fmt: skip
            gestures.connect(slider, partial(self._module_edit, module))
            self._module_rows.addWidget(slider)
            self.modules[module] = slider
        self._order_tabs()

    def _order_tabs(self) -> None:
        # what is made anew would come last for the Tab key: put it where it is seen
        order: list[QWidget] = [self.info, self.method]
        for slider, weight in zip(self.ratios, self.weights, strict=True):
            order += [slider.track, weight.link]
        order.append(self._reset)
        for row in self.rows.values():
            order += row.focus_order()
        order += [self.seed.field, self.seed.dice, self.fold]
        order += [slider.track for slider in self.modules.values()]
        for before, after in pairwise(order):
            self.setTabOrder(before, after)

    def _ratio_edit(self, index: int, value: float, key: str) -> Edit:
        return set_ratio(self._desk.recipe, index, value, key)

    def _module_edit(self, module: str, percent: float, key: str) -> Edit:
        factor = round(percent / 100.0, 4)
        return set_module_factor(self._desk.recipe, self._desk.active, module, factor, key)

    def _method_chosen(self, name: str) -> None:
        if name != self._desk.recipe.method:
            self._desk.edit(set_method(self._desk.recipe, name))

    def _reset_curve(self) -> None:
        if self._desk.active >= 0:
            self._desk.edit(reset_layer_ratios(self._desk.recipe, self._desk.active))

    def _folded(self, open_: bool) -> None:
        self._module_box.setVisible(open_)
