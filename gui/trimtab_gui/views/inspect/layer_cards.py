"""Below the heatmap, on its x axis: the profile, the safety layers, or the overlap."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStackedWidget

from trimtab_gui.desk import Desk
from trimtab_gui.looking import Looking
from trimtab_gui.plots import PlotCard, ProfileView
from trimtab_gui.views.inspect.overlap import OverlapCard
from trimtab_gui.views.inspect.safety_layers import SafetyLayersCard
from trimtab_gui.views.profile_card import ProfileCard
from trimtab_gui.widgets.tabs import Tabs


class LayerCards(QStackedWidget):
    """One card at a time; each bears the row of names in its title's place.

    ``view_changed`` carries the range of columns that the shown plot has been moved to.
    """

    view_changed = Signal(float, float)

    def __init__(self, desk: Desk, looking: Looking) -> None:
        super().__init__()
        self.profile = ProfileCard(desk)
        self.layers = SafetyLayersCard(desk, looking.layers)
        self.overlap = OverlapCard(desk, looking)
        self.cards: dict[str, PlotCard] = {
            "profile": self.profile, "layers": self.layers, "overlap": self.overlap,
        }  # fmt: skip
        names = [
            ("profile", self.tr("Profile")),  # a longer name would leave the legend no room
            ("layers", self.layers.title()),
            ("overlap", self.overlap.title()),
        ]
        self.tabs: dict[str, Tabs] = {}
        for key, card in self.cards.items():
            tabs = self.tabs[key] = Tabs(self.tr("What is shown over the layers"), names)
            tabs.set_current(key)
            tabs.chosen.connect(self.choose)
            card.set_heading(tabs)
            self.addWidget(card)
        for view in self._views():
            view.view_changed.connect(self.view_changed)
            view.view_changed.connect(self.set_x_range)

    def _views(self) -> tuple[ProfileView, ...]:
        return self.profile.view, self.layers.view, self.overlap.view

    @property
    def current(self) -> str:
        """The key of the card that is shown."""
        return list(self.cards)[self.currentIndex()]

    def choose(self, key: str) -> None:
        """Show a card; the focus stays on its name."""
        before = self.tabs[self.current]
        focused = any(button.hasFocus() for button in before.buttons.values())
        before.set_current(self.current)
        self.setCurrentWidget(self.cards[key])
        if focused:
            self.tabs[key].buttons[key].setFocus()

    def set_x_range(self, low: float, high: float) -> None:
        """Show a range of columns in all of them, without emitting."""
        for view in self._views():
            view.set_x_range(low, high)
