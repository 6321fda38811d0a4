"""The one screen on which everything that belongs together is seen together."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from trimtab_gui.desk import Desk
from trimtab_gui.looking import Looking
from trimtab_gui.masking import Masking
from trimtab_gui.merging import Merging
from trimtab_gui.views.columns import column, scrolled, splitter, three_columns
from trimtab_gui.views.heatmap_card import HeatmapCard
from trimtab_gui.views.inspect.layer_cards import LayerCards
from trimtab_gui.views.lineup_panel import LineupPanel
from trimtab_gui.views.mask_stack import MaskStackPanel
from trimtab_gui.views.method_panel import MethodPanel
from trimtab_gui.views.output_panel import OutputPanel
from trimtab_gui.views.preview_panel import PreviewPages
from trimtab_gui.views.selection_panel import SelectionPanel
from trimtab_gui.widgets import label

LEFT, RIGHT = 264, 322
#: heights of heatmap and profile by place: the ratio curve is dragged in the profile
ROWS = {"inspect": (470, 330), "merge": (300, 500)}


class Workbench(QWidget):
    """Lineup and selection, heatmap above profile, preview and method and output."""

    add_requested = Signal()

    def __init__(self, desk: Desk, merging: Merging) -> None:
        super().__init__()
        self._desk = desk
        self.looking = Looking(desk, self)
        self.lineup = LineupPanel(desk)
        self.selection = SelectionPanel(desk, self.looking)
        self.heatmap = HeatmapCard(desk, self.looking)
        self.over_layers = LayerCards(desk, self.looking)
        self.profile = self.over_layers.profile
        self.pages = PreviewPages(desk)
        self.masking = Masking(desk, self)
        self.masking.measurable = lambda: self.pages.live.state in ("loading", "ready")
        self.preview, self.distance = self.pages.preview, self.pages.distance
        self.method = MethodPanel(desk)
        self.masks = MaskStackPanel(desk, self.masking)
        self.output = OutputPanel(desk, merging)
        self.lineup.add_requested.connect(self.add_requested)
        self.heatmap.view.view_changed.connect(self.over_layers.set_x_range)
        self.over_layers.view_changed.connect(self.heatmap.view.set_x_range)
        self._toys = label(
            self.tr("Toy models, trained on an invented language."), "caption", "muted"
        )
        self._toys.setAlignment(Qt.AlignmentFlag.AlignCenter)

        left = column(self.lineup, self.selection, self._toys, grows=1)
        upper = column(self.pages, self.method, self.masks, grows=1)
        # the primary button stays in sight where the rest must scroll
        right = column(scrolled(upper, RIGHT), self.output, grows=0)
        right.setMinimumWidth(RIGHT)
        self.centre = splitter(Qt.Orientation.Vertical, self.heatmap, self.over_layers)
        self.centre.setStretchFactor(0, 3)
        self.centre.setStretchFactor(1, 2)
        self.columns = three_columns(scrolled(left, 250), self.centre, right, LEFT, 900, RIGHT)
        self._row_sizes = {key: list(sizes) for key, sizes in ROWS.items()}
        self._place = "inspect"
        self.centre.setSizes(self._row_sizes[self._place])
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 0, 14, 0)
        outer.addWidget(self.columns)
        desk.project_changed.connect(self._show_toys)
        desk.state_changed.connect(self._show_toys)
        self._show_toys()

    def show_place(self, place: str) -> None:
        """Divide the centre for a place, inspect or merge, as it was divided there before."""
        self._row_sizes = self.row_sizes()
        self._place = place
        self.centre.setSizes(self._row_sizes[place])
        if place == "merge":  # where the ratio curve is dragged
            self.over_layers.choose("profile")

    def row_sizes(self) -> dict[str, list[int]]:
        """Return the heights of the centre's rows by place."""
        return {**self._row_sizes, self._place: self.centre.sizes()}

    def set_row_sizes(self, place: str, sizes: list[int]) -> None:
        """Divide the centre of a place anew."""
        self._row_sizes[place] = sizes
        if place == self._place:
            self.centre.setSizes(sizes)

    def _show_toys(self) -> None:
        self._toys.setVisible(self._desk.is_demo)
