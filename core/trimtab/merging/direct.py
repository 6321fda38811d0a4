"""Writes and reads large files past the system's cache, where the system lets us.

A result is as large as a model and is not read again soon: in the cache it would push out what is,
and filling the cache costs more than the disk does. Whole blocks go directly, from memory of whole
pages; what is left at both ends of a range goes the ordinary way.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Protocol

#: direct transfers begin and end on multiples of this; every disk in use today divides it
BLOCK = 4096
#: bytes handed to the disk at once
STAGE = 4 << 20
#: smaller files are left to the system's cache
LEAST = 64 << 20


class Digest(Protocol):
    """What is fed with the bytes that were read."""

    def update(self, data: memoryview, /) -> object:
        """Take the next bytes."""


class LargeFile:
    """A file that is open for reading and writing; safe to use from several threads."""

    def __init__(self, path: Path, size: int):
        self.plain = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._direct = -1
        self._size = size
        if size >= LEAST and hasattr(os, "O_DIRECT"):
            try:
                self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
            except OSError:
                self._direct = -1  # a file system that knows no such thing

    @property
    def direct(self) -> bool:
        """Whether whole blocks go past the cache."""
        return self._direct >= 0

    def write(self, data: memoryview | bytes, position: int) -> None:
        """Write bytes anywhere, by way of the cache."""
        view = memoryview(data)
        while len(view):
            count = os.pwrite(self.plain, view, position)
            view, position = view[count:], position + count

    def write_blocks(self, data: memoryview, position: int) -> None:
        """Write whole blocks from memory that begins on a page."""
        if self._direct >= 0:
            try:
                count = os.pwrite(self._direct, data, position)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                count = 0  # blocks larger than ours: leave it to the cache
            data, position = data[count:], position + count
        self.write(data, position)

    def feed(self, digest: Digest, position: int, size: int) -> None:
        """Read a range back, from the disk itself where it was written so, into a digest.

        What is missing at the end of the file is left out.
        """
        stop = min(position + size, self._size)
        stage = staging()
        at = position
        while at < stop:
            low = at // BLOCK * BLOCK
            wanted = min(STAGE, -(-(stop - low) // BLOCK) * BLOCK)
            count = self._read(stage[:wanted], low)
            high = min(low + count, stop)
            if high <= at:
                return
            digest.update(stage[at - low : high - low])
            at = high

    def _read(self, out: memoryview, position: int) -> int:
        if self._direct >= 0:
            try:
                return os.preadv(self._direct, [out], position)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return os.preadv(self.plain, [out], position)

    def flush(self) -> None:
        """Have everything on the disk."""
        os.fsync(self.plain)

    def close(self) -> None:
        """Close the file."""
        for descriptor in (self.plain, self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self.plain = self._direct = -1


class RangeWriter:
    """Writes one range of a file front to back, gathering whole blocks on the way."""

    def __init__(self, file: LargeFile):
        self._file = file
        self._stage = staging() if file.direct else memoryview(b"")
        self._filled = 0
        self._at = -1  # where what is staged belongs

    def write(self, data: memoryview, position: int) -> None:
        """Write the next bytes; they belong where the last ones ended."""
        if not self._file.direct:
            self._file.write(data, position)
            return
        if self._at < 0:
            head = min(-position % BLOCK, len(data))
            self._file.write(data[:head], position)
            data, self._at = data[head:], position + head
            if self._at % BLOCK:
                self._at = -1  # still inside the first block
                return
        while len(data):
            count = min(len(data), STAGE - self._filled)
            self._stage[self._filled : self._filled + count] = data[:count]
            data, self._filled = data[count:], self._filled + count
            if self._filled == STAGE:
                self._file.write_blocks(self._stage, self._at)
                self._at, self._filled = self._at + STAGE, 0

    def finish(self) -> None:
        """Write what is still staged."""
        whole = self._filled // BLOCK * BLOCK
        if whole:
            self._file.write_blocks(self._stage[:whole], self._at)
        if self._filled > whole:
            self._file.write(self._stage[whole : self._filled], self._at + whole)
        self._filled = 0


_local = threading.local()


def staging() -> memoryview:
    """Return this thread's `STAGE` bytes of memory, which begin on a page."""
    found: memoryview | None = getattr(_local, "stage", None)
    if found is None:
        found = _local.stage = memoryview(mmap.mmap(-1, STAGE))
    return found
