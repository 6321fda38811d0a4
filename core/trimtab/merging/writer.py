"""Writes a checkpoint so that its final name appears only when every byte is in and verified."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import xxhash

from trimtab.checkpoints.header import read_header
from trimtab.errors import UserError
from trimtab.merging.layout import Shard
from trimtab.merging.place import (
    JOURNAL,
    flush,
    give_name,
    is_ours,
    os_error,
    output_busy,
    output_exists,
    partial_path,
)
from trimtab.merging.writeback import LEAST, Writeback, available

_READ = 4 << 20
_OPEN = os.O_RDWR | os.O_CLOEXEC


class CheckpointWriter:
    """Pre-sized shards in `<output>.partial`, a journal of finished pieces, one rename at the end.

    `item` numbers are the plan's; each is journalled with the hash of its bytes after it was
    written, so that a resumed run trusts only what it can read back. Use as a context manager:
    leaving it by an exception closes the files and keeps the partial folder for `resume`, unless
    `discard` was called.
    """

    def __init__(self, output: Path, shards: Sequence[Shard], plan_digest: str, resume: bool):
        self.output = output
        self.partial = partial_path(output)
        self._shards = shards
        self._digest = plan_digest
        self._resume = resume
        self._files: list[int] = []
        self._journal = -1
        self._lock = threading.Lock()
        self._writeback = Writeback()
        self._verified: set[int] = set()
        self._done: dict[int, tuple[int, int, int, int]] = {}

    def __enter__(self) -> CheckpointWriter:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise os_error(error, self.output) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if isinstance(value, OSError):
            raise os_error(value, self.output) from value

    def _open(self) -> None:
        journal_path = self.partial / JOURNAL
        if self.partial.exists() and not self._resume:
            self._refuse_if_busy(journal_path)
            if not is_ours(self.partial):
                raise UserError(
                    "cannot_write",
                    f"{self.partial.name} is in the way.",
                    "It was not made by Trimtab, so it is not removed.",
                    "Rename it, or choose another name for the result.",
                    details=str(self.partial),
                )
            shutil.rmtree(self.partial)
        if self._resume and not journal_path.exists():
            raise self._cannot_resume("There is no unfinished merge at this place.")
        fresh = not self.partial.exists()
        self.partial.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(journal_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lock_journal()
        if fresh:
            self._create_shards()
            self._append({"plan": self._digest})
        else:
            self._read_journal(journal_path)

    def _refuse_if_busy(self, journal_path: Path) -> None:
        if journal_path.exists():
            self._journal = os.open(journal_path, os.O_RDWR | os.O_CLOEXEC)
            self._lock_journal()
            os.close(self._journal)
            self._journal = -1

    def _lock_journal(self) -> None:
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise output_busy(self.output) from error

    def _cannot_resume(self, why: str) -> UserError:
        return UserError(
            "cannot_resume",
            f"{self.output.name} cannot be resumed.",
            why,
            "Start the merge anew.",
            details=str(self.partial),
        )

    def _create_shards(self) -> None:
        for shard in self._shards:
            file = os.open(self.partial / shard.name, _OPEN | os.O_CREAT, 0o644)
            self._files.append(file)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, 0, shard.nbytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    shutil.rmtree(self.partial, ignore_errors=True)
                    raise
            os.ftruncate(file, shard.nbytes)
            _write_all(file, shard.header, 0)

    def _read_journal(self, path: Path) -> None:
        # what follows the last line break is a torn line, even where it looks whole
        lines = path.read_bytes().split(b"\n")[:-1]
        try:
            plan = json.loads(lines[0])["plan"]
        except (ValueError, LookupError, TypeError):
            plan = None
        if plan != self._digest:
            raise self._cannot_resume("The models or the recipe have changed since.")
        for shard in self._shards:
            target = self.partial / shard.name
            if not target.exists() or target.stat().st_size != shard.nbytes:
                raise self._cannot_resume(f"{shard.name} is missing or has another size.")
            self._files.append(os.open(target, _OPEN))
            _write_all(self._files[-1], shard.header, 0)
        valid = len(lines[0]) + 1
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                number, shard, at = entry["item"], entry["shard"], entry["at"]
                size, digest = entry["bytes"], entry["hash"]
                inside = 0 <= shard < len(self._shards) and 0 <= at <= at + size
                if not inside or at + size > self._shards[shard].nbytes:
                    break
                self._done[number] = (shard, at, size, digest)
            except (ValueError, KeyError, TypeError):
                break  # whatever follows a damaged line is done again
            valid += len(line) + 1
        os.ftruncate(self._journal, valid)
        os.lseek(self._journal, valid, os.SEEK_SET)
        for number, piece in list(self._done.items()):
            if self._hash_on_disk(*piece[:3]) != piece[3]:
                del self._done[number]

    def _append(self, entry: dict[str, object]) -> None:
        os.write(self._journal, json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def is_done(self, item: int) -> bool:
        """Whether an earlier run has finished this item."""
        return item in self._done

    def item(self, number: int, shard: int) -> ItemWriter:
        """Return the writer of one work item."""
        return ItemWriter(self, number, shard)

    def finished(self, number: int, shard: int, at: int, size: int, digest: int) -> None:
        """Journal an item whose bytes are all written."""
        with self._lock:
            self._append({"item": number, "shard": shard, "at": at, "bytes": size, "hash": digest})
            self._done[number] = (shard, at, size, digest)
        if self._shards[shard].nbytes >= LEAST and available():
            # read back while it is still in the cache, and then on to the disk
            self._compare(number)
            self._verified.add(number)
            self._writeback.add(self._files[shard], at, size)

    def write(self, shard: int, data: memoryview, position: int) -> None:
        """Write `data` at a byte position of a shard."""
        _write_all(self._files[shard], data, position)

    def _hash_on_disk(self, shard: int, position: int, size: int) -> int:
        digest = xxhash.xxh3_64()
        buffer = memoryview(bytearray(min(_READ, size)))
        while size > 0:
            count = os.preadv(self._files[shard], [buffer[: min(size, len(buffer))]], position)
            if count == 0:
                break
            digest.update(buffer[:count])
            position += count
            size -= count
        return digest.intdigest()

    def _compare(self, number: int) -> None:
        shard, position, size, digest = self._done[number]
        if self._hash_on_disk(shard, position, size) != digest:
            why = f"Piece {number} reads back differently"
            raise self._verification_failed(self._shards[shard], why)

    def verify(self, check: Callable[[int], None], threads: int = 1) -> None:
        """Read every piece and header back; `check(bytes)` is called as pieces are done.

        Raises `UserError` with `verification_failed` when the disk holds something else.
        """

        def compare(number: int) -> None:
            if number not in self._verified:
                self._compare(number)
            check(self._done[number][2])

        with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
            try:
                for _ in pool.map(compare, sorted(self._done)):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for shard_plan in self._shards:
            header = read_header(self.partial / shard_plan.name)
            if header.raw != shard_plan.header[8:]:
                raise self._verification_failed(shard_plan, "Its header reads back differently")

    def _verification_failed(self, shard: Shard, why: str) -> UserError:
        return UserError(
            "verification_failed",
            f"{shard.name} does not hold what was written to it.",
            f"{why}: the disk may be failing.",
            "Choose another disk and merge again.",
            details=str(self.partial),
        )

    def commit(self, files: dict[str, bytes], copies: Sequence[Path], overwrite: bool) -> None:
        """Add companions, flush everything to the disk, and give the folder its final name.

        `files` are written under their names, `copies` are copied byte for byte; a name in
        `files` wins over a copy.
        """
        if self.output.exists() and not overwrite:
            raise output_exists(self.output)  # it was not there when the merge began
        for source in copies:
            if source.name not in files:
                shutil.copyfile(source, self.partial / source.name)
        for name, content in files.items():
            (self.partial / name).write_bytes(content)
        self._writeback.finish()
        for descriptor in self._files:
            os.fsync(descriptor)
        self._close()
        give_name(self.partial, self.output)
        # only now: until the folder has its name, the journal is what a resumed run goes by
        (self.output / JOURNAL).unlink()
        flush(self.output)

    def discard(self) -> None:
        """Remove the partial folder: the merge was cancelled."""
        self._close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _close(self) -> None:
        self._writeback.abandon()
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1


class ItemWriter:
    """Writes the bytes of one work item front to back and journals it at the end."""

    def __init__(self, writer: CheckpointWriter, number: int, shard: int):
        self._writer = writer
        self._number = number
        self._shard = shard
        self._digest = xxhash.xxh3_64()
        self._start = -1
        self._size = 0

    def write(self, data: memoryview, position: int) -> None:
        """Write the next bytes, which belong at `position` of the shard."""
        if self._start < 0:
            self._start = position
        self._writer.write(self._shard, data, position)
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> None:
        """Journal the item."""
        self._writer.finished(
            self._number, self._shard, self._start, self._size, self._digest.intdigest()
        )


def _write_all(descriptor: int, data: memoryview | bytes, position: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view, position)
        view = view[count:]
        position += count


def discard_partial(output: Path) -> None:
    """Remove what an interrupted merge to `output` has left, if no merge is using it."""
    partial = partial_path(output)
    if partial.exists():
        with CheckpointWriter(output, (), "", resume=False) as writer:
            writer.discard()
