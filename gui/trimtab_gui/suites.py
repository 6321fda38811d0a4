"""The suites of prompts that the Evaluate place knows, and those of them that are chosen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.evaluation.coverage import Coverage, coverage
from trimtab.evaluation.run import limited
from trimtab.evaluation.suite import KINDS, PromptKind, Suite, core_suite, demo_suite, load_suite
from trimtab_gui.desk import Desk
from trimtab_gui.notices import Notice

OWN_SUITES = ("core", "demo")


class Suites(QObject):
    """Several can be chosen; each is read elsewhere when it is first wanted.

    `changed` follows every choice and everything that was read or could not be.
    """

    changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._chosen = {"core"}
        self._covered: tuple[tuple[str, ...], int | None, Coverage] | None = None
        self.names: list[str] = list(OWN_SUITES)
        self.read: dict[str, Suite] = {}
        self.errors: dict[str, UserError] = {}
        self.limit: int | None = None

    # Choosing.

    @property
    def chosen(self) -> list[str]:
        """The names of those that are asked, in the order in which they are offered."""
        return [name for name in self.names if name in self._chosen]

    def is_on(self, name: str) -> bool:
        """Whether a suite is asked."""
        return name in self._chosen

    def switch(self, name: str, on: bool) -> None:
        """Ask a suite, or do not; one that could not be read is tried again."""
        (self._chosen.add if on else self._chosen.discard)(name)
        if on:
            self._read(name)
        self._desk.withdrawn.emit(_topic(name))
        self.changed.emit()

    def add(self, name: str) -> None:
        """Offer a file or folder of prompts, and ask it."""
        if name not in self.names:
            self.names.append(name)
        self.switch(name, True)

    def remove(self, name: str) -> None:
        """Offer a file or folder no longer."""
        self.names.remove(name)
        self.errors.pop(name, None)
        self._desk.background.forget(_topic(name))
        self.switch(name, False)

    def choose(self, name: str) -> None:
        """Ask one suite and no other."""
        self._chosen.clear()
        self.add(name)

    def set_limit(self, limit: int | None) -> None:
        """Ask so many prompts of each kind at most of each suite, or all of them."""
        self.limit = limit
        self.changed.emit()

    # Reading.

    def _read(self, name: str) -> None:
        if name in self.read:
            return
        self.errors.pop(name, None)

        def done(suite: Suite) -> None:
            self.read[name] = suite
            self._desk.withdrawn.emit(_topic(name))
            self.changed.emit()

        def failed(error: Exception) -> None:
            if not isinstance(error, UserError):
                raise error
            self.errors[name] = error
            self._desk.notice.emit(Notice.of(error, topic=_topic(name)))
            self.changed.emit()

        self._desk.background.submit(_topic(name), lambda: _open(name), done, failed)

    @property
    def loading(self) -> bool:
        """Whether one that is chosen is still being read."""
        return any(name not in self.read and name not in self.errors for name in self.chosen)

    @property
    def error(self) -> UserError | None:
        """Why a chosen one cannot be asked; None where all can."""
        return next((self.errors[name] for name in self.chosen if name in self.errors), None)

    @property
    def ready(self) -> list[Suite]:
        """Those that are chosen and read, whole."""
        return [self.read[name] for name in self.chosen if name in self.read]

    # What they hold.

    def counts_of(self, name: str) -> dict[PromptKind, int]:
        """How many prompts of each kind one suite would ask, within the limit."""
        suite = self.read.get(name)
        if suite is None:
            return {}
        found = Counter(prompt.kind for prompt in suite.prompts)
        most = self.limit or len(suite.prompts)
        return {kind: min(found[kind], most) for kind in KINDS if found[kind]}

    @property
    def counts(self) -> dict[PromptKind, int]:
        """How many prompts of each kind all that are chosen would ask."""
        found: Counter[PromptKind] = Counter()
        for name in self.chosen:
            found.update(self.counts_of(name))
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def coverage(self) -> Coverage:
        """What those that are chosen and read would ask about, within the limit."""
        suites, limit = self.ready, self.limit
        key = tuple(suite.digest for suite in suites)
        if self._covered is None or self._covered[:2] != (key, limit):
            asked = [suite if limit is None else limited(suite, limit) for suite in suites]
            found = coverage(prompt for suite in asked for prompt in suite.prompts)
            self._covered = key, limit, found
        return self._covered[2]

    def title(self, name: str) -> str:
        """Return what a suite is called in the window."""
        own = {"core": self.tr("Trimtab core"), "demo": self.tr("Demo language")}
        return own.get(name) or Path(name).name


def _topic(name: str) -> str:
    return f"suite {name}"


def _open(name: str) -> Suite:
    if name == "core":
        return core_suite()
    return demo_suite() if name == "demo" else load_suite(Path(name))
