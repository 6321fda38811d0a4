"""Says in one line what of the recipe has no control of its own; nothing is hidden."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent

from trimtab.merging.recipe import Recipe
from trimtab_gui import theme
from trimtab_gui.theme import icons
from trimtab_gui.views.recipe_summary import summary
from trimtab_gui.widgets.buttons import FocusButton
from trimtab_gui.widgets.formula_popup import formula_popup
from trimtab_gui.widgets.paint import card

_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


class RecipeCard(FocusButton):
    """Slices, towers, tokenizer and chat template; a click tells them in full."""

    def __init__(self) -> None:
        super().__init__()
        self._line = self._details = ""
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.clicked.connect(self.show_details)
        theme.manager().changed.connect(self.update)

    def show_recipe(self, recipe: Recipe) -> None:
        """Show what there is to say, or nothing."""
        self._line, self._details = summary(recipe)
        self.setVisible(bool(self._line))
        self.setAccessibleName(self._line)
        self.setAccessibleDescription(self._details)
        self.setToolTip(self._details)
        self.update()

    def text(self) -> str:
        """Return the line shown."""
        return self._line

    def show_details(self) -> None:
        """Open the details above the card."""
        parts = (self.tr("Also in this recipe"), self._details, "", "", "")
        popup = formula_popup(self, parts)
        popup.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        corner = self.mapToGlobal(self.rect().topRight())
        popup.move(corner.x() - popup.width(), max(corner.y() - popup.height() - 4, 0))
        popup.show()

    def sizeHint(self) -> QSize:
        return QSize(200, 30)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        rect = QRectF(self.rect())
        hot = self.keyboard_focus() or self.underMouse()
        border = theme.color("accent" if hot else "line")
        card(painter, rect, theme.CONTROL_RADIUS, theme.color("card"), border)
        mark = QRectF(rect.left() + 9, rect.center().y() - 7, 14, 14)
        icons.draw(painter, "information-outline", theme.current().muted, mark)
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("text"))
        inner = self.rect().adjusted(30, 0, -9, 0)
        text = painter.fontMetrics().elidedText(
            self._line, Qt.TextElideMode.ElideRight, inner.width()
        )
        painter.drawText(inner, _LEFT, text)
