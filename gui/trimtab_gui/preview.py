"""Asks the worker what the open recipe comes to, again and again while the hand moves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.checkpoints import Lineup
from trimtab.errors import UserError
from trimtab.evaluation.probes import MEASURES
from trimtab.jobs.protocol import Progress
from trimtab.merging.recipe import Recipe
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.movement import stacked

#: nothing to measure, cannot be measured, not measured yet, measured, failed
State = Literal["empty", "unable", "loading", "ready", "error"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
#: a request is given up for a newer one only when it takes longer than this
_PATIENCE_S = 0.4
#: stages that no later request needs
_OWN_STAGES = ("Merging", "Measuring", "Streaming")
#: what stages of a streamed model begin with, also those that later requests need
_STREAMING = "Streaming"


@dataclass(frozen=True)
class Measured:
    """One number over `n` probes; `hits` where it is a share of them."""

    value: float | None
    n: int
    hits: int | None


@dataclass(frozen=True)
class Answer:
    """What a recipe comes to, by the ids of `probes.MEASURES`; also its models by themselves.

    `seconds` passed between the request and the answer; `streamed` models do not fit in memory.
    """

    recipe: Recipe
    merged: Mapping[str, Measured]
    reference: Mapping[str, Measured]
    finetuned: Mapping[str, Measured] | None
    probes: Mapping[str, Any]
    seconds: float
    streamed: bool


class LivePreview(QObject):
    """One request at a time is with the worker; of those that come meanwhile the latest wins.

    `changed` follows every change of `state`, `answer` or `waiting`. Other jobs come first: while
    one runs or waits nothing is asked.
    """

    changed = Signal()

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._desk = desk
        self._jobs = desk.jobs
        self._job: Job | None = None
        self._asked: Recipe | None = None
        self._begun = 0.0
        self._stage = ""
        self._share = 0.0
        self._wanted = False
        self._previewable = False
        self._reason = ""
        self.answer: Answer | None = None
        self.error: UserError | None = None
        desk.lineup_changed.connect(self._lineup_changed)
        desk.recipe_changed.connect(self.ask)
        desk.active_changed.connect(self.ask)
        jobs = self._jobs
        jobs.queued.connect(self._make_way)
        jobs.progress.connect(self._progress)
        jobs.finished.connect(self._finished)
        jobs.failed.connect(self._failed)
        jobs.cancelled.connect(self._cancelled)
        self._lineup_changed()

    @property
    def state(self) -> State:
        """Where the preview stands."""
        if self._desk.lineup is None or not self._desk.recipe.finetuned:
            return "empty"
        if self.reason:
            return "unable"
        if self.error is not None:
            return "error"
        if self.answer is not None:
            return "ready"
        return "loading" if self._previewable else "empty"

    @property
    def reason(self) -> str:
        """Why nothing can be measured, empty where it can."""
        recipe = self._desk.recipe
        if self._reason:
            return self._reason
        if self._previewable and stacked(recipe):
            return self.tr("Layers are stacked anew: measure the merge when it is saved.")
        if self._previewable and recipe.tokenizer is not None:
            return self.tr("Tokens are put together anew: measure the merge when it is saved.")
        return ""

    @property
    def waiting(self) -> bool:
        """Whether what is shown is of an earlier recipe, and the answer is slow to come."""
        late = self._job is not None and time.monotonic() - self._begun > _PATIENCE_S
        slow = self.answer is not None and self.answer.seconds > _PATIENCE_S
        return self._wanted or late or (self._job is not None and slow)

    @property
    def streaming(self) -> float | None:
        """How far a streamed model has come, 0 to 1; None while none goes through."""
        return self._share if self._job is not None and self._streams() else None

    def standing(self) -> str:
        """Say in a few words what is measured, or took how long; nothing where nothing can be."""
        share, answer = self.streaming, self.answer
        if share is not None and share < 1:
            streaming = self.tr("streaming block by block, {share}")
            return streaming.format(share=texts.percent(share, 0))
        if self.state == "loading":
            return self.tr("loading the models …")
        if self.state != "ready" or answer is None:
            return ""
        probes = self.tr("{harmful} + {task} probes").format(**answer.probes)
        if self.waiting:
            return self.tr("{probes} · measuring …").format(probes=probes)
        took = texts.duration(answer.seconds)
        if answer.streamed:
            took = self.tr("streamed in {duration}").format(duration=took)
        return f"{probes} · {took}"

    def _streams(self) -> bool:
        return self._stage.startswith(_STREAMING)

    def ask(self) -> None:
        """Ask for what the recipe comes to as it now stands."""
        self.error = None
        self._wanted = True
        self._go_on()
        if self._job is not None and self._wanted and self._is_slow():
            self._jobs.cancel(self._job)
        self.changed.emit()

    def _is_slow(self) -> bool:
        # what is being loaded is needed for the next request as well
        return self._stage in _OWN_STAGES and time.monotonic() - self._begun > _PATIENCE_S

    def _go_on(self) -> None:
        """Send the request that is wanted, if its time has come."""
        desk = self._desk
        if not self._wanted or self._job is not None or not self._previewable or self.reason:
            return
        if desk.method_error is not None:
            self._wanted = False
            self.error = desk.method_error
            return
        if desk.lineup is None or desk.active < 0 or desk.opening:
            return
        if self._jobs.current is not None or self._jobs.pending:
            return
        self._wanted = False
        self._asked = desk.recipe
        self._begun = time.monotonic()
        self._stage = ""
        params = {"recipe": desk.recipe.model_dump(mode="json"), "against": desk.active}
        self._job = self._jobs.submit("preview", params, self.tr("Live preview"), quiet=True)

    # Models.

    def _lineup_changed(self) -> None:
        self._drop()
        self.answer = self.error = None
        self._previewable, self._reason = False, ""
        lineup = self._desk.lineup
        background = self._desk.background
        background.forget("previewable")
        if lineup is not None and lineup.finetuned:
            if lineup.errors:
                self._reason = self.tr("The models cannot be merged: see the lineup.")
            else:
                background.submit(
                    "previewable", lambda: _obstacle(lineup), self._looked, self._look_failed
                )
        self.changed.emit()

    def _looked(self, obstacle: str) -> None:
        self._reason, self._previewable = obstacle, not obstacle
        if self._previewable:
            self.ask()
        self.changed.emit()

    def _look_failed(self, error: Exception) -> None:
        raise error

    def _drop(self) -> None:
        job, self._job = self._job, None
        self._wanted = False
        if job is not None:
            self._jobs.cancel(job)

    # Jobs.

    def _make_way(self, job: Job) -> None:
        if job.name != "preview" and self._job is not None:
            self._wanted = True
            # what is streamed for all that come takes too long to be waited for
            if self._stage in _OWN_STAGES or self._streams():
                self._jobs.cancel(self._job)

    def _progress(self, job: Job, progress: Progress) -> None:
        if job is self._job:
            self._stage = progress.stage
            if self._streams():
                self._share = progress.done / max(progress.total, 1)
                self.changed.emit()

    def _finished(self, job: Job, result: dict[str, Any]) -> None:
        if job is self._job:
            self._job = None
            assert self._asked is not None
            seconds = time.monotonic() - self._begun
            if result["loaded"]:  # which the next request need not wait for
                seconds = result["milliseconds"]["total"] / 1000
            self.answer = _answer(self._asked, result, seconds)
            self.error = None
        self._next()

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job = None
            # what was asked meanwhile may fare better
            self.error = None if self._wanted else error
        self._next()

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            self._job = None
        self._next()

    def _next(self) -> None:
        """Send what is wanted, and tell what has changed."""
        self._go_on()
        if self._job is None:
            self.changed.emit()
        else:  # the worker is not to wait while the window draws
            QTimer.singleShot(0, self, self.changed.emit)


def _obstacle(lineup: Lineup) -> str:
    """Say what keeps the reference from being run; looks at the disk."""
    reference = lineup.reference.checkpoint
    if reference.kind != "folder" or not reference.config:
        return "Cannot be measured: there is no config.json beside the weights."
    if not any((Path(reference.folder) / name).is_file() for name in _TOKENIZERS):
        return f"Cannot be measured: {reference.name} has no tokenizer."
    return ""


def _measured(values: Mapping[str, Any]) -> dict[str, Measured]:
    return {m.id: Measured(**values[m.id]) for m in MEASURES if m.id in values}


def _answer(recipe: Recipe, result: Mapping[str, Any], seconds: float) -> Answer:
    finetuned = result["finetuned"]
    return Answer(
        recipe,
        _measured(result["merged"]),
        _measured(result["reference"]),
        _measured(finetuned) if finetuned else None,
        result["probes"],
        seconds,
        result["streamed"],
    )
