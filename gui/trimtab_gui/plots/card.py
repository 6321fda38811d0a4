"""The card of a plot: title, formula, legend, export, and what it says without data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QPoint, QSize, Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from trimtab_gui import theme
from trimtab_gui.plots import export
from trimtab_gui.plots.legend import Legend
from trimtab_gui.widgets.buttons import quiet_button
from trimtab_gui.widgets.formula_popup import formula_popup
from trimtab_gui.widgets.job_bar import ProgressLine
from trimtab_gui.widgets.labels import ElidedLabel, label, set_tone
from trimtab_gui.widgets.panel import Surface

_STATE_ICONS = {"empty": "chart-line", "loading": "chart-line", "error": "alert-circle-outline"}


class PlotCard(Surface):
    """Give it a plot with ``set_body``; ``save_failed`` carries why a file was not written."""

    save_failed = Signal(str)

    def __init__(
        self,
        title: str,
        subtitle: str = "",
        body: QWidget | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        horizontal, vertical = theme.PANEL_PADDING
        outer = QVBoxLayout(self)
        outer.setContentsMargins(horizontal, vertical - 2, horizontal - 4, vertical - 4)
        outer.setSpacing(6)
        self._head = head = QHBoxLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.setSpacing(6)
        self._title = label(title, "title")
        self._subtitle = ElidedLabel(subtitle, "caption", "muted")
        self._info = quiet_button("information-outline", self.tr("What is shown, and the formula"))
        self._info.setIconSize(QSize(14, 14))
        self._info.clicked.connect(self.show_formula)
        self._info.hide()
        self.legend = Legend()
        self.header_layout = QHBoxLayout()
        self.header_layout.setSpacing(8)
        self._menu_button = quiet_button("dots-horizontal", self.tr("Copy or save this plot"))
        self._menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self)
        self._menu_button.setMenu(self.menu)
        self._fill_menu()
        for widget in (self._title, self._info):
            head.addWidget(widget)
        head.addWidget(self._subtitle, 1)
        head.addWidget(self.legend)
        head.addLayout(self.header_layout)
        head.addWidget(self._menu_button)
        outer.addLayout(head)
        self._stack = QStackedWidget()
        self._notice = _Notice()
        self._stack.addWidget(self._notice)
        outer.addWidget(self._stack, 1)
        self._formula: tuple[str, str, str, str, str] = ("", "", "", "", "")
        self._popup: QFrame | None = None
        self._body: QWidget | None = None
        self._state = "empty"
        self.setAccessibleName(title)
        if body is not None:
            self.set_body(body)

    # Content.

    def set_body(self, body: QWidget) -> None:
        """Put a plot onto the card, in place of an earlier one."""
        if self._body is not None:
            self._stack.removeWidget(self._body)
            self._body.deleteLater()
        self._body = body
        self._stack.addWidget(body)
        self.set_state("ready")

    def set_heading(self, heading: QWidget) -> None:
        """Put a widget where the title stands; the card goes on being called by its title."""
        self._title.hide()
        self._head.insertWidget(0, heading)

    def body(self) -> QWidget | None:
        """Return the plot."""
        return self._body

    def set_title(self, title: str, subtitle: str = "") -> None:
        """Change the title and the remark beside it."""
        self._title.setText(title)
        self._subtitle.setText(subtitle)
        self.setAccessibleName(title)

    def title(self) -> str:
        """Return the title."""
        return self._title.text()

    def set_legend(self, entries: list[tuple[str | QColor, str]]) -> None:
        """Name the curves: a token, role or colour, and its text."""
        self.legend.set_entries(entries)

    def set_state(
        self,
        state: str,
        message: str = "",
        action: tuple[str, Callable[[], None]] | None = None,
    ) -> None:
        """Show the plot (ready), or say what will be here (empty), is coming (loading) or failed
        (error), with the one button that helps."""
        if state not in ("empty", "loading", "error", "ready"):
            raise ValueError(state)
        self._state = state
        ready = state == "ready" and self._body is not None
        if ready and self._body is not None:
            self._stack.setCurrentWidget(self._body)
        else:
            self._notice.show_state(state, message, action)
            self._stack.setCurrentWidget(self._notice)
        self._menu_button.setEnabled(ready)
        self.legend.setVisible(ready)

    def state(self) -> str:
        """Return the state shown."""
        return self._state

    def notice(self) -> tuple[str, QPushButton]:
        """Return the message of an empty, loading or error state, and its button."""
        return self._notice.text(), self._notice.button

    # Formula.

    def set_formula(
        self, name: str, sentence: str, formula: str, value_range: str, reference: str
    ) -> None:
        """Set what the (i) tells."""
        self._formula = (name, sentence, formula, value_range, reference)
        self._info.setVisible(any(self._formula))
        self._info.setToolTip(f"{name}: {sentence}" if name else sentence)
        self._info.setAccessibleName(self.tr("About {name}").format(name=name))

    def show_formula(self) -> QFrame:
        """Open the popup with formula and reference below the (i) and return it."""
        if self._popup is not None:
            self._popup.deleteLater()
        self._popup = formula_popup(self, self._formula)
        self._popup.move(self._info.mapToGlobal(QPoint(0, self._info.height() + 4)))
        self._popup.show()
        return self._popup

    # Export.

    def _fill_menu(self) -> None:
        entries: list[tuple[str, str, Callable[[], None]]] = [
            ("content-copy", self.tr("Copy image"), self.copy_image),
            ("image-outline", self.tr("Save PNG (2×) …"), lambda: self._ask("png")),
            ("vector-polyline", self.tr("Save SVG …"), lambda: self._ask("svg")),
            ("file-delimited-outline", self.tr("Save CSV of the full data …"), self._ask_csv),
        ]
        for icon, text, call in entries:
            action = self.menu.addAction(text)
            theme.bind_icon(action, icon)
            action.triggered.connect(lambda _checked=False, call=call: call())

    def copy_image(self) -> None:
        """Put the plot with title and legend on the clipboard."""
        if self._body is not None:
            export.copy_image(self._body, self.title(), self.legend.colours())

    def save(self, path: Path) -> None:
        """Write PNG, SVG or CSV by the suffix; ValueError for another, OSError if it fails."""
        if self._body is None:
            raise ValueError("nothing to save")
        suffix = path.suffix.lower()
        if suffix == ".png":
            export.save_png(path, self._body, self.title(), self.legend.colours())
        elif suffix == ".svg":
            export.save_svg(path, self._body, self.title(), self.legend.colours())
        elif suffix == ".csv" and isinstance(self._body, export.HasTable):
            export.save_csv(path, self._body.csv_table())
        else:
            raise ValueError(suffix)

    def _ask_csv(self) -> None:
        self._ask("csv")

    def _ask(self, suffix: str) -> None:
        name = "".join(c if c.isalnum() else "-" for c in self.title().lower()).strip("-")
        chosen, _ = QFileDialog.getSaveFileName(
            self, self.tr("Save plot"), f"{name}.{suffix}", f"*.{suffix}"
        )
        if not chosen:
            return
        path = Path(chosen)
        if path.suffix.lower() != f".{suffix}":
            path = path.with_name(f"{path.name}.{suffix}")
        try:
            self.save(path)
        except OSError as error:
            self.save_failed.emit(str(error))


class _Notice(QWidget):
    """What stands where a plot will be."""

    def __init__(self) -> None:
        super().__init__()
        outer = QVBoxLayout(self)
        outer.setSpacing(10)
        self._icon = QLabel()
        self._icon.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text = label("", "body", "muted")
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text.setWordWrap(True)
        self._bar = ProgressLine()
        self._bar.setFixedWidth(160)
        self.button = QPushButton()
        self._call: Callable[[], None] | None = None
        self.button.clicked.connect(self._act)
        centre = Qt.AlignmentFlag.AlignHCenter
        outer.addStretch(1)
        outer.addWidget(self._icon)
        outer.addWidget(self._text)
        outer.addWidget(self._bar, 0, centre)
        outer.addWidget(self.button, 0, centre)
        outer.addStretch(1)
        self._state = "empty"
        theme.manager().changed.connect(self._recolour)
        self.show_state("empty", "", None)

    def text(self) -> str:
        return self._text.text()

    def show_state(
        self, state: str, message: str, action: tuple[str, Callable[[], None]] | None
    ) -> None:
        self._state = state
        self._text.setText(message)
        set_tone(self._text, "danger" if state == "error" else "muted")
        self._bar.setVisible(state == "loading")
        self._icon.setVisible(state != "loading")
        self._bar.set_fraction(None if state == "loading" else 0.0)
        self.button.setVisible(action is not None)
        self._call = None
        if action is not None:
            self.button.setText(action[0])
            self._call = action[1]
        self._recolour()

    def _act(self) -> None:
        if self._call is not None:
            self._call()

    def _recolour(self) -> None:
        tone = "danger" if self._state == "error" else "muted"
        mark = theme.icon(_STATE_ICONS.get(self._state, "chart-line"), tone)
        self._icon.setPixmap(mark.pixmap(QSize(28, 28), self.devicePixelRatioF()))
