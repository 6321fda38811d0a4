"""Reads slices of tensors from disk, straight into memory that arithmetic is done on."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.adapter_apply import changed_rows, prepare
from trimtab.checkpoints.header import unreadable
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.lineup import Source
from trimtab.errors import UserError
from trimtab.kernels.rounding import Widen, widen

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
#: makes the memory that is read into, of so many bytes: pinned memory where a GPU is to read it
Allocate = Callable[[int], Bytes]
# rows of an adapted tensor computed at once, in elements
_ROWS = 1 << 18
_KEPT_FACTORS = 6


def _allocate(size: int) -> Bytes:
    return np.empty(size, dtype=np.uint8)


class TensorReader:
    """Positional reads on the files of a lineup; safe to use from several threads.

    Elements are addressed flat, in row-major order. Use as a context manager: leaving it closes
    the files.
    """

    def __init__(self, allocate: Allocate = _allocate, widen: Widen = widen):
        self._allocate = allocate
        self._widen = widen
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._prepared: dict[int, tuple[Source, Any]] = {}

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                try:
                    self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise unreadable(path, error) from error
            return self._files[path]

    def will_read(self, checkpoint: Checkpoint, row: int, low: int, high: int) -> None:
        """Tell the system that elements [low, high) come next: it fetches them meanwhile."""
        index = checkpoint.index
        dtype = index.dtype_of(row)
        start = int(index.start[row]) + dtype.nbytes(low)
        length = dtype.nbytes(high - low)
        if hasattr(os, "posix_fadvise"):
            descriptor = self._descriptor(checkpoint.files[int(index.file[row])])
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def read_raw(
        self,
        checkpoint: Checkpoint,
        row: int,
        low: int,
        high: int,
        out: Bytes | None = None,
    ) -> Bytes:
        """Return elements [low, high) as stored, uint8 [bytes]: in `out`, or in memory of its own.

        `low` must fall on a whole byte where elements are narrower than one. Raises `UserError`
        with `truncated` when the file has become shorter, `unreadable` when the disk fails.
        """
        index = checkpoint.index
        dtype = index.dtype_of(row)
        path = checkpoint.files[int(index.file[row])]
        size = dtype.nbytes(high - low)
        buffer = self._allocate(size) if out is None else out[:size]
        view = buffer.data
        descriptor = self._descriptor(path)
        position = int(index.start[row]) + dtype.nbytes(low)
        filled = 0
        while filled < size:
            try:
                count = os.preadv(descriptor, [view[filled:]], position + filled)
            except OSError as error:
                raise unreadable(path, error) from error
            if count == 0:
                raise UserError(
                    "truncated",
                    f"{path.name} became shorter while it was read.",
                    "Another program changed it.",
                    "Wait until that is finished, then try again.",
                    details=str(path),
                )
            filled += count
        return buffer

    def _scratch(self, size: int) -> Bytes:
        """Return this thread's buffer, uint8 [size]: fresh ones would cost page faults."""
        found: Bytes | None = getattr(self._local, "scratch", None)
        if found is None or len(found) < size:
            found = self._local.scratch = np.empty(size, dtype=np.uint8)
        return found[:size]

    def read(self, source: Source, low: int, high: int, out: Floats | None = None) -> Floats:
        """Return elements [low, high) of a source in float32, [high - low]: in `out` or anew.

        What an adapter or a row map makes of the stored weights is computed in float32, the same
        bits however the tensor is cut.
        """
        values = np.empty(high - low, dtype=np.float32) if out is None else out
        if source.rows is not None:
            self._read_mapped(source, low, high, values)
        elif source.change is not None:
            self._read_changed(source, low, high, values)
        else:
            self.read_plain(source.checkpoint, source.row, low, high, values)
        return values

    def read_plain(
        self, checkpoint: Checkpoint, row: int, low: int, high: int, out: Floats
    ) -> None:
        """Fill `out`, float32 [high - low], with elements of a stored tensor of floats."""
        dtype = checkpoint.index.dtype_of(row)
        if dtype.code == "F32":
            self.read_raw(checkpoint, row, low, high, out.view(np.uint8))
            return
        raw = self.read_raw(checkpoint, row, low, high, self._scratch(dtype.nbytes(high - low)))
        self._widen(raw, dtype.code, out)

    def _read_changed(self, source: Source, low: int, high: int, out: Floats) -> None:
        change, adapter = source.change, source.adapter
        assert change is not None
        assert adapter is not None
        stored = source.checkpoint.index.shapes[source.row]
        width = stored[-1] if stored else 1
        shape = (int(source.checkpoint.index.numel[source.row]) // max(width, 1), width)

        def base(first: int, last: int) -> Floats:
            rows = np.empty((last - first) * width, dtype=np.float32)
            self.read_plain(source.checkpoint, source.row, first * width, last * width, rows)
            return rows.reshape(last - first, width)

        def factor(row: int) -> Floats:
            return self._whole(adapter, row)

        ready = self._prepare(source, lambda: prepare(change, shape, base, factor))
        # blocks as the change is computed in, or their edges would be computed twice
        step = max(1, _ROWS // (64 * max(width, 1))) * 64
        last_row = -(-high // width)
        for block in range(low // width // 64 * 64, last_row, step):
            first, last = max(block, low // width), min(block + step, last_row)
            rows = changed_rows(change, shape, first, last, base, factor, ready).reshape(-1)
            begin, end = max(low, first * width), min(high, last * width)
            out[begin - low : end - low] = rows[begin - first * width : end - first * width]

    def _read_mapped(self, source: Source, low: int, high: int, out: Floats) -> None:
        rows = source.rows
        assert rows is not None
        stored = source.checkpoint.index.shapes[source.row]
        width = int(np.prod(stored[1:], dtype=np.int64)) if len(stored) > 1 else 1

        def fetch(part: int, first: int, last: int) -> Floats:
            values = self.read(rows.parts[part], first * width, last * width)
            return values.reshape(last - first, width)

        mean = None
        if rows.padding:
            mean = self._prepare(source, lambda: rows.mean_row(width, fetch))
        first, last = low // width, -(-high // width)
        flat = rows.read(first, last, width, fetch, mean).reshape(-1)
        out[:] = flat[low - first * width : high - first * width]

    def _prepare(self, source: Source, compute: Callable[[], Any]) -> Any:
        """Compute once a source what needs all of its tensor; the last few stay at hand."""
        key = id(source)
        with self._lock:
            known = self._prepared.get(key)
        if known is not None and known[0] is source:
            return known[1]
        value = compute()
        with self._lock:
            while len(self._prepared) >= 16:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = (source, value)
        return value

    def _whole(self, checkpoint: Checkpoint, row: int) -> Floats:
        """Return a factor as float32; the last few stay at hand, slices of a tensor share them."""
        cache: OrderedDict[tuple[Path, int], Floats]
        cache = self._local.__dict__.setdefault("factors", OrderedDict())
        key = (checkpoint.path, row)
        if key not in cache:
            while len(cache) >= _KEPT_FACTORS:
                cache.popitem(last=False)
            flat = np.empty(int(checkpoint.index.numel[row]), dtype=np.float32)
            self.read_plain(checkpoint, row, 0, flat.size, flat)
            cache[key] = flat.reshape(checkpoint.index.shapes[row])
        return cache[key]
