"""The numbers of what is under the cursor, or the sums over what is selected."""

from __future__ import annotations

import math

from trimtab.inspection.metrics import (
    BY_ID,
    alignment_norm,
    cosine,
    relative_norm,
    rollback,
    sign_conflict,
    tau_norm,
    zero_share,
)
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.figures import Figures, Floats
from trimtab_gui.looking import Looking
from trimtab_gui.views.inspect.how_row import HowRow
from trimtab_gui.views.inspect.rule_popup import RulePopup
from trimtab_gui.views.inspect.spectrum import SpectrumView
from trimtab_gui.widgets import FactsTable, Panel, label, quiet_button

Rows = list[tuple[str, str, str]]


def _tip(metric: str) -> str:
    m = BY_ID[metric]
    return f"{m.title}\n{m.sentence}\n{m.formula}\n{m.reference}"


class SelectionPanel(Panel):
    """Shows the group under the cursor while there is one, else the selection."""

    def __init__(self, desk: Desk, looking: Looking) -> None:
        super().__init__("Selection")
        self.set_title(self.tr("Selection"))
        self._desk = desk
        self.how = HowRow(desk)
        self.body.addWidget(self.how)
        self.table = FactsTable()
        self._hint = label("", "caption", "muted")
        self._hint.setWordWrap(True)
        self.body.addWidget(self.table)
        self.body.addWidget(self._hint)
        self.spectrum = SpectrumView(desk, looking.spectra)
        self.body.addWidget(self.spectrum)
        self.body.addStretch(1)
        self.rule_button = quiet_button("tune-variant", self.tr("Select by a rule"))
        self.rule_button.clicked.connect(self.open_rule)
        self.header_layout.addWidget(self.rule_button)
        self.rule: RulePopup | None = None
        looking.spectra.changed.connect(self.refresh)
        desk.selection.changed.connect(self.refresh)
        desk.selection.hovered.connect(self.refresh)
        for signal in (
            desk.figures_changed, desk.recipe_changed, desk.active_changed, desk.figures_moved,
        ):  # fmt: skip
            signal.connect(self.refresh)
        self.refresh()

    def groups(self) -> tuple[int, ...]:
        """Return the groups that are shown: the one under the cursor, else the selected."""
        bus = self._desk.selection
        return (bus.hover,) if bus.hover >= 0 else bus.current.groups

    def refresh(self) -> None:
        """Bring the numbers up to date."""
        figures, lineup = self._desk.figures, self._desk.lineup
        groups = self.groups()
        self.rule_button.setVisible(figures is not None)
        self.how.setVisible(figures is not None)
        if figures is None or lineup is None:
            self._empty(self.tr("Numbers of a layer or module appear here."))
            return
        n = figures.grid.n_groups
        groups = tuple(g for g in groups if 0 <= g < n)
        if not groups:
            self._empty(self.tr("Point at a cell, or drag over some, to read its numbers."))
            return
        self._hint.hide()
        self.table.show()
        self.set_aside(self._name(figures, groups))
        spectral = self.spectrum.show_groups(groups)
        self.spectrum.show()
        rows = self._header_rows(figures, groups) + self._rows(figures, groups)
        self.table.set_rows(rows + spectral)

    def open_rule(self) -> RulePopup:
        """Open the form that selects by layers, modules and names."""
        if self.rule is not None:
            self.rule.deleteLater()
        self.rule = RulePopup(self._desk, self.rule_button)
        self.rule.open_below()
        return self.rule

    def _empty(self, hint: str) -> None:
        self.set_aside("")
        self.table.hide()
        self.spectrum.hide()
        self._hint.setText(hint)
        self._hint.show()

    def _name(self, figures: Figures, groups: tuple[int, ...]) -> str:
        if len(groups) == 1:
            return figures.grid.labels[groups[0]]
        layers = sorted({int(figures.grid.layers[g]) for g in groups} - {-1})
        span = ""
        if layers:
            span = f"L{layers[0]}" if len(layers) == 1 else f"L{layers[0]}–{layers[-1]}"
        cells = self.tr("{n} cells").format(n=len(groups))
        return f"{span} · {cells}" if span else cells

    def _header_rows(self, figures: Figures, groups: tuple[int, ...]) -> Rows:
        lineup = self._desk.lineup
        assert lineup is not None
        index = lineup.reference.checkpoint.index
        if len(groups) == 1:
            members = figures.grid.members(groups[0])
            if len(members) == 1:
                row = int(members[0])
                shape = texts.shape(index.shapes[row])
                return [
                    (self.tr("shape"), shape, index.names[row]),
                    (self.tr("dtype"), index.dtype_of(row).label, ""),
                ]
            names = "\n".join(index.names[int(row)] for row in members[:20])
            dtypes = sorted({index.dtype_of(int(row)).label for row in members})
            return [
                (self.tr("tensors"), str(len(members)), names),
                (self.tr("dtype"), ", ".join(dtypes), ""),
            ]
        numel = int(figures.groups.numel[list(groups)].sum())
        return [(self.tr("parameters"), texts.count(numel), f"{numel:,}")]

    def _rows(self, figures: Figures, groups: tuple[int, ...]) -> Rows:
        i = self._desk.active
        sums = figures.subset(groups)
        rows: Rows = []

        def add(name: str, value: Floats, tip: str, percent: bool = False) -> None:
            number = float(value[0])
            text = texts.percent(number) if percent else texts.significant(number)
            rows.append((name, text, tip))

        if i >= 0:
            add("|τ|", tau_norm(sums, i), _tip("tau"))
            add("|τ| / |θ|", relative_norm(sums, i), _tip("relative"))
        if figures.has_alignment:
            add("|a|", alignment_norm(sums), _tip("alignment"))
            if i >= 0:
                add("cos(τ, a)", cosine(sums, i), _tip("cosine"))
                add(self.tr("rollback"), rollback(sums, i), _tip("rollback"))
                add(self.tr("sign conflict"), sign_conflict(sums, i), _tip("conflict"), True)
        if i >= 0:
            add(self.tr("exact zeros"), zero_share(sums, i), _tip("zeros"), True)
            rows.extend(self._merged_rows(figures, groups, i))
        return rows

    def _merged_rows(self, figures: Figures, groups: tuple[int, ...], i: int) -> Rows:
        desk = self._desk
        recipe, movement, method = desk.recipe, desk.movement, desk.method
        chosen = list(groups)
        rows: Rows = []
        if method is None or method.weighted:
            ratios = recipe.ratios(
                figures.grid.layers[chosen], tuple(figures.grid.modules[g] for g in chosen)
            )[:, i]
            low, high = float(ratios.min()), float(ratios.max())
            ratio = f"{low:.2f}" if math.isclose(low, high) else f"{low:.2f} – {high:.2f}"
            tip = self.tr("The ratio of {name} in these tensors").format(name=desk.name(i))
            rows.append((self.tr("ratio here"), ratio.replace("-", "−"), tip))
        name = f"|merged − {desk.reference_word}|"
        if movement is None:
            if desk.movement_unknown:
                rows.append((name, "–", desk.movement_unknown))
            return rows
        total = math.sqrt(float((movement.shift[chosen] ** 2).sum()))
        tip = self.tr("How far the merged model will be from the reference here: √(cᵀ G c)")
        return [*rows, (name, texts.significant(total), tip)]
