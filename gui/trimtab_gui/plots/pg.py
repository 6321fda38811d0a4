"""The typed seam to pyqtgraph: one image item that draws a whole grid of cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyqtgraph
from PySide6.QtWidgets import QGraphicsItem


class _Image(pyqtgraph.ImageItem):  # type: ignore[misc]
    """An image that does not look for a pyqtgraph view around it."""

    def _updateView(self) -> None:
        return


class CellImage:
    """A pyqtgraph ImageItem with one pixel a cell; it lives in an ordinary graphics scene, so that
    pyqtgraph's own menus and mouse handling never come into being."""

    def __init__(self, parent: QGraphicsItem) -> None:
        self._image = _Image(axisOrder="row-major")
        self.item: QGraphicsItem = self._image
        self.item.setParentItem(parent)

    def set_pixels(self, rgba: npt.NDArray[np.uint8]) -> None:
        """Show ``rgba``, uint8 [rows, columns, 4]."""
        self._image.setImage(rgba, autoLevels=False, levels=None)
