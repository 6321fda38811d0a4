"""What SOMF's log tells of a learning, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SomfLog:
    """The entries of a log; every tuple has one value for each of `at`, the steps looked at.

    `preferred` is the share of a step's pairs whose wanted answer is the likelier one, `histogram`
    the share of entries whose σ(x) lies in each of equal parts of [0, 1], at the last of them.
    """

    steps: int = 0
    at: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    margin: tuple[float, ...] = ()
    preferred: tuple[float, ...] = ()
    histogram: tuple[float, ...] = ()

    @property
    def step(self) -> int:
        """The last step looked at, 0 before the first."""
        return self.at[-1] if self.at else 0

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]], steps: int) -> SomfLog:
        """Read the log's entries. Raises KeyError and TypeError when they are none."""
        return cls(
            steps,
            tuple(int(entry["step"]) for entry in entries),
            tuple(float(entry["loss"]) for entry in entries),
            tuple(float(entry["margin"]) for entry in entries),
            tuple(float(entry["preferred"]) for entry in entries),
            tuple(float(share) for share in entries[-1]["histogram"]) if entries else (),
        )


def read_log(path: Path) -> SomfLog | None:
    """Read the log that grows while SOMF learns; None while there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SomfLog.of(content["log"], int(content["steps"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
