"""Has a merge planned by the worker and shows what it will do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from trimtab.errors import UserError
from trimtab_gui import texts
from trimtab_gui.account import Account
from trimtab_gui.desk import Desk
from trimtab_gui.dialogs.plan import Fact, PlanSheet
from trimtab_gui.jobs import Job
from trimtab_gui.merging import Merging, free_bytes


class Planning(QObject):
    """One plan at a time; closing its sheet gives it up."""

    def __init__(self, desk: Desk, merging: Merging, window: QWidget) -> None:
        super().__init__(window)
        self._desk, self._merging, self._window = desk, merging, window
        self._job: Job | None = None
        self.sheet: PlanSheet | None = None
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._failed)

    def obstacle(self) -> str | None:
        """Return why nothing can be planned now, None when it can."""
        if self._merging.running:
            return self.tr("A merge is running.")
        return self._merging.plan_obstacle()

    def show(self) -> PlanSheet | None:
        """Open the sheet and ask the worker for the plan."""
        if self.obstacle() is not None:
            return None
        desk = self._desk
        title = self.tr("Plan of {name}").format(name=self._merging.output.name)
        self.sheet = PlanSheet(title, self._window)
        self.sheet.closed.connect(self._closed)
        params = {"recipe": desk.recipe.model_dump(mode="json"), **self._merging.job_params}
        self._job = desk.jobs.submit("plan", params, self.tr("Planning"), quiet=True)
        self.sheet.open()
        return self.sheet

    def _closed(self) -> None:
        self.sheet = None
        self._desk.background.forget("plan")
        job, self._job = self._job, None
        if job is not None:
            self._desk.jobs.cancel(job)

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self._job = None
            if self.sheet is not None:
                self.sheet.show_error(error)

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if job is not self._job:
            return
        self._job = None
        path = Path(result["path"])
        self._desk.background.submit("plan", _loader(path), self._loaded, self._damaged)

    def _damaged(self, error: Exception) -> None:
        if not isinstance(error, OSError | ValueError | LookupError):
            raise error
        if self.sheet is not None:
            self.sheet.show_error(
                UserError(
                    "plan_unreadable",
                    self.tr("The plan cannot be read."),
                    self.tr("Its file in the cache is missing or damaged."),
                    self.tr("Close this and plan again."),
                    str(error),
                )
            )

    def _loaded(self, account: Account) -> None:
        if self.sheet is not None:
            subject = self.tr("{method} on {reference}").format(
                method=self._desk.method_title, reference=account.reference
            )
            self.sheet.show_account(account, subject, self._facts(account))

    def _facts(self, account: Account) -> list[Fact]:
        tr = self.tr
        shards = tr("1 file") if account.shards == 1 else tr("{n} files").format(n=account.shards)
        free = free_bytes(self._merging.output)
        limit = self._merging.memory
        memory = tr("about {size}").format(size=texts.size(account.memory_bytes))
        if limit is not None:
            memory = tr("at most {size}").format(size=texts.size(limit))
        found = self._merging.seconds_for(account.bytes_in + account.bytes_out)
        if found is None:
            time = tr("unknown")
            why = tr("Known once a merge by this method, of a size like this, was made here.")
        else:
            time = tr("about {time}").format(time=texts.duration(found[0]))
            why = tr("At {rate}/s, as the last merge by this method.").format(
                rate=texts.size(found[1])
            )
        written = f"{texts.size(account.bytes_out)} · {shards}"
        return [
            (tr("reads"), texts.size(account.bytes_in), tr("Bytes of the inputs, each once")),
            (tr("writes"), written, tr("Bytes of the weight files")),
            (tr("free disk"), "–" if free is None else texts.size(free), tr("Where they go")),
            (tr("memory"), memory, tr("What the merging process takes")),
            (tr("device"), account.device, tr("Where it computes")),
            (tr("time"), time, why),
        ]


def _loader(path: Path) -> Callable[[], Account]:
    return lambda: Account.load(path)
