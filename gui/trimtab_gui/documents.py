"""Opening, saving and leaving documents, with the questions that belong to it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QMessageBox, QWidget

from trimtab.checkpoints import Role
from trimtab.errors import UserError
from trimtab.merging.mergekit_export import from_recipe
from trimtab.merging.recipe import is_recipe
from trimtab.project import Project
from trimtab_gui.demo import demo_project
from trimtab_gui.desk import Desk
from trimtab_gui.merging import AUTO, Merging, opener
from trimtab_gui.notices import Notice


class Documents(QObject):
    """What the file menu does; `saved` follows each save, `saved_at` in seconds since 1970."""

    saved = Signal()

    def __init__(self, desk: Desk, merging: Merging, window: QWidget) -> None:
        super().__init__(window)
        self._desk, self._merging, self._window = desk, merging, window
        self.saved_at: float | None = None

    def open_demo(self) -> None:
        """Open the demo lineup."""
        if not self.may_leave():
            return
        self._desk.set_project(demo_project())
        self._desk.is_demo = True
        self._desk.state_changed.emit()
        self._merging.changed.emit()

    def choose_files(self) -> None:
        """Ask for a project or weight files."""
        self.choose_for(None)

    def choose_for(self, role: Role | None) -> None:
        """Ask for a model's folder to play a part, or for files when the part is open."""
        if role is not None:
            self._choose_folder(role)
            return
        names, _ = QFileDialog.getOpenFileNames(
            self._window,
            self.tr("Open a project or models"),
            self._last_folder(),
            self.tr("Projects and models (*.trim *.yaml *.yml *.safetensors *.json);;All (*)"),
        )
        if names:
            self.open_paths([Path(name) for name in names])

    def choose_model_folder(self) -> None:
        """Ask for the folder of a model."""
        self._choose_folder(None)

    def _choose_folder(self, role: Role | None) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self._window, self.tr("Open a model folder"), self._last_folder()
        )
        if chosen:
            self.open_paths([Path(chosen)], role)

    def _last_folder(self) -> str:
        return str(self._desk.session.get("folder", str(Path.home())))

    def open_paths(self, paths: list[Path], role: Role | None = None) -> None:
        """Open projects or models as if they had been dropped."""
        self._desk.session.set("folder", str(paths[0].absolute().parent))
        if any(is_recipe(path) for path in paths) and not self.may_leave():
            return
        self._desk.open_paths([path.absolute() for path in paths], role)

    def save(self) -> bool:
        """Save the project, asking for a place when it has none."""
        path = self._desk.project.path
        if path is None:
            return self.save_as()
        return self._save_to(path)

    def save_as(self) -> bool:
        """Ask where to save the project, and save it."""
        suggested = str(Path(self._last_folder()) / "project.trim")
        chosen, _ = QFileDialog.getSaveFileName(
            self._window, self.tr("Save project"), suggested, self.tr("Projects (*.trim)")
        )
        if not chosen:
            return False
        path = Path(chosen)
        return self._save_to(path if is_recipe(path) else path.with_name(path.name + ".trim"))

    def _save_to(self, path: Path) -> bool:
        if not self._desk.save(path):
            return False
        self._desk.is_demo = False
        self.saved_at = time.time()
        self.saved.emit()
        return True

    def export_mergekit(self) -> None:
        """Ask where to save the recipe in mergekit's form, and save it."""
        suggested = str(Path(self._last_folder()) / "mergekit.yaml")
        chosen, _ = QFileDialog.getSaveFileName(
            self._window, self.tr("Export mergekit YAML"), suggested, "*.yaml *.yml"
        )
        if chosen:
            path = Path(chosen)
            self.export_mergekit_to(path if path.suffix else path.with_name(f"{path.name}.yaml"))

    def export_mergekit_to(self, path: Path) -> bool:
        """Save the recipe in mergekit's form; what it cannot say is told in place."""
        lineup = self._desk.lineup
        try:
            text = from_recipe(self._desk.recipe, lineup.names if lineup is not None else ())
            path.write_text(text, encoding="utf-8")
        except UserError as error:
            self._desk.notice.emit(Notice.of(error, topic="export"))
            return False
        except OSError as error:
            self._desk.notice.emit(
                Notice(
                    "error",
                    self.tr("{name} could not be written.").format(name=path.name),
                    self.tr("The system says: {why}.").format(why=error.strerror),
                    self.tr("Choose another folder."),
                    topic="export",
                )
            )
            return False
        self._desk.notice.emit(
            Notice(
                "ok", self.tr("Exported {name}").format(name=path.name),
                actions=((self.tr("Open folder"), opener(path.parent)),), topic="export",
            )
        )  # fmt: skip
        return True

    def close_project(self) -> None:
        """Go back to the welcome page."""
        if self.may_leave():
            self._desk.set_project(Project())

    def locate(self, missing: Path) -> None:
        """Ask where a recent document has gone, and open it there."""
        question = self.tr("Where is {name} now?").format(name=missing.name)
        chosen, _ = QFileDialog.getOpenFileName(self._window, question, str(Path.home()))
        if chosen:
            self._desk.session.relocate(missing, Path(chosen))
            self._desk.open_project(Path(chosen))

    def may_leave(self) -> bool:
        """Ask to save what would be lost; False when the answer is to stay."""
        if self._desk.empty or not self._desk.project.dirty or self._desk.is_demo:
            return True
        box = QMessageBox(self._window)
        box.setWindowTitle("Trimtab")
        box.setText(self.tr("Save the changes to {name}?").format(name=self._desk.project.title))
        buttons = QMessageBox.StandardButton
        box.setStandardButtons(buttons.Save | buttons.Discard | buttons.Cancel)
        box.setDefaultButton(buttons.Save)
        answer = box.exec()
        box.deleteLater()
        if answer == buttons.Save:
            return self.save()
        if answer == buttons.Discard:
            self._desk.session.drop_recovery()
        return answer == buttons.Discard

    def may_interrupt(self) -> bool:
        """Ask before a running merge is interrupted."""
        if not self._merging.running:
            return True
        box = QMessageBox(self._window)
        box.setWindowTitle("Trimtab")
        box.setText(self.tr("A merge is running. Leave all the same?"))
        box.setInformativeText(self.tr("What is written is kept; the next start offers to go on."))
        leave = box.addButton(self.tr("Leave"), QMessageBox.ButtonRole.AcceptRole)
        box.addButton(self.tr("Stay"), QMessageBox.ButtonRole.RejectRole)
        box.exec()
        chosen = box.clickedButton() is leave
        box.deleteLater()
        return chosen

    def copy_command(self) -> None:
        """Copy the command that does the same merge; an unsaved recipe is saved first."""
        if (self._desk.project.path is None or self._desk.project.dirty) and not self.save():
            return
        recipe, output = str(self._desk.project.path), str(self._merging.output)
        command = f"trimtab merge {shlex.quote(recipe)} -o {shlex.quote(output)}"
        if self._merging.device != AUTO:
            command += f" --device {self._merging.device}"
        if self._merging.memory is not None:
            command += f" --memory {self._merging.memory / 10**9:g}GB"
        QGuiApplication.clipboard().setText(command)
        self._desk.notice.emit(
            Notice("ok", self.tr("The command is on the clipboard."), command, topic="command")
        )
