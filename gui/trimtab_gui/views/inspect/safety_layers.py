"""Where the models hold harmless and harmful queries apart, and what can be done with the range."""

from __future__ import annotations

import numpy as np
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.figures import Figures
from trimtab_gui.layers_found import MODES, Band, Floats, LayersFound
from trimtab_gui.looking import QUERIES, LayersFinding
from trimtab_gui.plots import Curve, PlotCard
from trimtab_gui.plots.bands import BandsView
from trimtab_gui.plots.profile_paint import curve_color
from trimtab_gui.views.inspect.layer_edits import cut_layers, mask_layers
from trimtab_gui.views.inspect.range_link import RangeLink
from trimtab_gui.widgets import Choice, ElidedLabel

GAP, LOST, COSINES = "gap", "lost", "cosines"


class SafetyLayersCard(PlotCard):
    """The angle gap of every model; the range is dragged, and is the selection everywhere."""

    def __init__(self, desk: Desk, finding: LayersFinding) -> None:
        super().__init__("Safety layers")
        self.set_title(self.tr("Safety layers"))
        self._desk, self._finding = desk, finding
        self.view = BandsView(self.tr("layer"), self.tr("degrees"))
        self.view.setAccessibleName(self.tr("Safety layers"))
        self.set_body(self.view)
        self.drawn = Choice()
        self.drawn.setAccessibleName(self.tr("What is drawn"))
        self.drawn.setMinimumWidth(150)
        self.drawn.setMaximumWidth(230)
        self.drawn.currentIndexChanged.connect(self._draw)
        self.header_layout.addWidget(self.drawn)
        self._grid: object = None
        self._shown: LayersFound | None = None
        self._make_footer()
        self.link = RangeLink(desk, self.view)
        self.link.shown.connect(self._say_range)
        self.view.selection_changed.connect(self._say_range)
        desk.selection.changed.connect(self._say_range)
        desk.figures_changed.connect(self.redraw)
        desk.active_changed.connect(self._say_range)
        desk.recipe_changed.connect(self._say_range)
        desk.methods_changed.connect(self._say_range)
        finding.changed.connect(self.redraw)
        theme.manager().changed.connect(self.redraw)
        self.redraw()

    def _make_footer(self) -> None:
        self.footer = QWidget()
        row = QHBoxLayout(self.footer)
        row.setContentsMargins(0, 2, 4, 2)
        row.setSpacing(8)
        self.said = ElidedLabel("", "caption", "muted")
        self.take_button = QPushButton()
        self.take_button.setToolTip(self.tr("Select the range that was found"))
        self.take_button.clicked.connect(self.take_range)
        self.locate_button = QPushButton(self.tr("Locate by scaling"))
        self.locate_button.setToolTip(self.tr(
            "Loads the reference whole and counts what it refuses of harmless lookalikes while the "
            "weights of a range are scaled: some twenty rounds of answers (Li et al. 2025, 3.3)."
        ))  # fmt: skip
        self.locate_button.clicked.connect(lambda: self._finding.start(locate=True))
        self.mask_button = QPushButton(self.tr("Mask out"))
        self.mask_button.clicked.connect(self.make_mask)
        self.curve_button = QPushButton(self.tr("Ratio 0 here"))
        self.curve_button.clicked.connect(self.make_curve)
        row.addWidget(self.said, 1)
        for button in (self.take_button, self.locate_button, self.mask_button, self.curve_button):
            row.addWidget(button)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.footer)

    # What is shown.

    def redraw(self) -> None:
        """Take over what is known, or say what will be here and what it takes."""
        figures, finding = self._desk.figures, self._finding
        found = finding.found
        ready = figures is not None and found is not None
        self.drawn.setVisible(ready)
        self.footer.setVisible(ready)
        if figures is None:
            self._grid = None
            text = self.tr("Which layers tell harm apart, and which of them fine-tuning changed.")
            self.set_state("empty", text)
            return
        if self._grid is not figures.grid:
            self._grid = figures.grid
            self.view.set_columns(list(figures.grid.columns))
        if found is None:
            self._shown = None
            self._show_why()
            return
        self.set_state("ready")
        self.locate_button.setVisible(not found.located_in)
        self.locate_button.setEnabled(not finding.running)
        if self._shown is not found:
            self._shown = found
            self._fill(found)
            if not self._desk.selection.current:
                self.take_range()
        self._draw()

    def _show_why(self) -> None:
        finding = self._finding
        if finding.running:
            self.set_state("loading", self.tr("Asking every model, block by block …"))
        elif finding.error is not None:
            error = finding.error
            again = (self.tr("Try again"), finding.start)
            self.set_state("error", f"{error.what}\n{error.why}\n{error.fix}", again)
        else:
            text = self.tr(
                "Which layers tell harm apart: the angle between what harmless and harmful queries "
                "leave behind each block.\nEvery model reads up to {n} queries of each kind from "
                "the suite {suite}, block by block: {size} to read, no answers."
            ).format(n=QUERIES, suite=finding.suite, size=texts.size(finding.bytes_read()))
            self.set_state("empty", text, (self.tr("Measure"), finding.start))

    def _fill(self, found: LayersFound) -> None:
        self.drawn.blockSignals(True)
        chosen = self.drawn.currentData()
        self.drawn.clear()
        for mode in MODES:
            self.drawn.addItem(self.tr("Angle gap ({mode})").format(mode=mode), (GAP, mode))
        if found.lost:
            self.drawn.addItem(self.tr("Gap lost"), (LOST, ""))
        for model in found.models:
            text = self.tr("Cosines of {name}").format(name=model.name)
            self.drawn.addItem(text, (COSINES, model.name))
        offered = [self.drawn.itemData(k) for k in range(self.drawn.count())]
        self.drawn.setCurrentIndex(offered.index(chosen) if chosen in offered else 0)
        self.drawn.blockSignals(False)

    def choose(self, kind: str, which: str = "") -> None:
        """Show gaps in a mode, what is lost, or the cosines of a model."""
        offered = [self.drawn.itemData(k) for k in range(self.drawn.count())]
        self.drawn.setCurrentIndex(offered.index((kind, which)))

    def _draw(self) -> None:
        figures, found = self._desk.figures, self._shown
        if figures is None or found is None:
            return
        kind, which = self.drawn.currentData()
        if kind == COSINES:
            curves = self._cosines(figures, found, which)
        elif kind == LOST:
            curves = self._of(figures, [(n, "finetuned", b) for n, b in found.lost.items()])
        else:
            curves = self._of(figures, [(m.name, m.role, m.gaps[which]) for m in found.models])
        self.view.from_zero = kind != COSINES
        self.view.y_label = self.tr("cosine") if kind == COSINES else self.tr("degrees")
        self.view.set_curves(curves)
        self.set_legend([(curve_color(curve), curve.label) for curve in curves])
        self._tell(found, kind, which)
        self._say_range()

    def _of(self, figures: Figures, bands: list[tuple[str, str, Band]]) -> list[Curve]:
        """Return a curve for each model, in its role's colour; further fine-tuned ones tinted."""
        curves, tints = [], 0
        for name, role, band in bands:
            curves.append(_curve(figures, name, role, band, tints))
            tints += role == "finetuned"
        return curves

    def _cosines(self, figures: Figures, found: LayersFound, which: str) -> list[Curve]:
        model = next(m for m in found.models if m.name == which)
        finetuned = [m.name for m in found.models if m.role == "finetuned"]
        tint = finetuned.index(which) if which in finetuned else 0
        return [
            _curve(figures, self.tr("harmless – harmless"), "text", model.cosines["nn"], 0),
            _curve(figures, self.tr("harmful – harmful"), "muted", model.cosines["mm"], 0, True),
            _curve(figures, self.tr("harmless – harmful"), model.role, model.cosines["nm"], tint),
        ]

    def _tell(self, found: LayersFound, kind: str, which: str) -> None:
        normal, malicious = found.queries
        queries = self.tr("{n} harmless and {m} harmful queries").format(n=normal, m=malicious)
        if kind == COSINES:
            self.set_formula(
                self.tr("Cosines of pairs"),
                self.tr("How alike two queries are behind each block; shaded, one standard "
                        "deviation of 500 pairs."),
                "cos(v, v′)", queries, found.published,
            )  # fmt: skip
            return
        mode = "ours" if kind == LOST else which
        shaded = self.tr("Shaded: 95 % of resampled prompts.") if mode == "ours" else ""
        if kind == LOST:
            title = self.tr("Angle gap lost by fine-tuning")
            formula = self.tr("gap of {name} − gap of the model").format(name=found.reference)
        else:
            title, formula = self.tr("Angle gap ({mode})").format(mode=mode), found.formulas[mode]
        sentence = self.tr("How many degrees further harmful queries are from harmless ones than "
                           "these from each other.")  # fmt: skip
        self.set_formula(title, f"{sentence} {shaded}".strip(), formula, queries, found.published)

    # The range.

    def layers(self) -> tuple[int, int] | None:
        """Return the first and the last layer in the range; None when it holds none."""
        figures, (low, high) = self._desk.figures, self.view.selection
        if figures is None or low < 0:
            return None
        inside = [int(c) for c in figures.grid.columns[low : high + 1] if c.isdigit()]
        return (inside[0], inside[-1]) if inside else None

    def take_range(self) -> None:
        """Select the range that was found."""
        figures, found = self._desk.figures, self._shown
        if figures is None or found is None or found.range is None:
            return
        columns = [figures.grid.columns.index(str(n)) for n in found.range]
        self.view.set_selection(*columns)
        self.link.select(*columns)

    def make_mask(self) -> None:
        """Mask the active model's change out of the range: the merge keeps the reference there."""
        layers, i = self.layers(), self._desk.active
        if layers is not None and i >= 0:
            self._desk.edit(mask_layers(self._desk.recipe, i, layers))

    def make_curve(self) -> None:
        """Set the active model's ratio to 0 in the range."""
        layers, i = self.layers(), self._desk.active
        if layers is not None and i >= 0:
            self._desk.edit(cut_layers(self._desk.recipe, i, layers))

    def _say_range(self) -> None:
        found, layers, desk = self._shown, self.layers(), self._desk
        if found is None:
            return
        self.take_button.setVisible(found.range is not None and found.range != layers)
        if found.range is not None:
            self.take_button.setText(self.tr("Take {range}").format(range=_span(found.range)))
        can = layers is not None and desk.active >= 0
        weighted = desk.method is None or desk.method.weighted
        self.mask_button.setEnabled(can)
        self.curve_button.setEnabled(can and weighted)
        where = _span(layers) if layers is not None else ""
        name = desk.name(desk.active) if desk.active >= 0 else ""
        self.mask_button.setToolTip(
            self.tr("Keep the reference in {where}: {name}'s change there is masked out").format(
                where=where, name=name
            )
        )
        by_ratio = self.tr("Set the ratio of {name} to 0 in {where}").format(name=name, where=where)
        self.curve_button.setToolTip(
            by_ratio if weighted else self.tr("This method has no ratios.")
        )
        self.said.setText(self._result(found))
        self.view.set_summary(self.said.text())

    def _result(self, found: LayersFound) -> str:
        if self._finding.running:
            return self.tr("Measuring anew …")
        if self._finding.error is not None:
            return f"{self._finding.error.what} {self._finding.error.why}"
        if found.range is None:
            return self.tr("{name} shows no gap of more than a degree.").format(
                name=found.reference
            )
        if found.located_in and found.located is None:
            how = self.tr("scaling changed no refusal; where the gap begins")
        elif found.located is not None:
            how = self.tr("located by scaling, {tried}").format(tried=found.tried)
        else:
            how = self.tr("where the gap begins")
        parts = [f"{_span(found.range)}: {how}"]
        for share in found.shares:
            if share.model == self._desk.name(self._desk.active) and share.energy is not None:
                parts.append(
                    self.tr("{energy} of τ² in {weights} of the weights").format(
                        energy=texts.percent(share.energy), weights=texts.percent(share.parameters)
                    )
                )
        return " · ".join(parts)


def _span(layers: tuple[int, int]) -> str:
    first, last = layers
    return f"L{first}" if first == last else f"L{first}–{last}"


def _curve(
    figures: Figures, name: str, role: str, band: Band, tint: int, dashed: bool = False
) -> Curve:
    """Lay a value of each block out over the grid's columns."""

    def over(values: Floats | None) -> Floats | None:
        if values is None:
            return None
        found = np.full(len(figures.grid.columns), np.nan)
        for j, text in enumerate(figures.grid.columns):
            if text.isdigit() and int(text) < len(values):
                found[j] = values[int(text)]
        return found

    values = over(band.value)
    assert values is not None
    return Curve(
        name, name, role, values, index=tint, low=over(band.low), high=over(band.high),
        dashed=dashed,
    )  # fmt: skip
