"""The decision log: who decided what on which results, a line at a time, and nothing taken back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab.errors import UserError
from trimtab.evaluation.thresholds import Status, Thresholds, now

Choice = Literal["accepted", "rejected", "deferred", "noted"]
CHOICES: tuple[Choice, ...] = ("accepted", "rejected", "deferred", "noted")


@dataclass(frozen=True)
class Decision:
    """One line of the log.

    `results` is the SHA-256 of the results file, `verdicts` what each target came to against the
    thresholds. `previous` is the SHA-256 of the line before, so that a line that was changed or
    taken out is noticed; empty in the first line.
    """

    when: str
    who: str
    choice: Choice
    results: str
    path: str
    evaluation: str
    thresholds: Thresholds
    verdicts: Mapping[str, Status] = field(default_factory=dict)
    note: str = ""
    previous: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def decide(
    log: Path,
    results: Path,
    *,
    who: str,
    evaluation: str,
    thresholds: Thresholds,
    verdicts: Mapping[str, Status],
    choice: Choice = "noted",
    note: str = "",
) -> Decision:
    """Add a line to a log, which is made where there is none, and return it.

    The line is on the disk when this returns. Raises `UserError` with `no_name` for a decision
    that is nobody's, `bad_log` where the log was tampered with, `unreadable`, `cannot_write`.
    """
    if not who.strip():
        raise UserError(
            "no_name",
            "It was not said who decides.",
            "A decision that is nobody's cannot be asked about later.",
            "Say it with --by NAME.",
        )
    log = Path(log).expanduser()
    lines = _lines(log)
    _checked(lines, log)
    try:
        digest = hashlib.sha256(results.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(results, error) from error
    made = Decision(
        now(), who.strip(), choice, digest, str(results), evaluation, thresholds, dict(verdicts),
        note.strip(), _digest(lines[-1]) if lines else "",
    )  # fmt: skip
    line = json.dumps(made.to_dict(), ensure_ascii=False) + "\n"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        # one write at the end of the file, whoever else writes there
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise UserError(
            "cannot_write",
            f"{log.name} could not be written.",
            f"The system says: {error.strerror}.",
            "Choose another place for the decision log.",
            details=str(log),
        ) from error
    return made


def read_decisions(log: Path) -> list[Decision]:
    """Return all decisions of a log, the oldest first; none where there is no log.

    Raises `UserError` with `bad_log` that names the line, `unreadable`.
    """
    log = Path(log).expanduser()
    return _checked(_lines(log), log)


def _lines(log: Path) -> list[str]:
    try:
        # not splitlines: a note may hold what that takes for the end of a line
        return [line for line in log.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(log, error) from error


def _checked(lines: list[str], log: Path) -> list[Decision]:
    found: list[Decision] = []
    previous = ""
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            decision = Decision(**{**data, "thresholds": Thresholds.from_dict(data["thresholds"])})
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise _bad(log, number, f"it cannot be read ({error})") from error
        if decision.previous != previous:
            raise _bad(log, number, "it does not follow the line that stands before it")
        found.append(decision)
        previous = _digest(line)
    return found


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _bad(log: Path, number: int, why: str) -> UserError:
    return UserError(
        "bad_log",
        f"Line {number} of {log.name} is not what was written there.",
        f"What is wrong with it: {why}.",
        "Bring the log back from a copy, or begin another one.",
        details=str(log),
    )


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        "unreadable",
        f"{path.name} cannot be read.",
        f"The system says: {error}.",
        "Choose another file.",
        details=str(path),
    )
