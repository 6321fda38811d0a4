"""The seed of random masks: typed, or thrown anew."""

from __future__ import annotations

import secrets

from PySide6.QtGui import QIntValidator
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from trimtab.project.edits import set_seed
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.widgets import label, quiet_button

_HIGHEST = 2**31 - 1
_THROWN = 10_000


class SeedRow(QWidget):
    """The same seed gives the same masks, on any machine and device."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        tip = self.tr("Decides which entries are dropped: the same seed gives the same model.")
        self.field = QLineEdit()
        self.field.setValidator(QIntValidator(0, _HIGHEST, self.field))
        self.field.setAccessibleName(self.tr("Seed"))
        self.field.setFont(theme.font("number"))
        self.field.setFixedWidth(104)
        self.field.setToolTip(tip)
        self.field.editingFinished.connect(self._typed)
        self.dice = quiet_button("dice-5-outline", self.tr("Another seed"))
        self.dice.clicked.connect(self.throw)
        name = label(self.tr("Seed"))
        name.setToolTip(tip)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(name, 1)
        row.addWidget(self.field)
        row.addWidget(self.dice)

    def show_seed(self, seed: int) -> None:
        """Show the recipe's seed."""
        if self.field.text() != str(seed):
            self.field.setText(str(seed))

    def throw(self) -> None:
        """Take another seed by chance, a short one that can be told to somebody."""
        seed = self._desk.recipe.seed
        while seed == self._desk.recipe.seed:
            seed = secrets.randbelow(_THROWN)
        self._desk.edit(set_seed(self._desk.recipe, seed))

    def _typed(self) -> None:
        if self.field.text():
            self._desk.edit(set_seed(self._desk.recipe, int(self.field.text())))
        else:
            self.show_seed(self._desk.recipe.seed)
