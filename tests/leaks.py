"""Remembers which line made a thing, so that a test that leaves it behind can be told where."""

from __future__ import annotations

import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

_LIBRARIES = tuple({sysconfig.get_path("stdlib"), *(p for p in sys.path if "site-packages" in p)})
_OURSELVES = (__file__, str(Path(__file__).with_name("conftest.py")))
_GRACE_S = 1.0
_owners: list[Any] = []
_living: set[int] = set()


@dataclass(frozen=True)
class Origin:
    """The lines that made something, innermost first, and the wider fixture it was made in."""

    lines: tuple[str, ...]
    owner: int | None


@dataclass(frozen=True)
class Leak:
    """Something that is still there after its test."""

    what: str
    key: Any
    origin: Origin | None
    cleanup: Callable[[], object]

    @property
    def belongs_to_living_fixture(self) -> bool:
        """Whether a module- or session-scoped fixture that is still in use holds it."""
        return self.origin is not None and self.origin.owner in _living

    @property
    def text(self) -> str:
        """What was left behind and the line that made it."""
        if self.origin is None:
            return f"{self.what}\n    made where no test could see it"
        return f"{self.what}\n    made at " + "\n    called from ".join(self.origin.lines)


@contextmanager
def made_by(fixture: Any) -> Iterator[None]:
    """Within, whatever is made belongs to `fixture` and may live as long as it does."""
    _owners.append(fixture)
    _living.add(id(fixture))
    try:
        yield
    finally:
        _owners.pop()


def release(fixture: Any) -> None:
    """Say that `fixture` has been torn down: what it made must be gone by now."""
    _living.discard(id(fixture))


def settle(survivors: Callable[[], list[Leak]]) -> list[Leak]:
    """What is still there after a moment of grace."""
    deadline = time.monotonic() + _GRACE_S
    left = survivors()
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = survivors()
    return left


def origin_here() -> Origin:
    """The lines of our own (not of libraries) on the present stack, innermost first."""
    lines = []
    frame = sys._getframe(1)
    while frame is not None and len(lines) < 4:
        name = frame.f_code.co_filename
        if not name.startswith((*_LIBRARIES, "<frozen")) and name not in _OURSELVES:
            lines.append(f"{name}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return Origin(tuple(lines), id(_owners[-1]) if _owners else None)


class Register:
    """Where things of one kind were made, by a key that is gone when the thing is."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self._origins: dict[int, Origin] = {}

    def watch(self, cls: type, method: str, key: Callable[[Any], int] = id) -> None:
        """Wrap `cls.method` so that each call enters `key(self)` here with its origin."""
        original = getattr(cls, method)
        origins = self._origins

        @wraps(original, updated=())
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            origins[key(self)] = origin_here()
            return result

        setattr(cls, method, watched)

    def leak(self, what: str, thing: Any, cleanup: Callable[[], object] = lambda: None) -> Leak:
        """`thing` (an object, or the key it was entered under) as a leak with its origin."""
        key = thing if isinstance(thing, int) else id(thing)
        return Leak(what, (self.kind, key), self._origins.get(key), cleanup)
