"""Builds masks from the window, one at a time; each goes onto the stack of the active model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX
from trimtab.merging.recipe import Recipe
from trimtab.project import Edit
from trimtab.project.mask_edits import add_mask, replace_mask
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.somf_log import SomfLog, read_log

_LOOK_MS = 300
#: how a learning stands
RUNNING, PAUSED = "running", "paused"
_ENOUGH = "enough"
#: where the session keeps a learning that has not come to its end
_UNFINISHED = "unfinished somf"


@dataclass(frozen=True)
class Order:
    """What is being built: for which fine-tuned model, and what becomes of the report.

    `entry` makes of it what goes onto the model's stack, if anything does, in the place of the mask
    in the file `replaces` where the stack still has that.
    """

    kind: str
    model: int
    entry: Callable[[Mapping[str, Any]], MaskEntry | None]
    rescale: bool = False
    replaces: str = ""


class MaskBuilding(QObject):
    """`kind` says which builder the last job, report or error is of.

    `changed` follows every change. A finished mask is added to the stack of the model that it was
    made for, as one step that can be undone.
    """

    changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._job: Job | None = None
        self._order: Order | None = None
        #: what a learning was begun for: it may be gone on with after others were built
        self._learns: Order | None = None
        self.error: UserError | None = None
        self.reports: dict[str, Mapping[str, Any]] = {}
        self.learning = Learning(desk, self)
        self.learning.changed.connect(self.changed)
        desk.lineup_changed.connect(self._forget)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._failed)
        desk.jobs.cancelled.connect(self._cancelled)
        self._offer()

    @property
    def kind(self) -> str:
        """The builder of the last job; empty before the first."""
        return self._order.kind if self._order is not None else ""

    @property
    def running(self) -> bool:
        """Whether a mask is being built."""
        return self._job is not None

    @property
    def obstacle(self) -> str:
        """Say why no mask can be built; empty where one can."""
        desk = self._desk
        if desk.lineup is None or desk.active < 0:
            return self.tr("Open a reference and a fine-tuned model first.")
        if desk.lineup.errors:
            return desk.lineup.errors[0].what
        return self.tr("A mask is being built.") if self.running else ""

    @property
    def folder(self) -> Path:
        """Where masks go: beside the project, or a folder of their own while it is not saved."""
        path = self._desk.project.path
        return path.parent / "masks" if path is not None else Path.home() / "trimtab-masks"

    def new_file(self, stem: str, suffix: str = SUFFIX) -> Path:
        """Return a name for a mask that is not taken, by any of the files beside it either."""
        number = 1
        while (self.folder / f"{stem}-{number}").exists() or any(
            self.folder.glob(f"{stem}-{number}.*")
        ):
            number += 1
        return self.folder / f"{stem}-{number}{suffix}"

    def start(self, job: str, params: Mapping[str, Any], title: str, order: Order) -> None:
        """Run a job that builds what is ordered."""
        assert not self.obstacle
        self._order, self.error = order, None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.error = UserError(
                "cannot_write",
                self.tr("The folder for masks cannot be made."),
                self.tr("The system says: {why}.").format(why=error.strerror),
                self.tr("Save the project where masks may lie beside it."),
                details=str(self.folder),
            )
            self.changed.emit()
            return
        if job == "somf":
            self._learns = order
            self._desk.session.set(_UNFINISHED, {"params": dict(params), "model": order.model})
            self.learning.watch(Path(params["output"]), dict(params))
        self._job = self._desk.jobs.submit(job, params, title)
        self.changed.emit()

    def stop(self) -> None:
        """Give it up; a learning keeps what it has learned."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def resume(self) -> None:
        """Go on with a learning that was paused, once nothing else is being built."""
        if self._learns is None or self.obstacle:
            return
        params = {**self.learning.params, "resume": True, "overwrite": True}
        self.start("somf", params, self.tr("Learning SOMF mask"), self._learns)

    def use_as_it_is(self) -> None:
        """End the learning here, and take the mask as far as it is learned."""
        if self.learning.say_enough() and self.learning.state == PAUSED:
            self.resume()

    def _forget(self) -> None:
        """A mask for other models is not added to these."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)
        self._job, self._learns, self.error = None, None, None
        self.reports.clear()
        self.learning.forget()
        self._offer()
        self.changed.emit()

    def _offer(self) -> None:
        """Offer to go on with a learning of these models that another window left, or undoing."""
        kept = self._desk.session.get(_UNFINISHED)
        if self._desk.lineup is None or not isinstance(kept, dict):
            return
        try:
            params, model = dict(kept["params"]), int(kept["model"])
            learned = _models(Recipe.model_validate(params["recipe"]))
            rescale, output = params["granularity"] != "module", Path(params["output"])
        except (KeyError, TypeError, ValueError):  # of another version
            return
        if learned == _models(self._desk.recipe):
            self._learns = Order("somf", model, somf_entry, rescale)
            self.learning.offer(output, params)

    def _finished(self, job: Job, report: dict[str, Any], seconds: float) -> None:
        if job is not self._job or self._order is None:
            return
        order, self._job = self._order, None
        self.reports[order.kind] = report
        if job.name == "somf":
            self.learning.finish(report)
            self._desk.session.set(_UNFINISHED, None)
        entry = order.entry(report)
        if entry is not None and order.model < len(self._desk.recipe.finetuned):
            self._desk.edit(self._edit(order, entry))
        self.changed.emit()

    def _edit(self, order: Order, entry: MaskEntry) -> Edit:
        recipe, model = self._desk.recipe, order.model
        paths = [e.path for e in recipe.finetuned[model].masks]
        if order.replaces and order.replaces in paths:
            number = paths.index(order.replaces)
            before = recipe.finetuned[model].masks[number]
            entry = entry.model_copy(update={"op": before.op, "invert": before.invert})
            return replace_mask(recipe, model, number, entry, f"Change {before.title}")
        return add_mask(recipe, model, entry, rescale=order.rescale or None)

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job, self.error = None, error
            if job.name == "somf":  # what was kept of it can be gone on with
                self.learning.pause()
            self.changed.emit()

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            if job.name == "somf":
                self.learning.pause()
            self.changed.emit()


def somf_entry(report: Mapping[str, Any]) -> MaskEntry:
    """Return what goes onto the stack when SOMF has learned a mask."""
    return MaskEntry(path=report["files"]["mask"], name="SOMF, σ(x)")


def _models(recipe: Recipe) -> list[str]:
    """Return what tells whether recipes are of the same models."""
    given = [recipe.base, recipe.aligned, *recipe.finetuned]
    return [f"{m.path} {m.revision} {m.lora} {m.lora_revision}" if m else "" for m in given]


class Learning(QObject):
    """How a learning of SOMF's goes: the log that grows beside its output.

    `state` is empty, running or paused; `log` stays when it has ended.
    """

    changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self.state = ""
        self.params: dict[str, Any] = {}
        self.log = SomfLog()
        self._folder = Path()
        self._clock = QTimer(self)
        self._clock.setInterval(_LOOK_MS)
        self._clock.timeout.connect(self.look)

    def watch(self, output: Path, params: dict[str, Any]) -> None:
        """Follow the learning of a mask."""
        if not params.get("resume"):
            self.log = SomfLog(steps=int(params["steps"]))
        self._take(output, params)
        self.state = RUNNING
        self._clock.start()

    def offer(self, output: Path, params: dict[str, Any]) -> None:
        """Look whether the learning of a mask was left with something to go on with."""
        self._take(output, params)
        self.pause()

    def _take(self, output: Path, params: dict[str, Any]) -> None:
        self.params = params
        self._folder = output.with_name(output.name.removesuffix(SUFFIX) + ".somf.partial")

    def look(self) -> None:
        """Take up what the log says by now, read elsewhere."""
        path = self._folder / "log.json"
        self._desk.background.submit("somf log", lambda: read_log(path), self._arrived, _raise)

    def _arrived(self, log: SomfLog | None) -> None:
        if log is not None and log != self.log:
            self.log = log
            self.changed.emit()
        elif self.state == PAUSED and not self.log.step:  # it got nowhere: nothing was kept
            self.state = ""
            self.changed.emit()

    def say_enough(self) -> bool:
        """Tell the learning, whether it runs or is paused, to end; False when that failed."""
        try:
            (self._folder / _ENOUGH).touch()
        except OSError:
            return False
        return True

    def pause(self) -> None:
        """No longer follow it: it stands where it kept what it has learned, if it got anywhere."""
        self._clock.stop()
        self.state = PAUSED
        self.look()

    def forget(self) -> None:
        """No longer follow it, nor offer to go on with it."""
        self._clock.stop()
        self._desk.background.forget("somf log")
        self.state, self.log = "", SomfLog()

    def finish(self, report: Mapping[str, Any]) -> None:
        """Take the whole log of a learning that has come to its end."""
        self._clock.stop()
        self._desk.background.forget("somf log")
        self.state = ""
        self.log = SomfLog.of(report["log"], int(report["settings"]["steps"]))


def _raise(error: Exception) -> None:
    raise error
