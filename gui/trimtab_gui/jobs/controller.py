"""Runs jobs one after the other in the worker process and says how each goes and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.errors import UserError
from trimtab.jobs.protocol import (
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Cancelled,
    Event,
    Failed,
    Hello,
    Log,
    Progress,
    Result,
    Run,
)
from trimtab_gui.jobs.process import WorkerProcess, worker_command

FORCE_STOP_AFTER_MS = 2000


class State(Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    ENDED = "ended"


@dataclass(eq=False)
class Job:
    """A job: what is to be done, what the window calls it, and where it stands."""

    id: int
    name: str
    params: Mapping[str, Any]
    title: str
    quiet: bool = False
    state: State = field(default=State.QUEUED)


class JobController(QObject):
    """A queue of jobs in front of one worker process.

    `failed` carries a `UserError`, `finished` the result and the seconds it took. `cancelling`
    follows a request at once; `force_stop_offered` when the worker has not stopped two seconds
    later. The worker starts with the first job or with `prewarm`, and again after it died.
    """

    queued = Signal(object)
    started = Signal(object)
    progress = Signal(object, object)
    finished = Signal(object, object, float)
    failed = Signal(object, object)
    cancelling = Signal(object)
    force_stop_offered = Signal(object)
    cancelled = Signal(object)

    def __init__(self, command: Sequence[str] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._command = list(command) if command is not None else worker_command()
        self._worker: WorkerProcess | None = None
        self._queue: list[Job] = []
        self._current: Job | None = None
        self._numbers = count(1)
        self._closed = False
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(FORCE_STOP_AFTER_MS)
        self._patience.timeout.connect(self._offer_force_stop)

    @property
    def current(self) -> Job | None:
        """The job that is running, None when the worker has nothing to do."""
        return self._current

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that wait."""
        return tuple(self._queue)

    @property
    def worker_pid(self) -> int:
        """The worker's process id, 0 when there is none."""
        return self._worker.pid if self._worker is not None else 0

    @property
    def log(self) -> str:
        """The last lines that the present worker wrote to stderr."""
        return self._worker.log if self._worker is not None else ""

    def prewarm(self) -> None:
        """Start the worker before there is a job, so that the first one need not wait."""
        if self._worker is None and not self._closed:
            self._start_worker()

    def submit(
        self, name: str, params: Mapping[str, Any], title: str, *, quiet: bool = False
    ) -> Job:
        """Queue a job; a `quiet` one is not worth a job bar."""
        job = Job(next(self._numbers), name, params, title, quiet)
        self._queue.append(job)
        self.queued.emit(job)
        # signals must not come before the caller holds the job
        QTimer.singleShot(0, self, self._next)
        return job

    def cancel(self, job: Job) -> None:
        """Stop `job`: at once when it waits, at its next work item when it runs."""
        if job in self._queue:
            self._queue.remove(job)
            self._end(job)
            self.cancelled.emit(job)
        elif job is self._current and job.state is State.RUNNING and self._worker is not None:
            job.state = State.CANCELLING
            self._worker.send(Cancel(job.id))
            self._patience.start()
            self.cancelling.emit(job)

    def force_stop(self) -> None:
        """End the worker; the running job counts as cancelled."""
        job = self._current
        if job is None:
            return
        self._drop_worker()
        self._finish(job)
        self.cancelled.emit(job)

    def kill_worker(self) -> None:
        """End the worker without a word to anybody: only before `shutdown`."""
        self._drop_worker()

    def shutdown(self) -> None:
        """End the worker and forget the queue; nothing is left behind."""
        self._closed = True
        self._patience.stop()
        self._queue.clear()
        self._current = None
        if self._worker is not None:
            self._worker.close()
            self._worker.deleteLater()
            self._worker = None

    def _start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self._command, self)
        worker.received.connect(self._receive)
        worker.broken.connect(self._worker_garbled)
        worker.ended.connect(self._worker_ended)
        self._worker = worker
        worker.start()
        return worker

    def _drop_worker(self) -> str:
        """Let the worker go, without waiting where it has already left; returns its log."""
        worker, self._worker = self._worker, None
        if worker is None:
            return ""
        worker.received.disconnect(self._receive)
        worker.broken.disconnect(self._worker_garbled)
        worker.ended.disconnect(self._worker_ended)
        worker.kill()
        worker.close()
        worker.deleteLater()
        return worker.log

    def _next(self) -> None:
        if self._closed or self._current is not None or not self._queue:
            return
        job = self._queue.pop(0)
        self._current = job
        job.state = State.RUNNING
        self.started.emit(job)
        worker = self._worker or self._start_worker()
        # the command waits in the pipe while the worker still starts
        worker.send(Run(job.id, job.name, dict(job.params)))
        worker.flush()

    def _end(self, job: Job) -> None:
        job.state = State.ENDED

    def _finish(self, job: Job) -> None:
        self._end(job)
        self._patience.stop()
        self._current = None
        QTimer.singleShot(0, self, self._next)

    def _receive(self, event: Event) -> None:
        if isinstance(event, Hello):
            if event.protocol != PROTOCOL_VERSION:
                self._worker_failed(
                    f"It speaks version {event.protocol} of the protocol, "
                    f"the window version {PROTOCOL_VERSION}.",
                    again=False,  # the next one would speak it too
                )
            return
        if isinstance(event, Log):
            if self._worker is not None:
                self._worker.note(f"[{event.level}] {event.text}")
            return
        job = self._current
        if job is None or event.id != job.id:
            return
        if isinstance(event, Progress):
            self.progress.emit(job, event)
        elif isinstance(event, Result):
            self._finish(job)
            self.finished.emit(job, event.result, event.seconds)
        elif isinstance(event, Failed):
            self._finish(job)
            self.failed.emit(job, UserError.from_dict(event.error))
        elif isinstance(event, Cancelled):
            self._finish(job)
            self.cancelled.emit(job)
        else:
            assert isinstance(event, Accepted)  # the job is shown as running already

    def _offer_force_stop(self) -> None:
        if self._current is not None:
            self.force_stop_offered.emit(self._current)

    def _worker_garbled(self, line: str) -> None:
        # its stdout can no longer be trusted: a result might be lost and the job never end
        self._worker_failed(f"It sent something that is not a message: {line[:60]!r}.")

    def _worker_ended(self, how: str) -> None:
        self._worker_failed(how)

    def _worker_failed(self, why: str, *, again: bool = True) -> None:
        came_up = self._worker is not None and self._worker.greeted
        log = self._drop_worker()
        job = self._current
        if job is not None:
            cancelling = job.state is State.CANCELLING
            self._finish(job)
            if cancelling:
                self.cancelled.emit(job)
            else:
                self.failed.emit(job, _stopped(why, log))
        # one that never came up would fail again: wait until there is something to do
        if again and came_up and not self._closed and self._worker is None:
            self.prewarm()


def _stopped(why: str, log: str) -> UserError:
    return UserError(
        "worker_stopped",
        "The worker stopped.",
        why,
        "A new one is started; try again. If it happens again, look at the details.",
        details=log,
    )
