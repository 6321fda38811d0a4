"""The window: welcome or one of the places, with top bar, notices and job bar around them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QSize, Qt, QTimer
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QKeyEvent,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QApplication,
    QMainWindow,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from trimtab.checkpoints import Role
from trimtab.masks.file import SUFFIX
from trimtab.project import Project
from trimtab_gui import texts, theme
from trimtab_gui.actions import Actions
from trimtab_gui.actions.declared import declare
from trimtab_gui.desk import Desk
from trimtab_gui.dialogs.palette import Palette
from trimtab_gui.dialogs.sheets import About, Shortcuts, TextSheet
from trimtab_gui.documents import Documents
from trimtab_gui.job_display import JobDisplay
from trimtab_gui.merging import Merging
from trimtab_gui.notices import Notice
from trimtab_gui.pages import Pages
from trimtab_gui.places import Places
from trimtab_gui.planning import Planning
from trimtab_gui.views.banners import Banners
from trimtab_gui.views.top_bar import TopBar
from trimtab_gui.views.welcome import Welcome
from trimtab_gui.widgets import JobBar

if TYPE_CHECKING:
    from trimtab_gui.evaluating import Evaluating
    from trimtab_gui.views.evaluate.place import EvaluatePlace
    from trimtab_gui.views.workbench import Workbench

_STATUS_TICK_MS = 1000
_FRAME = 40  # px: what a window manager puts above a window, at most


class MainWindow(QMainWindow):
    """Puts the parts together; what they do is in `Desk`, `Merging` and the views."""

    def __init__(self, desk: Desk | None = None) -> None:
        super().__init__()
        self.desk = desk or Desk()
        self.desk.setParent(self)
        self.merging = Merging(self.desk, self)
        self.documents = Documents(self.desk, self.merging, self)
        self.planning = Planning(self.desk, self.merging, self)
        self.setAcceptDrops(True)
        self.setWindowTitle("Trimtab[*]")
        self.setMinimumSize(QSize(1080, 680))
        self.resize(1480, 920)
        root = QWidget()
        root.setObjectName("root")
        outer = QVBoxLayout(root)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        self.banners = Banners()
        self.pages = QStackedWidget()
        self.screens = Pages(self.desk, self.merging, self.pages)
        self.places = Places(self.screens.places(), self.pages, self.desk.session, self)
        self.top = TopBar(self.desk, self.places)
        self.welcome = Welcome(self.desk)
        self.pages.addWidget(self.welcome)
        self.job_bar = JobBar()
        self.job_display = JobDisplay(self.desk.jobs, self.job_bar, self)
        for widget in (self.top, self.banners):
            outer.addWidget(widget)
        outer.addWidget(self.pages, 1)
        outer.addWidget(self.job_bar)
        self.setCentralWidget(root)
        self.actions_ = Actions(self, declare(self))
        self.top.bind(self.actions_)
        self._closed = False
        self._clock = QTimer(self)
        self._clock.setInterval(_STATUS_TICK_MS)
        self._clock.timeout.connect(self._show_status)
        self._connect()
        self._restore()
        self._show_page()
        self._refresh()

    def _connect(self) -> None:
        desk, welcome = self.desk, self.welcome
        desk.state_changed.connect(self._refresh)
        desk.lineup_changed.connect(self._show_page)
        desk.figures_changed.connect(self._refresh)
        desk.recipe_changed.connect(self._show_page)
        desk.notice.connect(self.banners.show_notice)
        desk.withdrawn.connect(self.banners.withdraw)
        desk.selection.changed.connect(lambda *_: self.actions_.refresh())
        self.merging.changed.connect(self._refresh)
        self.documents.saved.connect(self._refresh)
        self.job_display.notice.connect(self.banners.show_notice)
        self.job_display.withdrawn.connect(self.banners.withdraw)
        self.screens.asked.connect(self._asked)
        self.screens.changed.connect(self.actions_.refresh)
        self.screens.add_requested.connect(self.documents.choose_model_folder)
        self.screens.plot_not_saved.connect(self._plot_not_saved)
        welcome.demo_requested.connect(self.documents.open_demo)
        welcome.open_requested.connect(self.documents.choose_for)
        welcome.dropped.connect(self._dropped)
        welcome.recent_requested.connect(desk.open_project)
        welcome.locate_requested.connect(self.documents.locate)

    # Pages.

    @property
    def workbench(self) -> Workbench:
        """The screen that Inspect and Merge share."""
        return self.screens.workbench

    @property
    def evaluate(self) -> EvaluatePlace:
        """The screen of Evaluate."""
        return self.screens.evaluate

    @property
    def evaluating(self) -> Evaluating:
        """What the Evaluate place asks, and what came out."""
        return self.screens.evaluating

    def _show_page(self) -> None:
        if self.desk.empty:
            self.welcome.refresh()
            self.pages.setCurrentWidget(self.welcome)
            self.job_bar.setVisible(False)
        else:
            self.places.show()
            self.job_bar.setVisible(True)

    def _refresh(self) -> None:
        self.actions_.refresh()
        title = self.desk.title
        self.setWindowTitle("Trimtab[*]" if self.desk.empty else f"{title}[*] — Trimtab")
        self.setWindowModified(self.desk.project.dirty and not self.desk.empty)
        if self.desk.project.dirty or self.documents.saved_at is None:
            self._clock.stop()
        elif not self._closed:
            self._clock.start()
        self._show_status()

    def _show_status(self) -> None:
        text = ""
        saved_at = self.documents.saved_at
        if self.desk.project.path is not None and not self.desk.project.dirty:
            if saved_at is not None:
                text = self.tr("saved {ago}").format(ago=texts.ago(time.time() - saved_at))
        elif self.desk.project.dirty and not self.desk.empty and not self.desk.is_demo:
            text = self.tr("not saved")
        self.job_bar.status.setText(text)

    # Actions of the other menus.

    def _asked(self, action: str) -> None:
        self.actions_.run(action)

    def evaluate_obstacle(self) -> str | None:
        """Say why no evaluation can begin now; None when one can."""
        if self.desk.lineup is None:
            return self.tr("Open models first.")
        evaluating = self.screens.evaluating_so_far
        return None if evaluating is None else evaluating.obstacle()

    def start_evaluation(self) -> None:
        """Go where its results will be, and begin."""
        self.places.go("evaluate")
        self.evaluating.start()

    def show_provenance(self) -> TextSheet:
        """Show what the numbers of the Evaluate place rest on, and what they do not show."""
        from trimtab_gui.provenance import provenance_text

        text = provenance_text(self.evaluating)
        sheet = TextSheet(self.tr("Provenance and limits"), text, self)
        sheet.open()
        return sheet

    def show_decisions(self) -> None:
        """Show what can be decided on the results of the Evaluate place, and the log."""
        self.places.go("evaluate")
        self.evaluate.show_decisions()

    def export_heatmap(self) -> None:
        """Save the heatmap as a picture or table."""
        card = self.workbench.heatmap
        card.menu.popup(card.mapToGlobal(card.rect().center()))

    def export_profile(self) -> None:
        """Save the profile as a picture or table."""
        self.workbench.over_layers.choose("profile")
        card = self.workbench.profile
        card.menu.popup(card.mapToGlobal(card.rect().center()))

    def _plot_not_saved(self, why: str) -> None:
        what = self.tr("The plot could not be saved.")
        fix = self.tr("Choose another folder.")
        self.banners.show_notice(Notice("error", what, why, fix, topic="plot"))

    def clear_selection(self) -> None:
        """Select nothing."""
        self.desk.selection.clear()

    def choose_method(self) -> None:
        """Open the list of merge methods."""
        self.workbench.method.method.open()

    def add_mask(self) -> None:
        """Ask for a mask file for the active model."""
        self.workbench.masks.choose_file()

    def choose_output(self) -> None:
        """Ask for the output folder."""
        self.workbench.output.choose_folder()

    def fit(self) -> None:
        """Show everything in both plots."""
        self.workbench.heatmap.view.fit()
        self.workbench.profile.view.fit()

    def toggle_theme(self) -> None:
        """Change from dark to light or back."""
        self.set_theme("light" if theme.current().scheme == "dark" else "dark")

    def set_theme(self, mode: theme.Mode) -> None:
        """Use a theme, and remember it."""
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, mode)
        self.desk.session.set("theme", mode)
        self.actions_.refresh()

    def show_palette(self) -> Palette:
        """Open the command palette."""
        palette = Palette(self.actions_, self)
        palette.popup()
        return palette

    def show_shortcuts(self) -> Shortcuts:
        """Open the sheet of shortcuts."""
        sheet = Shortcuts(self.actions_, self)
        sheet.open()
        return sheet

    def show_about(self) -> About:
        """Say what this is."""
        sheet = About(self)
        sheet.open()
        return sheet

    def show_doctor(self) -> TextSheet:
        """Examine the machine and show the findings."""
        from trimtab.doctor import diagnose

        sheet = TextSheet(self.tr("Doctor"), self.tr("Looking at this machine …"), self)
        sheet.open()

        def show(text: str) -> None:
            if sheet in self.findChildren(TextSheet):
                sheet.set_text(text)

        def failed(error: Exception) -> None:
            show(str(error))

        self.desk.background.submit("doctor", lambda: diagnose().to_text(), show, failed)
        return sheet

    # Drag and drop.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()
            self.welcome.light(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.welcome.light(False)

    def dropEvent(self, event: QDropEvent) -> None:
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        event.acceptProposedAction()
        self._dropped(paths, None)

    def _dropped(self, paths: list[Path], role: Role | None) -> None:
        self.welcome.light(False)
        masks = [path for path in paths if path.name.endswith(SUFFIX)]
        for path in masks:
            self.workbench.masks.add_file(path)
        rest = [path for path in paths if path not in masks]
        if rest:
            self.documents.open_paths(rest, role)

    # Beginning and end.

    def fit_screen(self) -> None:
        """Fill a screen that the window and its frame would not fit on."""
        room = self.screen().availableSize() - QSize(0, _FRAME)
        small = self.minimumSize().boundedTo(room)
        self.setMinimumSize(small)
        if not self.isMaximized() and self.size() != self.size().boundedTo(room):
            self.resize(self.size().boundedTo(room))
            self.setWindowState(self.windowState() | Qt.WindowState.WindowMaximized)

    def warm_up(self) -> None:
        """Start the worker and offer what an earlier window left unfinished."""
        self.desk.ask_devices()
        self.merging.offer_unfinished()
        found = self.desk.session.recovered
        if found is None:
            return

        def restore() -> None:
            self.banners.withdraw("recovery")
            project = Project(found.recipe, found.path, saved=False)
            self.desk.set_project(project)

        def drop() -> None:
            self.banners.withdraw("recovery")
            self.desk.session.drop_recovery()

        self.banners.show_notice(
            Notice(
                "info",
                self.tr("Unsaved work was found."),
                self.tr("The last window ended before it was saved."),
                actions=((self.tr("Restore"), restore), (self.tr("Discard"), drop)),
                topic="recovery",
            )
        )

    def close_window(self) -> None:
        """Close the window as its own button does."""
        self.close()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # no window-wide shortcut: a field that is being edited must get its Esc first
        if event.key() == Qt.Key.Key_Escape:
            self.clear_selection()
        else:
            super().keyPressEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.setFocus(Qt.FocusReason.OtherFocusReason)

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.documents.may_leave() or not self.documents.may_interrupt():
            event.ignore()
            return
        self.shut_down()
        event.accept()

    def shut_down(self) -> None:
        """Remember the layout and let everything that runs end; asks nothing."""
        if self._closed:
            return
        self._closed = True
        self._clock.stop()
        self._remember()
        self.job_display.stop()
        self.merging.interrupt()
        self.desk.close(keep_recovery=self.banners.banner("recovery") is not None)

    def _remember(self) -> None:
        geometry = bytes(self.saveGeometry().toBase64().data()).decode()
        self.desk.session.set("geometry", geometry)
        self.screens.close()

    def _restore(self) -> None:
        geometry = self.desk.session.get("geometry")
        if isinstance(geometry, str):
            self.restoreGeometry(QByteArray.fromBase64(geometry.encode()))
