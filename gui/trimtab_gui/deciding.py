"""The decision log of the open project: where it is, what stands in it, and a line more."""

from __future__ import annotations

import getpass
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.evaluation.decisions import Choice, Decision, read_decisions
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.jobs import Job

_KEPT, _WHO, _TOPIC = "decision logs", "decides", "decisions"
#: a log beside a project is found by this name, wherever the two are moved together
SUFFIX = ".decisions.jsonl"
#: whether the results that were decided on are still those: unchanged, others by now, or gone
ResultsAre = Literal["same", "changed", "gone"]


@dataclass(frozen=True)
class Entry:
    """A line of the log, and what has become of the results file it is about."""

    decision: Decision
    results: ResultsAre


class Deciding(QObject):
    """`changed` follows whatever is read, chosen, recorded or refused."""

    changed = Signal()

    def __init__(self, desk: Desk, evaluating: Evaluating, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk, self._evaluating = desk, evaluating
        self._jobs: list[Job] = []
        self._chosen: Path | None = None
        self.entries: tuple[Entry, ...] = ()
        self.error: UserError | None = None
        self.refused: UserError | None = None
        self.reading = False
        desk.project_changed.connect(self._forget)
        desk.state_changed.connect(self._keep)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._failed)
        desk.jobs.cancelled.connect(self._cancelled)
        evaluating.changed.connect(self.changed)

    # The file.

    @property
    def log(self) -> Path | None:
        """The project's log: the one chosen for it, else one beside it; None where neither is."""
        if self._chosen is not None:
            return self._chosen
        path = self._desk.project.path
        if path is None:
            return None
        kept = self._desk.session.get(_KEPT)
        name = kept.get(str(path.absolute())) if isinstance(kept, dict) else None
        if isinstance(name, str):
            return Path(name)
        beside = path.absolute().with_name(path.stem + SUFFIX)
        return beside if beside.exists() else None

    @property
    def proposed(self) -> Path:
        """Where a log would be put if nobody says otherwise."""
        path = self._desk.project.path
        return Path.home() / f"trimtab{SUFFIX}" if path is None else (
            path.absolute().with_name(path.stem + SUFFIX)
        )  # fmt: skip

    def choose(self, log: Path) -> None:
        """Take a file for the project's log, new or not; it is remembered with the project."""
        self._chosen = log.absolute()
        self._keep()
        self.read()

    def _keep(self) -> None:
        """Remember a chosen log as soon as the project has a name to remember it by."""
        path = self._desk.project.path
        if self._chosen is None or path is None:
            return
        kept = self._desk.session.get(_KEPT)
        logs = dict(kept) if isinstance(kept, dict) else {}
        logs[str(path.absolute())] = str(self._chosen)
        self._desk.session.set(_KEPT, logs)

    def read(self) -> None:
        """Read the log and check its chain, elsewhere."""
        log = self.log
        self.error = None
        if log is None:
            self.entries = ()
            self.changed.emit()
            return

        def done(entries: tuple[Entry, ...]) -> None:
            self.entries, self.reading = entries, False
            self.changed.emit()

        def failed(error: Exception) -> None:
            if not isinstance(error, UserError):
                raise error
            self.entries, self.error, self.reading = (), error, False
            self.changed.emit()

        self.reading = True
        self._desk.background.submit(_TOPIC, lambda: _entries(log), done, failed)
        self.changed.emit()

    # A line more.

    @property
    def who(self) -> str:
        """Who decides: as last time, at first the name of the account."""
        kept = self._desk.session.get(_WHO)
        return kept if isinstance(kept, str) else _account()

    @property
    def recording(self) -> bool:
        """Whether a decision is being written."""
        return bool(self._jobs)

    def obstacle(self, who: str) -> str | None:
        """Say why nothing can be recorded now; None when it can."""
        if not self._evaluating.found:
            return self.tr("Nothing is evaluated yet: there is nothing to decide on.")
        if self._evaluating.running:
            return self.tr("An evaluation is under way.")
        if self.error is not None:
            return self.tr("The log is not what was written there: begin another one.")
        if self.log is None:
            return self.tr("Choose where the log is kept.")
        if not who.strip():
            return self.tr("Say who decides.")
        return self.tr("Writing …") if self.recording else None

    def record(self, choice: Choice, who: str, note: str) -> bool:
        """Add a line for each suite's results; returns whether it is begun."""
        log = self.log
        if log is None or self.obstacle(who) is not None:
            return False
        self.refused = None
        self._desk.session.set(_WHO, who.strip())
        for facts in self._evaluating.found.values():
            params = {
                "results": str(facts.path), "log": str(log), "who": who.strip(),
                "choice": choice, "note": note.strip(),
            }  # fmt: skip
            title = self.tr("Recording a decision")
            self._jobs.append(self._desk.jobs.submit("decide", params, title, quiet=True))
        self.changed.emit()
        return True

    def _finished(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            if not self._jobs:
                self.read()

    def _failed(self, job: Job, error: UserError) -> None:
        if job in self._jobs:
            self.refused = error
            self._finished(job)

    def _cancelled(self, job: Job) -> None:
        self._finished(job)

    def _forget(self) -> None:
        self._desk.background.forget(_TOPIC)
        self._chosen = self.error = self.refused = None
        self.entries, self.reading, self._jobs = (), False, []
        self.changed.emit()


def _entries(log: Path) -> tuple[Entry, ...]:
    known: dict[str, str] = {}
    found = []
    for decision in read_decisions(log):
        if decision.path not in known:
            known[decision.path] = _digest(Path(decision.path))
        digest = known[decision.path]
        same: ResultsAre = "same" if digest == decision.results else "changed"
        found.append(Entry(decision, same if digest else "gone"))
    return tuple(found)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
