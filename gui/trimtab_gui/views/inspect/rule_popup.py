"""Selects by a rule: layers from a to b, modules, and names of tensors with * for anything."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QIntValidator, QKeyEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from trimtab.masks.entries import Rule
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.joining import join
from trimtab_gui.views.columns import scrolled
from trimtab_gui.views.inspect.how_row import HowRow
from trimtab_gui.widgets import label, primary_button
from trimtab_gui.widgets.panel import Surface

_WIDTH = 330
_MODULES_A_ROW = 4
_MOST_HEIGHT = 140


class RulePopup(QFrame):
    """All that is filled in must hold; Enter selects, Esc leaves."""

    def __init__(self, desk: Desk, button: QWidget) -> None:
        super().__init__(button, Qt.WindowType.Popup)
        self._desk, self._button = desk, button
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAccessibleName(self.tr("Select by a rule"))
        self.setFixedWidth(_WIDTH)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        surface = Surface()
        whole.addWidget(surface)
        rows = QVBoxLayout(surface)
        rows.setContentsMargins(14, 12, 14, 12)
        rows.setSpacing(8)
        rows.addWidget(label(self.tr("Select by a rule"), "title"))
        self.first = self._field(self.tr("First layer"), self.tr("first"))
        self.last = self._field(self.tr("Last layer"), self.tr("last"))
        for field in (self.first, self.last):
            field.setValidator(QIntValidator(0, 9999, field))
        line = QHBoxLayout()
        for widget in (label(self.tr("layers"), "caption", "muted"), self.first,
                       label(self.tr("to"), "caption", "muted"), self.last):  # fmt: skip
            line.addWidget(widget)
        rows.addLayout(line)
        rows.addWidget(label(self.tr("modules; none marked is all of them"), "caption", "muted"))
        self.modules: dict[str, QCheckBox] = {}
        rows.addWidget(self._module_boxes())
        rows.addWidget(label(self.tr("names, with * for anything"), "caption", "muted"))
        self.pattern = self._field(self.tr("Names of tensors"), "*.mlp.*")
        rows.addWidget(self.pattern)
        self.count = label("", "caption", "muted")
        self.count.setWordWrap(True)
        rows.addWidget(self.count)
        self.how = HowRow(desk)
        self.how.setVisible(bool(desk.selection.current))
        rows.addWidget(self.how)
        self.select = primary_button(self._verb())
        self.select.clicked.connect(self.apply)
        desk.selection.how_changed.connect(self._say_how)
        rows.addWidget(self.select)
        self._update()

    def _verb(self) -> str:
        bus = self._desk.selection
        return {
            "replace": self.tr("Select"),
            "union": self.tr("Add to the selection"),
            "intersect": self.tr("Keep what is selected and fits"),
            "difference": self.tr("Take from the selection"),
        }[bus.how if bus.current else "replace"]

    def _say_how(self) -> None:
        self.select.setText(self._verb())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # a field that must hold a number says nothing of Enter while it is empty
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.apply()
        else:
            super().keyPressEvent(event)

    def _field(self, name: str, hint: str) -> QLineEdit:
        field = QLineEdit()
        field.setAccessibleName(name)
        field.setPlaceholderText(hint)
        field.textChanged.connect(self._update)
        return field

    def _module_boxes(self) -> QWidget:
        figures = self._desk.figures
        inside = QWidget()
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        names = [row for row in figures.grid.rows if row] if figures is not None else []
        for i, name in enumerate(names):
            box = QCheckBox(name)
            box.toggled.connect(self._update)
            self.modules[name] = box
            grid.addWidget(box, i // _MODULES_A_ROW, i % _MODULES_A_ROW)
        area = scrolled(inside, 100)
        area.setFixedHeight(min(inside.sizeHint().height() + 2, _MOST_HEIGHT))
        return area

    def open_below(self) -> None:
        """Open under the button, inside the screen."""
        self.adjustSize()
        room = self._button.screen().availableGeometry()
        corner = self._button.mapToGlobal(QPoint(0, self._button.height() + 4))
        x = min(max(corner.x(), room.left()), room.right() - self.width())
        y = min(corner.y(), room.bottom() - self.height())
        self.move(x, max(y, room.top()))
        self.show()
        self.first.setFocus()

    def rule(self) -> Rule | None:
        """Return what is filled in; None when nothing is, or the layers are the wrong way round."""
        first, last, names = self.first.text(), self.last.text(), self.pattern.text().strip()
        modules = tuple(name for name, box in self.modules.items() if box.isChecked())
        layers = None
        if first or last:
            low, high = int(first or 0), int(last or 9999)
            if low > high:
                return None
            layers = (low, high)
        if layers is None and not modules and not names:
            return None
        return Rule(layers=layers, modules=modules, tensors=names)

    def groups(self) -> tuple[int, ...]:
        """Return the groups of the grid that have a tensor for which the rule holds."""
        figures, rule = self._desk.figures, self.rule()
        if figures is None or rule is None:
            return ()
        hit = np.array([rule.matches(name) for name in figures.tensors.names], dtype=np.bool_)
        return tuple(int(g) for g in np.unique(figures.grid.group_of[hit]))

    def apply(self) -> None:
        """Select what the rule says, or join it with the selection, and close."""
        groups, figures = self.groups(), self._desk.figures
        if not groups or figures is None:
            return
        join(self._desk, groups, self._desk.selection.how)
        self.close()

    def _update(self) -> None:
        groups, figures = self.groups(), self._desk.figures
        self.select.setEnabled(bool(groups))
        if figures is None or not groups:
            empty = self.rule() is None and not (self.first.text() and self.last.text())
            nothing = self.tr("Nothing fits.")
            self.count.setText(self.tr("Fill in one of them or more.") if empty else nothing)
            return
        numel = int(figures.groups.numel[list(groups)].sum())
        self.count.setText(
            self.tr("{cells} cells · {parameters} parameters").format(
                cells=len(groups), parameters=texts.count(numel)
            )
        )
