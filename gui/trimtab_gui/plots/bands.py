"""Curves with bands over the layers, and a range of layers that is dragged or moved by keys."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent

from trimtab_gui.plots.profile import ProfileView


class BandsView(ProfileView):
    """Left and Right move the range, with Shift its last column; without one they begin one."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, count = event.key(), len(self.columns)
        if key not in (Qt.Key.Key_Left, Qt.Key.Key_Right) or not count:
            super().keyPressEvent(event)
            return
        step = -1 if key == Qt.Key.Key_Left else 1
        low, high = self.selection
        if low < 0:
            span = (0, 0) if step > 0 else (count - 1, count - 1)
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            span = (low, min(max(high + step, low), count - 1))
        else:
            step = min(max(step, -low), count - 1 - high)
            span = (low + step, high + step)
        if span != self.selection:
            self.selection = span
            self.viewport().update()
            self.selection_changed.emit(*span)
