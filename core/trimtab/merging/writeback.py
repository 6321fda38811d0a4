"""Sends what was written to the disk while a merge goes on, and out of the system's cache.

A result is as large as a model and is not read again soon: left to itself it fills the cache,
pushes out what is read, and waits there to be flushed. The pages that are given back at once are
taken again for what is written next, which costs less than fresh ones.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType

#: bytes after which a flush begins
WINDOW = 64 << 20
#: files smaller than this are left to the system
LEAST = 64 << 20


class Writeback:
    """A thread that flushes ranges of files; closed by leaving the context.

    An error of the disk is raised by the next call of `add`, or by `finish`.
    """

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, int]] = []
        self._size = 0
        self._ended = False
        self._error: OSError | None = None
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, position: int, size: int) -> None:
        """Take a range whose bytes are written and need not be read again."""
        with self._turn:
            self._raise()
            self._ranges.append((descriptor, position, size))
            self._size += size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writeback", daemon=True)
                self._thread.start()
            if self._size >= WINDOW:
                self._turn.notify()

    def finish(self) -> None:
        """Flush what is left and end; raises the OSError of a flush that failed."""
        with self._turn:
            self._ended = True
            self._turn.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def abandon(self) -> None:
        """End without flushing what is left."""
        with self._turn:
            self._ranges.clear()
            self._ended = True
            self._turn.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Writeback:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abandon()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._turn:
                while self._size < WINDOW and not self._ended:
                    self._turn.wait()
                ranges, self._ranges, self._size = self._ranges, [], 0
                ended = self._ended
            try:
                for descriptor in dict.fromkeys(d for d, _, _ in ranges):
                    os.fdatasync(descriptor)
                for descriptor, position, size in ranges:
                    os.posix_fadvise(descriptor, position, size, os.POSIX_FADV_DONTNEED)
            except OSError as error:
                with self._turn:
                    self._error = error
                return
            if ended and not self._ranges:
                return


def available() -> bool:
    """Whether the system has the calls that this needs."""
    return hasattr(os, "posix_fadvise") and hasattr(os, "fdatasync")
