"""What is open in the window and what can be done with it, without a single widget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.checkpoints import Lineup, Role
from trimtab.device import cpu_device
from trimtab.errors import UserError
from trimtab.inspection.result import Inspection
from trimtab.merging.recipe import Recipe, is_recipe, open_lineup
from trimtab.project import Edit, Project
from trimtab_gui import remarks
from trimtab_gui.background import Background
from trimtab_gui.catalogue import Catalogue
from trimtab_gui.figures import Figures
from trimtab_gui.jobs import Job, JobController
from trimtab_gui.notices import Notice
from trimtab_gui.opening import add_models, load_project
from trimtab_gui.outlook import ForesightMixin, Outlook
from trimtab_gui.selection import SelectionBus
from trimtab_gui.session import Session
from trimtab_gui.undo import History

AUTOSAVE_MS = 2000


class Desk(ForesightMixin, QObject):
    """The open project with its history, selection, jobs and what was computed of it.

    Views listen to these signals and never to each other; they change things through `edit` and
    the other methods here.
    """

    project_changed = Signal()
    recipe_changed = Signal()
    lineup_changed = Signal()
    figures_changed = Signal()
    active_changed = Signal(int)
    state_changed = Signal()
    devices_changed = Signal()
    methods_changed = Signal()
    figures_moved = Signal()
    notice = Signal(object)
    withdrawn = Signal(str)

    def __init__(
        self,
        session: Session | None = None,
        jobs: JobController | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.session = session or Session()
        self.jobs = jobs or JobController()
        self.jobs.setParent(self)
        self.selection = SelectionBus(self)
        self.history = History(self)
        self.background = Background(self)
        self.project = Project()
        self.figures: Figures | None = None
        self.lineup_error: UserError | None = None
        self.inspection_error: UserError | None = None
        self._outlook = Outlook(self.background, self)
        self._outlook.arrived.connect(self._outlook_arrived)
        self.origin: Path | None = None
        self.devices: list[dict[str, Any]] = [asdict(cpu_device())]
        self.is_demo = False
        self._active = 0
        self._inspecting: Job | None = None
        self._openings = count(1)
        self._autosave = QTimer(self)
        self._autosave.setSingleShot(True)
        self._autosave.setInterval(AUTOSAVE_MS)
        self._autosave.timeout.connect(self._write_recovery)
        self.history.indexChanged.connect(self.state_changed)
        self.jobs.finished.connect(self._job_finished)
        self.jobs.failed.connect(self._job_failed)
        self._listen()

    # What is open.

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands."""
        return self.project.recipe

    @property
    def lineup(self) -> Lineup | None:
        """The opened lineup, None while there is none."""
        return self.project.lineup

    @property
    def title(self) -> str:
        """The document's name as the window shows it."""
        if self.is_demo:
            return self.tr("demo")
        # what was imported has no file of its own yet, and is called after where it came from
        imported = self.origin is not None and self.project.path is None
        return self.origin.name if imported and self.origin else self.project.title

    @property
    def reference_word(self) -> str:
        """What curves call the model that task vectors start from."""
        has_aligned = self.recipe.aligned is not None
        return self.tr("aligned") if has_aligned else self.tr("base")

    @property
    def empty(self) -> bool:
        """Whether no model has been opened."""
        recipe = self.recipe
        return recipe.base is None and recipe.aligned is None and not recipe.finetuned

    @property
    def opening(self) -> bool:
        """Whether the models' headers are being read."""
        return not self.empty and self.lineup is None and self.lineup_error is None

    @property
    def inspecting(self) -> bool:
        """Whether an inspection is under way."""
        return self._inspecting is not None

    @property
    def active(self) -> int:
        """The fine-tuned model that heatmap, curve and sliders speak of; -1 without any."""
        return min(self._active, len(self.recipe.finetuned) - 1)

    def set_active(self, index: int) -> None:
        """Choose the fine-tuned model that the views speak of."""
        if index != self._active and 0 <= index < len(self.recipe.finetuned):
            self._active = index
            self.active_changed.emit(index)

    def name(self, index: int) -> str:
        """Return the name of a fine-tuned model."""
        model = self.recipe.finetuned[index]
        return model.name or Path(model.path).name

    # Projects.

    def _listen(self) -> None:
        project = self.project
        project.recipe_changed.connect(self._on_recipe)
        project.models_changed.connect(self._on_models)
        project.lineup_changed.connect(self._on_lineup)
        project.inspection_changed.connect(self._on_inspection)
        project.dirty_changed.connect(self._on_dirty)

    def set_project(self, project: Project) -> None:
        """Open another project in place of the present one."""
        old = self.project
        for signal in (
            old.recipe_changed, old.models_changed, old.lineup_changed,
            old.inspection_changed, old.dirty_changed,
        ):  # fmt: skip
            signal.disconnect()
        self.project = project
        self.history.clear()
        self.selection.clear()
        self._active = 0
        self.is_demo = False
        self.origin = None
        self._listen()
        self.project_changed.emit()
        self._on_models()
        self._recompute()
        self.state_changed.emit()

    def open_paths(self, paths: Sequence[Path], role: Role | None = None) -> None:
        """Open what was dropped or chosen: one project, or any number of models."""
        recipes = [path for path in paths if is_recipe(path)]
        if recipes:
            self.open_project(recipes[0])
            return
        project, recipe = self.project, self.recipe

        def opened(edit: Edit) -> None:
            if self.project is not project:
                return
            self.withdrawn.emit("open")
            if edit.before == self.recipe:
                self.edit(edit)
            else:  # something was edited meanwhile: the models join what there is now
                self.open_paths(paths, role)

        # a topic of its own: a second drop must not make the first one vanish
        topic = f"open {next(self._openings)}"
        self.background.submit(
            topic, lambda: add_models(recipe, paths, role), opened, self._refused
        )

    def open_project(self, path: Path) -> None:
        """Open a project file, or a recipe of mergekit's as a new project."""
        path = path.absolute()
        try:
            opened = load_project(path)
        except UserError as error:
            self.refuse(error)
            return
        self.withdrawn.emit("open")
        self.session.opened(path)
        self.set_project(opened.project)
        if opened.imported:
            self.origin = path
            self.notice.emit(remarks.imported(path.name, opened.notes))
            self.state_changed.emit()

    def _refused(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.refuse(error)

    def refuse(self, error: UserError) -> None:
        """Say in place why something was not taken."""
        self.notice.emit(Notice.of(error, topic="open"))

    def save(self, path: Path) -> bool:
        """Save the project; says so and returns False when it cannot be written."""
        try:
            self.project.save(path)
        except UserError as error:
            self.notice.emit(Notice.of(error, topic="save"))
            return False
        self.withdrawn.emit("save")
        self.session.opened(path.absolute())
        self.session.drop_recovery()
        self._autosave.stop()
        self.state_changed.emit()
        return True

    # Edits.

    def edit(self, edit: Edit) -> None:
        """Carry an edit out as a step that can be undone."""
        self.history.do(self.project, edit)

    def _on_recipe(self, old: Recipe, new: Recipe) -> None:
        self._recompute()
        self.recipe_changed.emit()
        if self.active != self._active and self.active >= 0:
            self._active = self.active
            self.active_changed.emit(self._active)
        self._autosave.start()
        self.state_changed.emit()

    def _on_dirty(self, dirty: bool) -> None:
        if not dirty:
            self._autosave.stop()
            self.session.drop_recovery()
        self.state_changed.emit()

    def _write_recovery(self) -> None:
        if self.project.dirty:
            self.session.autosave(self.recipe, self.project.path)

    def _recompute(self) -> None:
        self._outlook.work_out(self.recipe, self.figures)

    def _outlook_arrived(self) -> None:
        self.figures_moved.emit()
        self.state_changed.emit()

    # Lineup and inspection.

    def _on_models(self) -> None:
        self.figures = None
        self.lineup_error = None
        self.inspection_error = None
        self._outlook.clear()
        self.selection.clear()
        self.selection.point_at(-1)
        self._stop_inspecting()
        recipe = self.recipe
        self.background.forget("lineup")
        self.lineup_changed.emit()
        self.figures_changed.emit()
        if not self.empty:
            self.background.submit(
                "lineup", lambda: _open(recipe), self._lineup_opened, self._lineup_failed
            )

    def _lineup_opened(self, lineup: Lineup) -> None:
        self.project.set_lineup(lineup)
        if len(lineup.members) > 1 and not lineup.errors:
            self.inspect()
        self.state_changed.emit()

    def _lineup_failed(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.lineup_error = error
        if error.code != "no_reference":
            self.notice.emit(Notice.of(error, topic="open"))
        self.lineup_changed.emit()
        self.state_changed.emit()

    def _on_lineup(self) -> None:
        self.figures = None
        self._outlook.clear()
        self.lineup_changed.emit()
        self.figures_changed.emit()

    def inspect(self) -> None:
        """Start the inspection of the opened lineup."""
        self._stop_inspecting()
        self.inspection_error = None
        params = {"recipe": self.recipe.model_dump(mode="json")}
        self._inspecting = self.jobs.submit("inspect", params, self.tr("Inspecting"))
        self.figures_changed.emit()

    def _stop_inspecting(self) -> None:
        job, self._inspecting = self._inspecting, None
        if job is not None:
            self.jobs.cancel(job)

    def _on_inspection(self) -> None:
        lineup, inspection = self.project.lineup, self.project.inspection
        self.figures = None
        if lineup is not None and inspection is not None:
            self.figures = Figures(lineup, inspection)
            self._warn_of_non_finite(lineup, inspection)
        self._recompute()
        self.figures_changed.emit()

    def _warn_of_non_finite(self, lineup: Lineup, inspection: Inspection) -> None:
        notice = remarks.non_finite(lineup, inspection)
        if notice is None:
            self.withdrawn.emit("finite")
        else:
            self.notice.emit(notice)

    def _job_finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if job is self._inspecting:
            self._inspecting = None
            inspection = Inspection.load(Path(result["path"]))
            if inspection is None:
                self._inspection_failed(remarks.damaged(result["path"]))
            else:
                self.project.set_inspection(inspection)
            self.state_changed.emit()
        elif job.name == "devices":
            self.devices = list(result["devices"])
            self.devices_changed.emit()
        elif job.name == "methods":
            self._methods_told(result)

    def _job_failed(self, job: Job, error: UserError) -> None:
        if job is self._inspecting:
            self._inspecting = None
            self._inspection_failed(error)
            self.state_changed.emit()

    def _inspection_failed(self, error: UserError) -> None:
        self.inspection_error = error
        retry = ((self.tr("Try again"), self.inspect),)
        self.notice.emit(Notice.of(error, retry, topic="inspect"))
        self.figures_changed.emit()

    def _methods_told(self, result: dict[str, Any]) -> None:
        self._outlook.catalogue = Catalogue.told(result["methods"])
        self._recompute()
        self.methods_changed.emit()
        self.recipe_changed.emit()
        self.state_changed.emit()
        if result["problems"]:
            self.notice.emit(remarks.methods_missing(result["problems"]))

    def ask_devices(self) -> None:
        """Ask the worker which devices and methods there are, which also warms it up."""
        self.jobs.submit("devices", {}, self.tr("Looking for devices"), quiet=True)
        self.jobs.submit("methods", {}, self.tr("Looking for methods"), quiet=True)

    # The end.

    def close(self, *, keep_recovery: bool = False) -> None:
        """Let everything that runs end; nothing is left behind."""
        self._autosave.stop()
        if not keep_recovery:
            self.session.drop_recovery()
        self.background.wait()
        self.jobs.shutdown()
        for signal in ("recipe_changed", "models_changed", "lineup_changed",
                       "inspection_changed", "dirty_changed"):  # fmt: skip
            with suppress(ValueError):
                getattr(self.project, signal).disconnect()


def _open(recipe: Recipe) -> Lineup:
    lineup = open_lineup(recipe)
    _ = lineup.grid  # built here, so that the window need not wait for it
    return lineup
