"""The one screen on which everything that belongs together is seen together."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QSplitter, QVBoxLayout, QWidget

from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.merging import Merging
from trimtab_gui.views.heatmap_card import HeatmapCard
from trimtab_gui.views.lineup_panel import LineupPanel
from trimtab_gui.views.method_panel import MethodPanel
from trimtab_gui.views.output_panel import OutputPanel
from trimtab_gui.views.preview_panel import PreviewPages
from trimtab_gui.views.profile_card import ProfileCard
from trimtab_gui.views.selection_panel import SelectionPanel
from trimtab_gui.widgets import label

LEFT, RIGHT = 264, 322


class Workbench(QWidget):
    """Lineup and selection, heatmap above profile, preview and method and output."""

    add_requested = Signal()

    def __init__(self, desk: Desk, merging: Merging) -> None:
        super().__init__()
        self._desk = desk
        self.lineup = LineupPanel(desk)
        self.selection = SelectionPanel(desk)
        self.heatmap = HeatmapCard(desk)
        self.profile = ProfileCard(desk)
        self.pages = PreviewPages(desk)
        self.preview, self.distance = self.pages.preview, self.pages.distance
        self.method = MethodPanel(desk)
        self.output = OutputPanel(desk, merging)
        self.lineup.add_requested.connect(self.add_requested)
        self.heatmap.view.view_changed.connect(self.profile.view.set_x_range)
        self.profile.view.view_changed.connect(self.heatmap.view.set_x_range)
        self._toys = label(
            self.tr("Toy models, trained on an invented language."), "caption", "muted"
        )
        self._toys.setAlignment(Qt.AlignmentFlag.AlignCenter)

        left = _column(self.lineup, self.selection)
        left_layout = left.layout()
        assert isinstance(left_layout, QVBoxLayout)
        left_layout.setStretch(1, 1)
        left_layout.addWidget(self._toys)
        upper = _column(self.pages, self.method)
        upper_layout = upper.layout()
        assert isinstance(upper_layout, QVBoxLayout)
        upper_layout.setStretch(1, 1)
        # the primary button stays in sight where the rest must scroll
        right = _column(_scrolled(upper, RIGHT), self.output)
        right_layout = right.layout()
        assert isinstance(right_layout, QVBoxLayout)
        right_layout.setStretch(0, 1)
        right.setMinimumWidth(RIGHT)
        self.centre = _splitter(Qt.Orientation.Vertical, self.heatmap, self.profile)
        self.centre.setStretchFactor(0, 3)
        self.centre.setStretchFactor(1, 2)
        self.columns = _splitter(
            Qt.Orientation.Horizontal, _scrolled(left, 250), self.centre, right
        )
        self.columns.setStretchFactor(0, 0)
        self.columns.setStretchFactor(1, 1)
        self.columns.setStretchFactor(2, 0)
        self.columns.setSizes([LEFT, 900, RIGHT])
        self.centre.setSizes([470, 330])
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 0, 14, 0)
        outer.addWidget(self.columns)
        desk.project_changed.connect(self._show_toys)
        desk.state_changed.connect(self._show_toys)
        self._show_toys()

    def _show_toys(self) -> None:
        self._toys.setVisible(self._desk.is_demo)


def _column(*panels: QWidget) -> QWidget:
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(theme.GAP)
    for panel in panels:
        layout.addWidget(panel)
    return column


def _splitter(orientation: Qt.Orientation, *widgets: QWidget) -> QSplitter:
    splitter = QSplitter(orientation)
    splitter.setHandleWidth(theme.GAP)
    splitter.setChildrenCollapsible(False)
    for widget in widgets:
        splitter.addWidget(widget)
    return splitter


def _scrolled(content: QWidget, least: int) -> QScrollArea:
    content.setObjectName("scrolled")
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setWidget(content)
    area.setMinimumWidth(least)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.viewport().setAutoFillBackground(False)
    return area
