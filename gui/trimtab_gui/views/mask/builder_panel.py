"""The chosen builder: form, method card, the button that builds, and how a learning goes."""

from __future__ import annotations

from PySide6.QtCore import QSize, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.project.mask_edits import add_mask
from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.mask_building import PAUSED, MaskBuilding
from trimtab_gui.plots.paintable import KEEP, REMOVE
from trimtab_gui.plots.trace import TracePlot
from trimtab_gui.views.mask.builders import BUILDERS, BY_ID, request
from trimtab_gui.views.mask.form import BuilderForm
from trimtab_gui.views.mask.prompt_set import PromptSet
from trimtab_gui.widgets import FactsTable, Panel, label, quiet_button
from trimtab_gui.widgets.formula_popup import formula_popup
from trimtab_gui.widgets.labels import set_tone
from trimtab_gui.widgets.tabs import Tabs


class BuilderPanel(Panel):
    """``brush_chosen`` carries keep, remove or nothing; ``region_painted`` paints the selection."""

    brush_chosen = Signal(str)
    region_painted = Signal(bool)

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
            form.changed.connect(self.refresh)
            self.body.addWidget(form)
        self.brush = _Brush()
        self.brush.chosen.connect(self.brush_chosen)
        self.brush.region.connect(self.region_painted)
        self.body.addWidget(self.brush)
        self.settings = FactsTable()
        self.body.addWidget(self.settings)
        self.learning = _LearningView(building)
        self.body.addWidget(self.learning)
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
        row.addWidget(self.button)
        row.addWidget(self.stop)
        row.addStretch(1)
        self.body.addLayout(row)
        self.body.addStretch(1)
        self.chosen = "somf"
        building.changed.connect(self.refresh)
        for signal in (desk.recipe_changed, desk.active_changed, desk.lineup_changed,
                       desk.selection.changed):  # fmt: skip
            signal.connect(lambda *_: self.refresh())
        self.choose("somf")

    def choose(self, builder: str) -> None:
        """Show another builder's form."""
        self.chosen = builder
        for key, form in self.forms.items():
            form.setVisible(key == builder)
        self.set_title(BY_ID[builder].title)
        self.brush.setVisible(builder == "paint")
        self.brush_chosen.emit(self.brush.current if builder == "paint" else "")
        self.refresh()

    @property
    def form(self) -> BuilderForm:
        """The form that is shown."""
        return self.forms[self.chosen]

    def refresh(self) -> None:
        """Show what is under way and what the button does."""
        building, kind = self._building, self.chosen
        state = building.learning.state
        self.set_aside(self.form.mode)
        self.form.setEnabled(not building.running and not (kind == "somf" and state))
        learns = kind == "somf" and bool(state or (building.learning.log.step and not self._anew))
        self.learning.setVisible(learns)
        self.settings.setVisible(learns)
        self.form.setVisible(not learns)
        if learns:
            self.settings.set_rows(self._settings())
        own = building.running and building.kind == kind
        self.stop.setVisible(own and kind != "somf")
        self.button.setVisible(kind != "paint" and not own and not (kind == "somf" and state))
        self.button.setText(self.tr("Learn anew…") if learns else self.tr(BY_ID[kind].button))
        self.button.setEnabled(learns or not (building.obstacle or self.form.lacking))
        self.brush.set_region(bool(self._desk.selection.current))
        self._tell()

    def _settings(self) -> list[tuple[str, str, str]]:
        """Return what a learning was begun with, in the place of the form."""
        params, shown = self._building.learning.params, []
        for field in BY_ID["somf"].fields:
            value = params[field.key]
            if field.sets:
                prompts = self.forms["somf"].controls[field.key]
                assert isinstance(prompts, PromptSet)
                text = f"{prompts.count:,}"
            else:
                text = field.choices[value] if field.choices else f"{value:g}"
            shown.append((field.title, text, field.tip))
        return shown

    def _tell(self) -> None:
        building, kind = self._building, self.chosen
        tone, said = "muted", self.tr("Needs {data}.").format(data=BY_ID[kind].needs)
        if kind == "paint":
            said = self.tr("Drag over cells, or select a region and paint it. Space paints the "
                           "cell under the cursor.")  # fmt: skip
        if building.error is not None and building.kind == kind:
            error = building.error
            tone, said = "danger", f"{error.what} {error.why} {error.fix}".strip()
        elif kind == "somf" and (report := building.reports.get("somf")):
            said, tone = self._learned(dict(report))
        elif kind == "antidote" and (report := building.reports.get("antidote")):
            floored, total = report["floored"], report["total"]
            said = self.tr(
                "{n} of {m} entries go, {share} of them; in {k} matrices a row had so few that "
                "one went all the same."
            ).format(n=texts.count(int(total["pruned"])), m=texts.count(int(total["entries"])),
                     share=texts.percent(total["pruned"] / max(total["entries"], 1)),
                     k=floored)  # fmt: skip
        elif building.obstacle:
            said = building.obstacle
        elif self.form.lacking:
            said = f"{said} {self.form.lacking}"
        self.note.setText(said)
        set_tone(self.note, tone)

    def _learned(self, report: dict[str, object]) -> tuple[str, str]:
        undecided = texts.percent(float(report["undecided"]))  # type: ignore[arg-type]
        if not report["informative"]:
            return self.tr(
                "The mask has learned nothing: σ(x) of {share} of the entries is still near one "
                "half. Raise the rate, or the steps."
            ).format(share=undecided), "danger"
        preference = report["preference"]
        assert isinstance(preference, dict)
        shares = {key: texts.percent(value["share"]) for key, value in preference.items()}
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
            self.refresh()
            return
        if building.obstacle or self.form.lacking or desk.lineup is None:
            return
        if kind in ("random", "rule"):
            desk.edit(add_mask(desk.recipe, desk.active, self._plain_entry()))
            return
        values = self.form.values
        member = desk.lineup.finetuned[desk.active].name
        output = building.new_file(f"{member}-{kind}")
        asked = request(
            kind, values, desk.recipe.model_dump(mode="json"), member, desk.active, str(output)
        )
        self._anew = False
        title = BY_ID[kind].title
        text = self.tr("Learning {mask} mask") if kind == "somf" else self.tr("Building {mask}")
        building.start(
            kind, asked.job, asked.params, text.format(mask=title), asked.entry, asked.rescale
        )

    def _plain_entry(self) -> MaskEntry:
        values = self.form.values
        if self.chosen == "random":
            chance = Chance(keep=values["keep"], seed=values["seed"])
            name = f"Random {100 * values['keep']:g} %, seed {values['seed']}"
            return MaskEntry(random=chance, name=name)
        first, last = sorted((values["first"], values["last"]))
        modules = tuple(name.strip() for name in values["modules"].split(",") if name.strip())
        where = f"layers {first}–{last}" if first < last else f"layer {first}"
        what = f"{', '.join(modules)} in {where}" if modules else where
        remove = values["away"] == "remove"
        return MaskEntry(
            rule=Rule(layers=(first, last), modules=modules),
            op="minus" if remove else "and",
            name=f"{'Without' if remove else 'Only'} {what}",
        )

    def show_formula(self) -> QFrame:
        """Open what is to be known of the method, and return it."""
        builder = BY_ID[self.chosen]
        if self._popup is not None:
            self._popup.deleteLater()
        needs = self.tr("Needs: {data}. Repeats: {repeats}. Touches: {what}.").format(
            data=builder.needs, repeats=builder.repeats, what=self._touched()
        )
        name = f"{builder.title} · {self.form.mode}"
        self._popup = formula_popup(self, (name, needs, builder.formula, "", builder.reference))
        self._popup.move(self.info.mapToGlobal(self.info.rect().bottomLeft()))
        self._popup.show()
        return self._popup

    def _touched(self) -> str:
        if self.chosen in ("somf", "magnitude", "random"):
            return self.tr("every tensor that fine-tuning changed")
        if self.chosen in ("rule", "paint"):
            return self.tr("the tensors named")
        return self.tr("the Linears of the blocks")


