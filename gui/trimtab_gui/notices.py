"""What the window has to say in a banner, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trimtab.errors import UserError

Kind = Literal["info", "ok", "warning", "error"]


@dataclass(frozen=True)
class Notice:
    """A message and the buttons that help; a later one with the same `topic` takes its place."""

    kind: Kind
    what: str
    why: str = ""
    fix: str = ""
    details: str = ""
    actions: tuple[tuple[str, Callable[[], None]], ...] = ()
    topic: str = ""

    @classmethod
    def of(
        cls,
        error: UserError,
        actions: tuple[tuple[str, Callable[[], None]], ...] = (),
        topic: str = "",
    ) -> Notice:
        """Say what an error says."""
        return cls("error", error.what, error.why, error.fix, error.details, actions, topic)
