"""What long work needs to know of whoever asked for it: where to report, when to stop."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


class JobCancelled(Exception):
    """Raised inside work that was told to stop."""


class JobAbandoned(Exception):
    """Raised inside work whose asker has gone: stop, and keep what is done to go on with."""


class Control(Protocol):
    """Reports go in, the wish to stop comes out; implementations are thread-safe."""

    def check(self) -> None:
        """Raise `JobCancelled` or `JobAbandoned` when the work should stop."""

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Begin a stage of `total` items and `bytes_total` bytes."""

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Count finished items and bytes."""


@runtime_checkable
class Listening(Control, Protocol):
    """A `Control` of somebody who reads along while a text is written."""

    def say(self, text: str) -> None:
        """Report what has been written so far."""


@runtime_checkable
class Receiving(Control, Protocol):
    """A `Control` of somebody who takes what is ready before all of it is."""

    def part(self, part: dict[str, Any]) -> None:
        """Hand over a part of the result, ready for JSON; the whole still follows."""


class Unattended:
    """A `Control` for callers who neither watch nor stop."""

    def check(self) -> None:
        """Never stop."""

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Report to nobody."""

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Report to nobody."""
