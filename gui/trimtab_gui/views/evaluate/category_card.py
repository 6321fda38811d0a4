"""What the cards of shares by category have in common: a legend that makes way for their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtGui import QColor, QPainter, QResizeEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from trimtab_gui.plots.card import PlotCard
from trimtab_gui.plots.export import HasTable, Paintable, Table
from trimtab_gui.plots.legend import Legend

#: px of the head that are neither heading, legend nor header widgets: icons, and what is between
_BESIDE = 96


class CategoryCard(PlotCard):
    """The legend stands in the head where there is room, else in a line of its own below it."""

    def __init__(self, plot: QWidget) -> None:
        super().__init__("")
        self._heading: QWidget | None = None
        self._content = _Content(plot)
        self.set_body(self._content)

    def set_heading(self, heading: QWidget) -> None:
        super().set_heading(heading)
        self._heading = heading

    def name_series(
        self, entries: list[tuple[str | QColor, str]], hollow: Sequence[str] = ()
    ) -> None:
        """Name what is drawn; the texts in `hollow` are those of controls."""
        for legend in (self.legend, self._content.legend):
            legend.set_entries(entries, hollow)
        self._place_legend()

    def set_state(
        self,
        state: str,
        message: str = "",
        action: tuple[str, Callable[[], None]] | None = None,
    ) -> None:
        super().set_state(state, message, action)
        self._place_legend()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place_legend()

    def _place_legend(self) -> None:
        ready = self.state() == "ready"
        taken = _BESIDE if self._heading is None else _BESIDE + self._heading.sizeHint().width()
        for i in range(self.header_layout.count()):
            item = self.header_layout.itemAt(i)
            widget = item.widget() if item is not None else None
            if widget is not None and not widget.isHidden():
                taken += max(widget.sizeHint().width(), widget.minimumWidth()) + 8
        fits = taken + self.legend.sizeHint().width() <= self.width()
        self.legend.setVisible(ready and fits)
        self._content.legend.setVisible(ready and not fits)


class _Content(QWidget):
    """A plot with room for a legend above it; a file shows the plot alone."""

    def __init__(self, plot: QWidget) -> None:
        super().__init__()
        self._plot = plot
        self.legend = Legend()
        self.legend.hide()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        rows.addWidget(self.legend)
        rows.addWidget(plot, 1)

    def csv_table(self) -> Table:
        assert isinstance(self._plot, HasTable)
        return self._plot.csv_table()

    def paint_to(self, painter: QPainter, vector: bool) -> None:
        assert isinstance(self._plot, Paintable)
        self._plot.paint_to(painter, vector)
