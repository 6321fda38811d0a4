"""The first thing anyone sees: what Trimtab is for, three places to drop models, the demo."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QMenu, QPushButton, QVBoxLayout, QWidget

from trimtab_gui import texts, theme
from trimtab_gui.desk import Desk
from trimtab_gui.session import Recent
from trimtab_gui.views.device_text import device_texts
from trimtab_gui.widgets import DropSlot, label, primary_button
from trimtab_gui.widgets.buttons import FocusButton, link_button
from trimtab_gui.widgets.paint import card

_WIDTH = 784


class RecentRow(FocusButton):
    """A document that was open: name, folder, day; greyed with Locate when it is gone."""

    locate = Signal()
    forget = Signal()

    def __init__(self, recent: Recent, now: float) -> None:
        super().__init__()
        self.recent = recent
        self.setFixedHeight(34)
        row = QHBoxLayout(self)
        row.setContentsMargins(13, 0, 13, 0)
        row.setSpacing(9)
        tone = "muted" if recent.missing else "text"
        texts_row = [
            label(recent.path.name, "strong", tone),
            label(texts.home_path(recent.path.parent), "caption", "muted"),
        ]
        for part in texts_row:
            row.addWidget(part)
        row.addStretch(1)
        if recent.missing:
            locate = link_button(self.tr("Locate…"))
            locate.setFont(theme.font("caption"))
            locate.setAccessibleName(self.tr("Locate {name}").format(name=recent.path.name))
            locate.clicked.connect(self.locate)
            row.addWidget(label(self.tr("not there"), "caption", "muted"))
            row.addWidget(locate)
        else:
            texts_row.append(label(texts.day(recent.opened, now), "caption", "muted"))
            row.addWidget(texts_row[-1])
        for part in texts_row:
            part.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAccessibleName(self.tr("Open {name}").format(name=recent.path.name))
        self.setAccessibleDescription(str(recent.path))
        self.setToolTip(str(recent.path))
        if not recent.missing:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._menu)
        theme.manager().changed.connect(self.update)

    def _menu(self) -> None:
        menu = QMenu(self)
        menu.addAction(self.tr("Remove from this list"), self.forget.emit)
        menu.popup(self.mapToGlobal(self.rect().center()))

    def paintEvent(self, event: QPaintEvent) -> None:
        tokens = theme.current()
        fill = theme.color("card")
        if self.underMouse() and not self.recent.missing:
            fill = theme.color("line")
            fill.setAlphaF(0.6)
        border = tokens.accent if self.keyboard_focus() else tokens.line
        card(QPainter(self), self.rect().toRectF(), theme.CARD_RADIUS, fill, QColor(border))


class Welcome(QWidget):
    """Signals carry what the visitor asked for; the window decides."""

    demo_requested = Signal()
    open_requested = Signal(object)
    dropped = Signal(object, object)
    recent_requested = Signal(object)
    locate_requested = Signal(object)

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self.slots: dict[str, DropSlot] = {}
        self.recent_rows: list[RecentRow] = []
        outer = QVBoxLayout(self)
        outer.setContentsMargins(14, 0, 14, 0)
        outer.addStretch(3)
        column = QWidget()
        column.setMaximumWidth(_WIDTH)
        column.setMinimumWidth(480)
        self._column = QVBoxLayout(column)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(0)
        centred = QHBoxLayout()
        centred.addStretch(1)
        centred.addWidget(column, 100)
        centred.addStretch(1)
        outer.addLayout(centred)
        outer.addStretch(4)
        self._headline()
        self._slots()
        self._buttons()
        self._recent_title = label(self.tr("Recent"), "caps", "muted")
        self._column.addSpacing(36)
        self._column.addWidget(self._recent_title)
        self._column.addSpacing(8)
        self._recent = QVBoxLayout()
        self._recent.setSpacing(6)
        self._column.addLayout(self._recent)
        foot = QHBoxLayout()
        foot.setContentsMargins(0, 0, 0, 9)
        self._device = label("", "caption", "muted")
        foot.addWidget(self._device)
        foot.addStretch(1)
        hint = self.tr("Ctrl+O open · Ctrl+Shift+P commands · F1 shortcuts")
        foot.addWidget(label(hint, "caption", "muted"))
        outer.addLayout(foot)
        desk.devices_changed.connect(self._show_device)
        self._show_device()
        self.refresh()

    def _headline(self) -> None:
        centre = Qt.AlignmentFlag.AlignCenter
        lines = (
            (self.tr("See what fine-tuning did to a model’s safety."), "hero", "text"),
            (self.tr("Steer it back."), "hero", "text"),
            (self.tr("Drop checkpoints anywhere: a folder, a .safetensors file, an adapter, "
                     "a project."), "body", "muted"),
        )  # fmt: skip
        for text, kind, tone in lines:
            line = label(text, kind, tone)  # type: ignore[arg-type]
            line.setAlignment(centre)
            if kind == "body":
                self._column.addSpacing(10)
            self._column.addWidget(line)
        self._column.addSpacing(26)

    def _slots(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(16)
        for role, title, hint, icon in (
            ("base", self.tr("Base"), self.tr("before alignment"), "cube-outline"),
            ("aligned", self.tr("Aligned"), self.tr("the safe one"), "shield-outline"),
            ("finetuned", self.tr("Fine-tuned"), self.tr("one or more; LoRA welcome"),
             "tune-variant"),
        ):  # fmt: skip
            slot = DropSlot(role, title, hint, icon)
            slot.setFixedHeight(150)
            slot.clicked.connect(lambda _checked=False, r=role: self.open_requested.emit(r))
            slot.dropped.connect(lambda paths, r=role: self.dropped.emit(paths, r))
            self.slots[role] = slot
            row.addWidget(slot)
        self._column.addLayout(row)
        self._column.addSpacing(34)

    def _buttons(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(10)
        self.demo_button = primary_button(self.tr("Try the demo"), "play")
        self.demo_button.setFixedWidth(190)
        self.demo_button.clicked.connect(self.demo_requested)
        self.open_button = QPushButton(self.tr("Open…"))
        self.open_button.setFixedWidth(130)
        theme.bind_icon(self.open_button, "folder-open-outline", "text")
        self.open_button.clicked.connect(lambda: self.open_requested.emit(None))
        row.addStretch(1)
        row.addWidget(self.demo_button)
        row.addWidget(self.open_button)
        row.addStretch(1)
        self._column.addLayout(row)
        self._column.addSpacing(14)
        toys = label(
            self.tr("Toy models, trained on an invented language. No network, no GPU, "
                    "ten seconds."),
            "caption", "muted",
        )  # fmt: skip
        toys.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._column.addWidget(toys)

    def refresh(self) -> None:
        """Show the recent documents as they are now."""
        for row in self.recent_rows:
            self._recent.removeWidget(row)
            row.hide()
            row.deleteLater()
        now = time.time()
        self.recent_rows = [RecentRow(recent, now) for recent in self._desk.session.recent]
        for row in self.recent_rows:
            path = row.recent.path
            row.clicked.connect(lambda _checked=False, p=path: self._open_recent(p))
            row.locate.connect(lambda p=path: self.locate_requested.emit(p))
            row.forget.connect(lambda p=path: self._forget(p))
            self._recent.addWidget(row)
        self._recent_title.setVisible(bool(self.recent_rows))

    def _open_recent(self, path: Path) -> None:
        if path.exists():
            self.recent_requested.emit(path)
        else:
            self.refresh()

    def _forget(self, path: Path) -> None:
        self._desk.session.forget(path)
        # the row's own menu is still open: let it close first
        QTimer.singleShot(0, self, self.refresh)

    def light(self, lit: bool) -> None:
        """Light the slots up while something is dragged over the window."""
        for slot in self.slots.values():
            slot.set_lit(lit)

    def _show_device(self) -> None:
        self._device.setText(" ".join(device_texts(self._desk.devices[0])))