class _Brush(QWidget):
    """Keep or remove, by the hand or for the selected region."""

    chosen = Signal(str)
    region = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(8)
        self.current = REMOVE
        titles = [(REMOVE, self.tr("Remove")), (KEEP, self.tr("Keep")), ("", self.tr("Select"))]
        self.switch = Tabs(self.tr("Brush"), titles)
        self.switch.set_current(REMOVE)
        self.switch.chosen.connect(self.choose)
        rows.addWidget(self.switch)
        row = QHBoxLayout()
        row.setSpacing(8)
        self.remove = QPushButton(self.tr("Remove"))
        self.keep = QPushButton(self.tr("Keep"))
        self.remove.setAccessibleName(self.tr("Remove the selected region"))
        self.keep.setAccessibleName(self.tr("Keep the selected region"))
        row.addWidget(label(self.tr("selected region"), "caption", "muted"), 1)
        self.remove.clicked.connect(lambda: self.region.emit(False))
        self.keep.clicked.connect(lambda: self.region.emit(True))
        row.addWidget(self.remove)
        row.addWidget(self.keep)
        rows.addLayout(row)

    def choose(self, key: str) -> None:
        """Take another brush; none selects."""
        self.current = key
        self.switch.set_current(key)
        self.chosen.emit(key)

    def set_region(self, selected: bool) -> None:
        self.remove.setEnabled(selected)
        self.keep.setEnabled(selected)


