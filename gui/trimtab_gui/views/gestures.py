"""Makes undoable edits of what a hand does to sliders: one gesture, one step."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication

from trimtab.project import Edit
from trimtab_gui.desk import Desk
from trimtab_gui.undo import gesture
from trimtab_gui.widgets import RatioSlider

# a key pressed again within this time belongs to the same undo step
RUN_ON_S = 0.8


class Gestures:
    """Presses of a key in quick succession are one gesture; each drag is one of its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._key = ""
        self._last_key = ""
        self._last_end = 0.0
        self._last_slider: RatioSlider | None = None

    def connect(self, slider: RatioSlider, make: Callable[[float, str], Edit]) -> None:
        """Let `make(value, key)` give the edit for each move of a slider."""
        slider.drag_started.connect(partial(self._started, slider))
        slider.value_moved.connect(
            lambda value: self._desk.edit(make(value, self._key or gesture("slider")))
        )
        slider.drag_finished.connect(self._finished)

    def _started(self, slider: RatioSlider) -> None:
        by_key = QGuiApplication.mouseButtons() == Qt.MouseButton.NoButton
        soon = time.monotonic() - self._last_end < RUN_ON_S
        run_on = by_key and soon and slider is self._last_slider
        self._key = self._last_key if run_on else gesture("slider")
        self._last_slider = slider

    def _finished(self) -> None:
        self._last_key, self._last_end = self._key, time.monotonic()
        self._key = ""


def show_value(slider: RatioSlider, value: float) -> None:
    """Show a value unless it is shown already."""
    if slider.value() != value:
        slider.set_value(value)
