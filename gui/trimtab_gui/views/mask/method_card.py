"""The card of the chosen builder: what it needs, touches and takes away, and how it repeats."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel

from trimtab.realign.antidote import Variant
from trimtab.realign.antidote_count import Counted, count_pruned, looked_at
from trimtab_gui.desk import Desk
from trimtab_gui.mask_building import MaskBuilding
from trimtab_gui.views.mask.builder_panel import BuilderPanel
from trimtab_gui.views.mask.builders import BY_ID
from trimtab_gui.views.mask.method_facts import Facts, method_facts
from trimtab_gui.views.mask.score_kinds import ANTIDOTE
from trimtab_gui.views.mask.scoring import Scoring
from trimtab_gui.widgets import Panel, label

_NAMES = 52


class MethodCard(Panel):
    """Follows form, estimate and report; α's count is told while the hand still turns it."""

    def __init__(
        self, desk: Desk, building: MaskBuilding, builder: BuilderPanel, scoring: Scoring
    ) -> None:
        super().__init__("Method")
        self.set_title(self.tr("Method"))
        self._desk, self._building = desk, building
        self._builder, self._scoring = builder, scoring
        self._matrices: tuple[object, tuple[tuple[int, int], ...]] = (None, ())
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(10)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnMinimumWidth(0, _NAMES)
        self._grid.setColumnStretch(1, 1)
        self._cells: list[tuple[QLabel, QLabel]] = []
        self.body.addLayout(self._grid)
        builder.set_up.connect(self.refresh)
        building.changed.connect(self.refresh)
        scoring.changed.connect(self.refresh)
        self.refresh()

    @property
    def facts(self) -> Facts:
        """What is shown."""
        return [(n.text(), s.text()) for n, s in self._cells if not s.isHidden()]

    def refresh(self) -> None:
        """Show the facts of the chosen builder as it is set."""
        chosen = self._builder.chosen
        values = self._builder.form.values
        estimates = chosen == ANTIDOTE.id and self._scoring.kind is ANTIDOTE
        facts = method_facts(
            chosen, values, self._building.reports.get(chosen),
            self._scoring.found if estimates else None,
            self._counted(values["variant"], values["alpha"]) if estimates else None,
        )  # fmt: skip
        self.set_aside(BY_ID[chosen].title)
        while len(self._cells) < len(facts):
            name, said = label("", "caption", "muted"), label("", "caption")
            said.setWordWrap(True)
            said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            top = Qt.AlignmentFlag.AlignTop
            row = len(self._cells)
            self._grid.addWidget(name, row, 0, top)
            self._grid.addWidget(said, row, 1, top)
            self._cells.append((name, said))
        for row, (name, said) in enumerate(self._cells):
            shown = row < len(facts)
            if shown:
                name.setText(self.tr(facts[row][0]))
                said.setText(facts[row][1])
                said.setAccessibleName(f"{facts[row][0]}: {facts[row][1]}")
            name.setVisible(shown)
            said.setVisible(shown)

    def _counted(self, variant: Variant, alpha: float) -> Counted | None:
        """Count what is pruned from headers; which matrices those are is looked up once."""
        desk = self._desk
        if desk.lineup is None or desk.active < 0 or self._builder.form.unfit:
            return None
        place = (desk.lineup.fingerprint, desk.active, variant)
        if self._matrices[0] != place:
            member = desk.lineup.finetuned[desk.active]
            self._matrices = place, looked_at(desk.lineup, member, variant)
        return count_pruned(self._matrices[1], alpha)
