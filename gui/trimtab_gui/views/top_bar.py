"""The top line of the window: what is open, the places, the device, and four quiet buttons."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QMenu, QToolButton, QWidget

from trimtab_gui import theme
from trimtab_gui.actions import Actions
from trimtab_gui.desk import Desk
from trimtab_gui.places import Places
from trimtab_gui.views.device_text import device_texts
from trimtab_gui.widgets import ElidedLabel, PlacesSwitch, label, quiet_button
from trimtab_gui.widgets.paint import card


class DeviceChip(QWidget):
    """The device that the worker uses."""

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(11, 7, 11, 7)
        row.setSpacing(9)
        self._name = label("", "strong")
        self._facts = label("", "caption", "muted")
        row.addWidget(self._name)
        row.addWidget(self._facts)
        theme.manager().changed.connect(self.update)

    def set_texts(self, name: str, facts: str) -> None:
        """Show a device."""
        self._name.setText(name)
        self._facts.setText(facts)
        self.setAccessibleName(self.tr("Device {name}, {facts}").format(name=name, facts=facts))
        self.setToolTip(self.tr("Where merges are computed"))

    def paintEvent(self, event: QPaintEvent) -> None:
        card(
            QPainter(self), self.rect().toRectF(), theme.CARD_RADIUS,
            theme.color("card"), theme.color("line"),
        )  # fmt: skip


class TopBar(QWidget):
    """Name and document, the places in the middle, device and quiet buttons at the right."""

    def __init__(self, desk: Desk, places: Places) -> None:
        super().__init__()
        self._desk, self._places = desk, places
        grid = QGridLayout(self)
        grid.setContentsMargins(10, 8, 14, 6)
        grid.setHorizontalSpacing(12)
        left = QHBoxLayout()
        left.setSpacing(6)
        self._boat = QToolButton()
        self._boat.setIcon(theme.app_icon())
        self._boat.setIconSize(QSize(20, 20))
        self._boat.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._boat.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        left.addWidget(self._boat)
        left.addWidget(label(self.tr("Trimtab"), "title"))
        self._document = ElidedLabel("", "caption", "muted", Qt.TextElideMode.ElideMiddle)
        self._document.setContentsMargins(4, 2, 0, 0)
        left.addWidget(self._document, 1)
        self.places = PlacesSwitch([(p.key, p.title, p.icon, p.shortcut) for p in places])
        self.places.chosen.connect(places.go)
        places.changed.connect(self.places.set_current)
        self.places.set_current(places.current)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addStretch(1)
        grid.addLayout(left, 0, 0)
        grid.addWidget(self.places, 0, 1)
        grid.addLayout(row, 0, 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(2, 1)
        self.chip = DeviceChip()
        row.addWidget(self.chip)
        self.buttons: dict[str, QToolButton] = {}
        for key, icon, name in (
            ("undo", "undo", self.tr("Undo")),
            ("redo", "redo", self.tr("Redo")),
            ("theme", "theme-light-dark", self.tr("Light or dark")),
        ):
            self.buttons[key] = quiet_button(icon, name)
            row.addWidget(self.buttons[key])
        self.menu_button = quiet_button("dots-horizontal", self.tr("All actions"))
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        row.addWidget(self.menu_button)
        self.setFixedHeight(56)
        desk.state_changed.connect(self.refresh)
        desk.devices_changed.connect(self.refresh)
        self.refresh()

    def bind(self, actions: Actions) -> None:
        """Let the buttons do their actions and fill the menu."""
        for key, button in self.buttons.items():
            actions.bind(button, key)
        menu = QMenu(self.menu_button)
        actions.fill(menu)
        self.menu_button.setMenu(menu)

    def refresh(self) -> None:
        """Bring document and device up to date."""
        shown = not self._desk.empty
        mark = " •" if self._desk.project.dirty else ""
        self._document.setText(f"{self._desk.title}{mark}" if shown else "")
        self.chip.setVisible(shown)
        self.places.setVisible(shown)
        self.chip.set_texts(*device_texts(self._desk.devices[0]))
