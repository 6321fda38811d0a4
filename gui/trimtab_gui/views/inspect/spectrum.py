"""Spectra of τ and a in what is selected, and what they say, beside chance."""

from __future__ import annotations

import numpy as np
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from trimtab.inspection.spectra import EXACT, Spectra
from trimtab.inspection.spectral_metrics import (
    SPECTRAL_BY_ID,
    expected_energy,
    safety_energy,
    stable_rank,
)
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.looking import SpectraFinding
from trimtab_gui.plots.legend import Legend
from trimtab_gui.plots.spectrum import SpectrumCurve, SpectrumPlot
from trimtab_gui.views.inspect.texts import cost_text
from trimtab_gui.widgets import label

Rows = list[tuple[str, str, str]]
_HEIGHT = 132


class SpectrumView(QWidget):
    """Shows the groups it is given; empty, it says what would be here and what it takes."""

    def __init__(self, desk: Desk, spectra: SpectraFinding) -> None:
        super().__init__()
        self._desk, self._spectra = desk, spectra
        self.plot = SpectrumPlot()
        self.plot.setFixedHeight(_HEIGHT)
        self.legend = Legend()
        self.hint = label("", "caption", "muted")
        self.hint.setWordWrap(True)
        self.button = QPushButton(self.tr("Compute spectra"))
        self.button.clicked.connect(lambda: spectra.start())
        head = QHBoxLayout()
        head.setContentsMargins(0, 2, 0, 0)
        head.addWidget(label(self.tr("Spectrum"), "caption", "muted"))
        head.addWidget(self.legend, 1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(6)
        rows.addLayout(head)
        for widget in (self.plot, self.hint, self.button):
            rows.addWidget(widget)

    def show_groups(self, groups: tuple[int, ...]) -> Rows:
        """Draw the spectra of some groups together; returns what the table says of them."""
        found = self._found(groups)
        if found is None or not (found.level[0] > 0).any():
            self._show_why(found)
            return []
        i = self._desk.active
        curves = []
        if i >= 0:
            curves.append(_curve(found, i + 1, "τ", "finetuned", i))
        if found.has_alignment:
            curves.append(_curve(found, 0, "a", "aligned", 0))
        self.plot.set_curves(curves)
        self.legend.set_entries([(curve.colour, curve.label) for curve in curves])
        self._show(plot=True, hint=self._accuracy(found))
        return self._rows(found, i) if i >= 0 else []

    def _found(self, groups: tuple[int, ...]) -> Spectra | None:
        known = self._spectra.known
        if known is None:
            return None
        inside = np.ones(len(known.groups.names), dtype=np.int64)
        inside[list(groups)] = 0
        return known.groups.summed(inside, ("selection", "rest"))

    def _accuracy(self, found: Spectra) -> str:
        """State how far values may be off; nothing where they are exact."""
        present = found.present[0]
        if (found.level[0][present] == EXACT).all():
            return ""
        width = (found.upper[0] - found.lower[0]) / found.values[0, :, :1]
        worst = float(np.nanmax(width, initial=0.0)) / 2
        text = self.tr("Off by ± {share} of the largest, at most.").format(
            share=texts.percent(worst)
        )
        return f"{text} {self.tr('Being refined …')}" if self._spectra.running else text

    def _rows(self, found: Spectra, i: int) -> Rows:
        rows: Rows = []
        energy = float(safety_energy(found, i)[0])
        if found.has_alignment and not np.isnan(energy):
            chance = float(expected_energy(found, i)[0])
            both = f"{texts.percent(energy)} · {texts.percent(chance)}"
            rows.append((self.tr("safety energy · chance"), both, _tip("safety_energy")))
        rank = float(stable_rank(found, i)[0])
        if not np.isnan(rank):
            rows.append((self.tr("stable rank"), texts.significant(rank), _tip("stable_rank")))
        return rows

    def _show_why(self, found: Spectra | None) -> None:
        spectra = self._spectra
        if spectra.running:
            self._show(hint=self.tr("Being computed, coarsely at first …"))
        elif spectra.error is not None:
            self._show(hint=f"{spectra.error.what} {spectra.error.fix}", button=True)
        elif found is None:
            self._show(hint=cost_text(spectra), button=True)
        else:
            self._show(hint=self.tr("No matrix is in it."))

    def _show(self, plot: bool = False, hint: str = "", button: bool = False) -> None:
        self.plot.setVisible(plot)
        self.legend.setVisible(plot)
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))
        self.button.setVisible(button)


def _curve(found: Spectra, v: int, name: str, role: str, index: int) -> SpectrumCurve:
    return SpectrumCurve(
        name, role, found.values[0, v], found.lower[0, v], found.upper[0, v], index
    )


def _tip(metric: str) -> str:
    m = SPECTRAL_BY_ID[metric]
    return f"{m.title}\n{m.sentence}\n{m.formula}\n{m.reference}"