class _LearningView(QWidget):
    """Loss and reward margin, steps, and what can be done with a learning."""

    def __init__(self, building: MaskBuilding) -> None:
        super().__init__()
        self._building = building
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        self.steps = label("", "number")
        self.now = label("", "caption", "muted")
        head = QHBoxLayout()
        head.addWidget(self.steps)
        head.addStretch(1)
        head.addWidget(self.now)
        rows.addLayout(head)
        self.loss = TracePlot(self.tr("preference loss"), "aligned")
        self.margin = TracePlot(self.tr("reward margin"), "merged")
        for plot in (self.loss, self.margin):
            rows.addWidget(label(plot.accessibleName(), "caption", "muted"))
            plot.setFixedHeight(84)
            rows.addWidget(plot)
        self.pause = QPushButton()
        self._pause_icon = theme.bind_icon(self.pause, "pause")
        self.pause.clicked.connect(self._pause)
        self.enough = QPushButton(self.tr("Use as it is"))
        self.enough.clicked.connect(building.use_as_it_is)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.pause)
        row.addWidget(self.enough)
        row.addStretch(1)
        rows.addLayout(row)
        building.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show how far the learning has come."""
        learning = self._building.learning
        log, state = learning.log, learning.state
        self.steps.setText(
            self.tr("{n} of {m} steps").format(n=log.step, m=log.steps) if log.steps else ""
        )
        preferred = texts.percent(log.preferred[-1], 0) if log.preferred else ""
        said = self.tr("{share} preferred").format(share=preferred) if preferred else ""
        self.now.setText(self.tr("paused") if state == PAUSED else said)
        self.now.setToolTip(
            self.tr("Pairs of the last step whose safe answer is the likelier one, under the mask "
                    "drawn then")
        )  # fmt: skip
        self.loss.set_values(log.at, log.loss, log.steps)
        self.margin.set_values(log.at, log.margin, log.steps)
        self.pause.setVisible(bool(state))
        self.enough.setVisible(bool(state))
        self.enough.setEnabled(log.step > 0)
        self.pause.setText(self.tr("Resume") if state == PAUSED else self.tr("Pause"))
        if self._pause_icon is not None:
            self._pause_icon.set_icon("play" if state == PAUSED else "pause")

    def _pause(self) -> None:
        if self._building.learning.state == PAUSED:
            self._building.resume()
        else:
            self._building.stop()
