"""What is found out on demand about the open lineup, one job at a time, and goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job


class Finding(QObject):
    """One job about the open lineup at a time; what it found goes with the lineup.

    `changed` follows every change of what is known or under way.
    """

    changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._job: Job | None = None
        self.error: UserError | None = None
        desk.lineup_changed.connect(self._lineup_changed)
        desk.jobs.finished.connect(self._job_finished)
        desk.jobs.failed.connect(self._job_failed)
        desk.jobs.cancelled.connect(self._job_cancelled)

    @property
    def running(self) -> bool:
        """Whether it is being found out."""
        return self._job is not None

    def stop(self) -> None:
        """Give it up; what was found so far is kept."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def submit(self, name: str, params: Mapping[str, Any], title: str) -> None:
        self.error = None
        params = {"recipe": self._desk.recipe.model_dump(mode="json"), **params}
        self._job = self._desk.jobs.submit(name, params, title)
        self.changed.emit()

    def _lineup_changed(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            self._desk.jobs.cancel(job)
        self.error = None
        self.forget()
        self.changed.emit()

    # no abstract methods: Qt's metaclass cannot be joined with that of abstract classes

    def forget(self) -> None:
        """Drop what is known of the lineup before."""
        raise NotImplementedError

    def take(self, result: Mapping[str, Any], seconds: float) -> None:
        """Read what the job found."""
        raise NotImplementedError

    def _job_finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if job is self._job:
            self._job = None
            self.take(result, seconds)
            self.changed.emit()

    def _job_failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job = None
            self.error = error
            self.changed.emit()

    def _job_cancelled(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self.changed.emit()

    def failed_to_read(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            raise error
        self.error = error
        self.changed.emit()
