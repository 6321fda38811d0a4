"""Shows the running job in the job bar, and offers what helps when it does not stop."""

from __future__ import annotations

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.errors import UserError
from trimtab.jobs.protocol import Progress
from trimtab_gui import texts
from trimtab_gui.jobs import Job, JobController
from trimtab_gui.notices import Notice
from trimtab_gui.widgets import JobBar

_SHOW_AFTER_MS = 150
_END_SHOWN_MS = 6000


def progress_text(progress: Progress) -> str:
    """Return counts, rate and time left, such as "247 / 399 tensors · 3.9 GB/s · 2 s left"."""
    parts = [progress.stage]
    if progress.total:
        parts.append(f"{progress.done:,} / {progress.total:,}")
    if progress.bytes_per_second > 0:
        parts.append(f"{texts.size(progress.bytes_per_second)}/s")
    if progress.seconds_left is not None and progress.seconds_left >= 1:
        parts.append(f"{texts.duration(progress.seconds_left)} left")
    if progress.memory_bytes:
        parts.append(texts.size(progress.memory_bytes))
    return " · ".join(part for part in parts if part)


class JobDisplay(QObject):
    """Between the jobs and their bar; a job that ends at once is never shown."""

    notice = Signal(object)
    withdrawn = Signal(str)

    def __init__(self, jobs: JobController, bar: JobBar, parent: QObject) -> None:
        super().__init__(parent)
        self._jobs, self._bar = jobs, bar
        self._job: Job | None = None
        self._shown = False
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(_SHOW_AFTER_MS)
        self._delay.timeout.connect(self._show)
        self._clear = QTimer(self)
        self._clear.setSingleShot(True)
        self._clear.setInterval(_END_SHOWN_MS)
        self._clear.timeout.connect(bar.clear)
        jobs.started.connect(self._started)
        jobs.progress.connect(self._progress)
        jobs.finished.connect(self._finished)
        jobs.failed.connect(self._failed)
        jobs.cancelling.connect(self._cancelling)
        jobs.cancelled.connect(self._cancelled)
        jobs.force_stop_offered.connect(self._offer)
        bar.cancel_requested.connect(self._cancel)

    def stop(self) -> None:
        """Let no timer outlive the window."""
        self._delay.stop()
        self._clear.stop()
        self._bar.clear()

    def _started(self, job: Job) -> None:
        if not job.quiet:
            self._job, self._shown = job, False
            self._delay.start()

    def show_now(self) -> None:
        """Show the running job without waiting whether it ends at once."""
        self._delay.stop()
        self._show()

    def _show(self) -> None:
        if self._job is not None:
            self._clear.stop()
            self._shown = True
            self._bar.show_job(self._job.title)

    def _progress(self, job: Job, progress: Progress) -> None:
        if job is self._job and self._shown:
            share = None
            if progress.bytes_total:
                share = progress.bytes_done / progress.bytes_total
            elif progress.total:
                share = progress.done / progress.total
            self._bar.set_progress(share, progress_text(progress))

    def _end(self, job: Job, text: str, kind: str) -> None:
        if job is not self._job:
            return
        self._delay.stop()
        self._job = None
        self.withdrawn.emit("force")
        if self._shown or kind != "ok":
            self._bar.show_job(job.title)
            self._bar.finish(text, kind)
            self._clear.start()

    def _finished(self, job: Job, result: object, seconds: float) -> None:
        self._end(job, self.tr("done in {time}").format(time=texts.duration(seconds)), "ok")

    def _failed(self, job: Job, error: UserError) -> None:
        self._end(job, error.what, "error")

    def _cancelled(self, job: Job) -> None:
        self._end(job, self.tr("cancelled"), "cancelled")

    def _cancel(self) -> None:
        if self._job is not None:
            self._jobs.cancel(self._job)

    def _cancelling(self, job: Job) -> None:
        if job is self._job:
            self._show()
            self._bar.set_progress(None, self.tr("Cancelling …"))

    def _offer(self, job: Job) -> None:
        self.notice.emit(
            Notice(
                "warning",
                self.tr("{title} has not stopped yet.").format(title=job.title),
                self.tr("It stops at its next step, or at once by force."),
                actions=((self.tr("Force stop"), self._jobs.force_stop),),
                topic="force",
            )
        )
