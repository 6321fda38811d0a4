"""How the screens of the window are laid out: columns that can be resized and scrolled."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QScrollArea, QSplitter, QVBoxLayout, QWidget

from trimtab_gui import theme


def column(*panels: QWidget, grows: int) -> QWidget:
    """Put panels below each other; the one numbered `grows` takes the room that is left."""
    result = QWidget()
    layout = QVBoxLayout(result)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(theme.GAP)
    for panel in panels:
        layout.addWidget(panel)
    layout.setStretch(grows, 1)
    return result


def splitter(orientation: Qt.Orientation, *widgets: QWidget) -> QSplitter:
    """Put widgets side by side, or below each other, with borders that can be dragged."""
    result = QSplitter(orientation)
    result.setHandleWidth(theme.GAP)
    result.setChildrenCollapsible(False)
    for widget in widgets:
        result.addWidget(widget)
    return result


def three_columns(left: QWidget, middle: QWidget, right: QWidget, *sizes: int) -> QSplitter:
    """Put three columns side by side, `sizes` px wide; the middle one takes the room there is."""
    result = splitter(Qt.Orientation.Horizontal, left, middle, right)
    for place, stretch in enumerate((0, 1, 0)):
        result.setStretchFactor(place, stretch)
    result.setSizes(list(sizes))
    return result


def scrolled(content: QWidget, least: int) -> QScrollArea:
    """Let a column scroll where the window is too low for it; never narrower than `least` px."""
    content.setObjectName("scrolled")
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setWidget(content)
    area.setMinimumWidth(least)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.viewport().setAutoFillBackground(False)
    return area
