"""How long work reports where it stands and learns that it should stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil

from trimtab.control import JobAbandoned, JobCancelled
from trimtab.jobs.protocol import PROGRESS_PER_SECOND, Progress


class JobControl:
    """Handed to a job: `advance` and `stage` report, `check` raises when it should stop.

    Thread-safe. `emit` receives `Progress` messages at most thirty times a second; the first
    and the last of a stage always come.
    """

    def __init__(self, emit: Callable[[Progress], None] | None = None, job_id: int = 0):
        self._emit = emit
        self._id = job_id
        self._cancelled = threading.Event()
        self._abandoned = threading.Event()
        self._lock = threading.Lock()
        self._process = psutil.Process()
        self._stage = self._text = ""
        self._done = self._total = self._bytes = self._bytes_total = 0
        self._last = 0.0
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def cancel(self) -> None:
        """Ask the job to stop; it does at its next chunk."""
        self._cancelled.set()

    def abandon(self) -> None:
        """Tell the job that its asker has gone; it stops and keeps what it has done."""
        self._abandoned.set()

    def check(self) -> None:
        """Raise `JobAbandoned` or `JobCancelled` when the job should stop."""
        if self._abandoned.is_set():
            raise JobAbandoned
        if self._cancelled.is_set():
            raise JobCancelled

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Begin a stage of `total` items and `bytes_total` bytes."""
        with self._lock:
            self._stage, self._total, self._bytes_total = name, total, bytes_total
            self._done = self._bytes = 0
            self._text = ""
            self._history.clear()
            self._history.append((time.monotonic(), 0))
            self._send()

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Count finished items and bytes."""
        with self._lock:
            self._done += items
            self._bytes += n_bytes
            now = time.monotonic()
            # items need not end in order: the last bytes may come after the last item was counted
            last = self._done >= self._total and (items > 0 or self._bytes >= self._bytes_total)
            if last or now - self._last >= 1 / PROGRESS_PER_SECOND:
                self._history.append((now, self._bytes))
                while len(self._history) > 2 and now - self._history[0][0] > 3:
                    self._history.popleft()
                self._send()

    def say(self, text: str) -> None:
        """Report what has been written so far."""
        with self._lock:
            self._text = text
            if time.monotonic() - self._last >= 1 / PROGRESS_PER_SECOND:
                self._send()

    def part(self, part: dict[str, Any]) -> None:
        """Hand over a part of the result; however soon after the last report, it is sent."""
        with self._lock:
            self._send(part)

    def _send(self, part: dict[str, Any] | None = None) -> None:
        if self._emit is None:
            return
        self._last = time.monotonic()
        (start, before), (end, after) = self._history[0], self._history[-1]
        rate = (after - before) / (end - start) if end > start else 0.0
        left = (self._bytes_total - self._bytes) / rate if rate > 0 else None
        memory = int(self._process.memory_info().rss)
        self._emit(
            Progress(self._id, self._stage, self._done, self._total, self._bytes,
                     self._bytes_total, rate, left, memory, self._text, part)
        )  # fmt: skip
