"""The chosen builder: form, method card, the button that builds, and how a learning goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSize, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton

from trimtab.masks.entries import Chance, MaskEntry
from trimtab.project.mask_edits import add_mask, use_pruned
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.mask_building import RUNNING, MaskBuilding, Order
from trimtab_gui.views.mask.brush import Brush
from trimtab_gui.views.mask.builders import BUILDERS, BY_ID, Values, request, rule_entry
from trimtab_gui.views.mask.form import BuilderForm
from trimtab_gui.views.mask.learning_view import LearningView
from trimtab_gui.widgets import FactsTable, Panel, label, quiet_button
from trimtab_gui.widgets.formula_popup import formula_popup
from trimtab_gui.widgets.labels import set_tone


class BuilderPanel(Panel):
    """``brush_chosen`` carries keep, remove or nothing; ``region_painted`` paints the selection.

    ``set_up`` follows every change of the builder that is shown, and of its form.
    """

    brush_chosen = Signal(str)
    region_painted = Signal(bool)
    set_up = Signal()

    def __init__(self, desk: Desk, building: MaskBuilding) -> None:
        super().__init__("Builder")
        self._desk, self._building = desk, building
        self._popup: QFrame | None = None
        self.info = quiet_button("information-outline", self.tr("About this builder"))
        self.info.setIconSize(QSize(14, 14))
        self.info.clicked.connect(self.show_formula)
        self.header_layout.addWidget(self.info)
        self.forms = {builder.id: BuilderForm(desk, builder) for builder in BUILDERS}
        for form in self.forms.values():
            form.changed.connect(self._form_changed)
            self.body.addWidget(form)
        self.brush = Brush()
        self.brush.chosen.connect(self.brush_chosen)
        self.brush.region.connect(self.region_painted)
        self.body.addWidget(self.brush)
        self.learning = LearningView(building)
        self.body.addWidget(self.learning)
        self.settings = FactsTable()
        self._anew = False
        self.note = label("", "caption", "muted")
        self.note.setWordWrap(True)
        self.body.addWidget(self.note)
        self.button = QPushButton()
        self.button.clicked.connect(self.build)
        self.stop = QPushButton(self.tr("Stop"))
        self.stop.clicked.connect(building.stop)
        row = QHBoxLayout()
        row.setSpacing(8)
        self.take = QPushButton(self.tr("Use the pruned model"))
        self.take.clicked.connect(self.use_pruned)
        for button in (self.button, self.stop, self.take):
            row.addWidget(button)
        row.addStretch(1)
        self.body.addLayout(row)
        self.body.addWidget(self.settings)
        self.body.addStretch(1)
        self.chosen = "somf"
        building.changed.connect(self.refresh)
        for signal in (desk.recipe_changed, desk.active_changed, desk.lineup_changed,
                       desk.selection.changed):  # fmt: skip
            signal.connect(lambda *_: self.refresh())
        self.choose("somf")

    def choose(self, builder: str) -> None:
        """Show another builder's form."""
        self.chosen, self._anew = builder, False
        for key, form in self.forms.items():
            form.setVisible(key == builder)
        self.set_title(BY_ID[builder].title)
        self.brush.setVisible(builder == "paint")
        self.brush_chosen.emit(self.brush.current if builder == "paint" else "")
        self._form_changed()

    def _form_changed(self) -> None:
        self.refresh()
        self.set_up.emit()

    @property
    def form(self) -> BuilderForm:
        """The form that is shown."""
        return self.forms[self.chosen]

    def refresh(self) -> None:
        """Show what is under way and what the button does."""
        building, kind = self._building, self.chosen
        state = building.learning.state
        held = self.window().focusWidget() is self.button
        self.set_aside(self.form.mode.partition(":")[0])
        somf = kind == "somf"
        learns = somf and (state == RUNNING or (not self._anew and bool(
            state or building.learning.log.step)))  # fmt: skip
        self.form.setEnabled(not building.running)
        self.learning.setVisible(learns)
        self.settings.setVisible(learns)
        self.form.setVisible(not learns)
        if learns:
            self.settings.set_rows(self._settings())
        own = building.running and building.kind == kind
        self.stop.setVisible(own and not somf)
        self.button.setVisible(kind != "paint" and not own and not (somf and state == RUNNING))
        self.button.setText(self.tr("Learn anew…") if learns else self.tr(BY_ID[kind].button))
        self.button.setEnabled(learns or not (building.obstacle or self.form.lacking))
        self.take.setVisible(bool(self._pruned_folder) and not own)
        self.brush.set_region(bool(self._desk.selection.current))
        if held and self.button.isHidden():  # after it was pressed
            (self.learning.pause if somf else self.stop).setFocus()
        self._tell()

    def _settings(self) -> list[tuple[str, str, str]]:
        """Return what a learning was begun with, in the place of the form."""
        params, shown = self._building.learning.params, []
        for field in BY_ID["somf"].fields:
            value = params[field.key]
            if field.sets:
                text = f"{self.forms['somf'].prompts(field.key).count:,}"
            else:
                text = field.choices[value] if field.choices else f"{value:g}"
            shown.append((field.title, text, field.tip))
        return shown

    def _tell(self) -> None:
        building, kind = self._building, self.chosen
        tone, said = "muted", ""
        if kind == "paint":
            said = self.tr("Drag over cells, or select a region and paint it. Space paints the "
                           "cell under the cursor.")  # fmt: skip
        if building.error is not None and building.kind == kind:
            error = building.error
            tone, said = "danger", f"{error.what} {error.why} {error.fix}".strip()
        elif kind == "somf" and (report := building.reports.get("somf")):
            said, tone = self._learned(report)
        elif kind == "antidote" and self._pruned_folder:
            said = self.tr("The pruned copy is {folder}. No mask is needed with it.").format(
                folder=texts.home_path(Path(self._pruned_folder))
            )
        elif building.obstacle and not (building.running and building.kind == kind):
            said = building.obstacle
        elif self.form.lacking:
            needs = self.tr("Needs {data}.").format(data=BY_ID[kind].needs)
            said = f"{needs} {self.form.lacking}"
        self.note.setText(said)
        self.note.setVisible(bool(said))
        set_tone(self.note, tone)

    def _learned(self, report: Mapping[str, Any]) -> tuple[str, str]:
        undecided = texts.percent(report["undecided"])
        if not report["informative"]:
            return self.tr(
                "The mask has learned nothing: σ(x) of {share} of the entries is still near one "
                "half. Raise the rate, or the steps."
            ).format(share=undecided), "danger"
        preference = report["preference"].items()
        shares = {key: texts.percent(value["share"]) for key, value in preference}
        return self.tr(
            "Safe answer preferred on pairs kept aside: {no} without a mask, {yes} with it, "
            "{chance} with its random control. Learned at ratio 1. {share} undecided."
        ).format(no=shares["no mask"], yes=shares["masked"], chance=shares["random control"],
                 share=undecided), "muted"  # fmt: skip

    # Building.

    def build(self) -> None:
        """Build the mask that the form describes; after a learning, show the form again."""
        desk, building, kind = self._desk, self._building, self.chosen
        if not self.learning.isHidden():
            self._anew = True
            self._form_changed()
            return
        if building.obstacle or self.form.lacking or desk.lineup is None:
            return
        values = self.form.values
        if kind in ("random", "rule"):
            entry = rule_entry(values) if kind == "rule" else _chance(values)
            desk.edit(add_mask(desk.recipe, desk.active, entry))
            return
        member = desk.lineup.finetuned[desk.active].name
        pruned = values.get("variant", "delta-revert") != "delta-revert"
        output = building.new_file(f"{member}-{kind}", *([""] if pruned else []))
        asked = request(
            kind, values, desk.recipe.model_dump(mode="json"), member, desk.active, str(output)
        )
        self._anew = False
        text = self.tr("Learning {mask} mask") if kind == "somf" else self.tr("Building {mask}")
        order = Order(kind, desk.active, asked.entry, asked.rescale)
        building.start(asked.job, asked.params, text.format(mask=BY_ID[kind].title), order)

    @property
    def _pruned_folder(self) -> str:
        """The pruned copy that Antidote wrote last; empty where it left a mask."""
        report = self._building.reports.get("antidote")
        if self.chosen != "antidote" or report is None:
            return ""
        masks = report["settings"]["variant"] == "delta-revert"
        return "" if masks else str(report["files"]["output"])

    def use_pruned(self) -> None:
        """Put the pruned copy in the model's place."""
        desk, report = self._desk, self._building.reports["antidote"]
        names = [m.name for m in desk.lineup.finetuned] if desk.lineup is not None else []
        if report["model"] in names:
            index = names.index(report["model"])
            desk.edit(use_pruned(desk.recipe, index, report["files"]["output"]))

    def show_formula(self) -> QFrame:
        """Open what is to be known of the method, and return it."""
        builder = BY_ID[self.chosen]
        if self._popup is not None:
            self._popup.deleteLater()
        needs = self.tr("Needs: {data}. Repeats: {repeats}. Touches: {what}.").format(
            data=builder.needs, repeats=builder.repeats, what=builder.touches
        )
        name = " · ".join(part for part in (builder.title, self.form.mode) if part)
        self._popup = formula_popup(self, (name, needs, builder.formula, "", builder.reference))
        self._popup.move(self.info.mapToGlobal(self.info.rect().bottomLeft()))
        self._popup.show()
        return self._popup


def _chance(values: Values) -> MaskEntry:
    chance = Chance(keep=values["keep"], seed=values["seed"])
    name = f"Random {100 * values['keep']:g} %, seed {values['seed']}"
    return MaskEntry(random=chance, name=name)
