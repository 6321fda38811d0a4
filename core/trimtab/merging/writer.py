"""Writes a checkpoint so that its final name appears only when every byte is in and verified."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import xxhash

from trimtab.checkpoints.header import read_header
from trimtab.errors import UserError
from trimtab.merging.layout import Shard

JOURNAL = "trimtab-journal.jsonl"
_READ = 8 << 20
_MARGIN = 16 << 20


def partial_path(output: Path) -> Path:
    """Return the name under which `output` is written until it is whole."""
    return output.with_name(output.name + ".partial")


def _disk_full(output: Path, needed: int, free: int) -> UserError:
    return UserError(
        "disk_full",
        "There is not enough room on the disk.",
        f"The result takes {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB are free at {output.parent}.",
        "Free some space or choose another folder.",
        details=str(output),
    )


def _os_error(error: OSError, output: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "disk_full",
            "The disk filled up while the result was written.",
            "What is finished is kept under the name "
            f"{partial_path(output).name}; the final name was not touched.",
            "Free some space and resume, or choose another folder.",
            details=str(output),
        )
    return UserError(
        "cannot_write",
        f"{output.name} could not be written.",
        f"The system says: {error.strerror}.",
        "Choose a folder in which you may write.",
        details=str(error),
    )


def check_output(output: Path, needed: int, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse an output that exists, is one of the inputs, or has no room; changes nothing.

    Raises `UserError` with `output_exists`, `output_is_input`, `cannot_write` or `disk_full`.
    """
    resolved = output.resolve()
    for path in inputs:
        other = path.resolve()
        if resolved == other or resolved in other.parents or other in resolved.parents:
            raise UserError(
                "output_is_input",
                f"{output.name} is one of the models being merged.",
                "Writing there would destroy it while it is read.",
                "Choose another folder for the result.",
                details=str(output),
            )
    if output.exists() and not overwrite:
        raise UserError(
            "output_exists",
            f"{output.name} exists already.",
            "Nothing is overwritten without a yes.",
            "Choose another name, or allow overwriting.",
            details=str(output),
        )
    parent = _existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(
            "cannot_write",
            f"{output.name} cannot be written.",
            f"{parent} is not a folder in which you may write.",
            "Choose another folder.",
            details=str(output),
        )
    free = shutil.disk_usage(parent).free
    if needed + _MARGIN > free:
        raise _disk_full(output, needed, free)


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


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
        self._done: dict[int, tuple[int, int, int, int]] = {}

    def __enter__(self) -> CheckpointWriter:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise _os_error(error, self.output) from error
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
            raise _os_error(value, self.output) from value

    def _open(self) -> None:
        journal_path = self.partial / JOURNAL
        if self.partial.exists() and not self._resume:
            self._refuse_if_busy(journal_path)
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
            raise UserError(
                "output_busy",
                f"{self.output.name} is being written by another merge.",
                f"It has {self.partial.name} open.",
                "Wait until it is finished, or choose another name.",
                details=str(self.partial),
            ) from error

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
            descriptor = os.open(
                self.partial / shard.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            self._files.append(descriptor)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, shard.nbytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    shutil.rmtree(self.partial, ignore_errors=True)
                    raise
            os.ftruncate(descriptor, shard.nbytes)
            _write_all(descriptor, shard.header, 0)

    def _read_journal(self, path: Path) -> None:
        lines = path.read_bytes().split(b"\n")
        try:
            first = json.loads(lines[0])
        except ValueError:
            first = {}
        if first.get("plan") != self._digest:
            raise self._cannot_resume("The models or the recipe have changed since.")
        for shard in self._shards:
            target = self.partial / shard.name
            if not target.exists() or target.stat().st_size != shard.nbytes:
                raise self._cannot_resume(f"{shard.name} is missing or has another size.")
            self._files.append(os.open(target, os.O_RDWR | os.O_CLOEXEC))
        valid = len(lines[0]) + 1
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                self._done[entry["item"]] = (
                    entry["shard"], entry["at"], entry["bytes"], entry["hash"]
                )  # fmt: skip
            except (ValueError, KeyError, TypeError):
                break  # the last line may be torn
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

    def verify(self, check: Callable[[int], None]) -> None:
        """Read every piece and header back; `check(bytes)` is called as pieces are done.

        Raises `UserError` with `verification_failed` when the disk holds something else.
        """
        for number, (shard, position, size, digest) in sorted(self._done.items()):
            if self._hash_on_disk(shard, position, size) != digest:
                raise UserError(
                    "verification_failed",
                    f"{self._shards[shard].name} does not hold what was written to it.",
                    f"Piece {number} reads back differently: the disk may be failing.",
                    "Choose another disk and merge again.",
                    details=str(self.partial),
                )
            check(size)
        for shard_plan in self._shards:
            read_header(self.partial / shard_plan.name)

    def commit(self, files: dict[str, bytes], copies: Sequence[Path]) -> None:
        """Add companions, flush everything to the disk, and give the folder its final name.

        `files` are written under their names, `copies` are copied byte for byte; a name in
        `files` wins over a copy.
        """
        for source in copies:
            if source.name not in files:
                shutil.copyfile(source, self.partial / source.name)
        for name, content in files.items():
            (self.partial / name).write_bytes(content)
        for descriptor in self._files:
            os.fsync(descriptor)
        self._close()
        (self.partial / JOURNAL).unlink()
        for path in self.partial.iterdir():
            _fsync_path(path)
        _fsync_path(self.partial)
        replaced = self.output.with_name(f"{self.output.name}.replaced-{os.getpid()}")
        if self.output.exists():
            self.output.rename(replaced)
        try:
            self.partial.rename(self.output)
        except OSError:
            if replaced.exists():
                replaced.rename(self.output)
            raise
        if replaced.exists():
            shutil.rmtree(replaced) if replaced.is_dir() else replaced.unlink()
        _fsync_path(self.output.parent)

    def discard(self) -> None:
        """Remove the partial folder: the merge was cancelled."""
        self._close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _close(self) -> None:
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


def _fsync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # some file systems cannot flush a folder, and need not
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard_partial(output: Path) -> None:
    """Remove what an interrupted merge to `output` has left, if no merge is using it."""
    partial = partial_path(output)
    if partial.exists():
        with CheckpointWriter(output, (), "", resume=False) as writer:
            writer.discard()
