"""The language between a window and its worker: one JSON object a line, each way.

Commands go to the worker's stdin, events come from its stdout. The worker leaves when its stdin
closes. Progress comes at most thirty times a second; the first and the last always come.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

PROTOCOL_VERSION = 1
PROGRESS_PER_SECOND = 30


class ProtocolError(ValueError):
    """A line that is not a message of this protocol."""


@dataclass(frozen=True)
class Run:
    """Command: run `job` with `params`; every event about it carries `id`."""

    TYPE: ClassVar[str] = "run"
    id: int
    job: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Cancel:
    """Command: stop job `id` at its next work item."""

    TYPE: ClassVar[str] = "cancel"
    id: int


@dataclass(frozen=True)
class Quit:
    """Command: stop what is running, keep what it has done, and leave; as if stdin closed."""

    TYPE: ClassVar[str] = "quit"


@dataclass(frozen=True)
class Hello:
    """Event: the worker is there and speaks `protocol`."""

    TYPE: ClassVar[str] = "hello"
    protocol: int
    version: str
    pid: int


@dataclass(frozen=True)
class Accepted:
    """Event: job `id` has begun."""

    TYPE: ClassVar[str] = "accepted"
    id: int


@dataclass(frozen=True)
class Progress:
    """Event: where job `id` stands.

    `done` of `total` work items, `bytes_done` of `bytes_total` bytes, `bytes_per_second` over the
    last seconds, `seconds_left` None while unknown, `memory_bytes` resident in the worker. `text`
    is what has been written so far, where the job writes; `part` is what of the result is ready,
    where the job hands it over before the rest, else None.
    """

    TYPE: ClassVar[str] = "progress"
    id: int
    stage: str
    done: int
    total: int
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    memory_bytes: int = 0
    text: str = ""
    part: dict[str, Any] | None = None


@dataclass(frozen=True)
class Log:
    """Event: a line for the log, `level` as in `logging`."""

    TYPE: ClassVar[str] = "log"
    id: int
    level: str
    text: str


@dataclass(frozen=True)
class Result:
    """Event: job `id` is done; large results are files named in `result`."""

    TYPE: ClassVar[str] = "result"
    id: int
    result: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Event: job `id` ended with an error in the form of `UserError.to_dict`."""

    TYPE: ClassVar[str] = "error"
    id: int
    error: dict[str, str]


@dataclass(frozen=True)
class Cancelled:
    """Event: job `id` has stopped because it was told to."""

    TYPE: ClassVar[str] = "cancelled"
    id: int


Command = Run | Cancel | Quit
Event = Hello | Accepted | Progress | Log | Result | Failed | Cancelled

_COMMANDS = {kind.TYPE: kind for kind in (Run, Cancel, Quit)}
_EVENTS = {kind.TYPE: kind for kind in (Hello, Accepted, Progress, Log, Result, Failed, Cancelled)}


def encode(message: Command | Event) -> str:
    """Return the message as one line of JSON without the line break."""
    return json.dumps({"type": message.TYPE, **asdict(message)}, ensure_ascii=True)


# what JSON values may stand for each annotation used above
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, Any] | None": (dict, type(None)),
    "dict[str, str]": (dict,),
}


def _decode(line: str | bytes, kinds: dict[str, Any]) -> Any:
    try:
        data = json.loads(line)
        kind = kinds[data.pop("type")]
        known = {field.name: _ACCEPTED[str(field.type)] for field in fields(kind)}
        for key, types in known.items():
            if key in data and (isinstance(data[key], bool) or not isinstance(data[key], types)):
                raise ValueError(f"{key} is a {type(data[key]).__name__}")
        # a newer speaker may add fields: they are skipped, a missing one is an error
        return kind(**{key: value for key, value in data.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"not a message: {line[:200]!r}") from error


def decode_command(line: str | bytes) -> Command:
    """Parse one line sent to the worker; raises `ProtocolError`."""
    command: Command = _decode(line, _COMMANDS)
    return command


def decode_event(line: str | bytes) -> Event:
    """Parse one line sent by the worker; raises `ProtocolError`."""
    event: Event = _decode(line, _EVENTS)
    return event
