"""Reads slices of tensors from disk, straight into memory that torch computes on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from trimtab.checkpoints.dtypes import TORCH_NAMES
from trimtab.checkpoints.header import unreadable
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.lineup import Source
from trimtab.errors import UserError


class TensorReader:
    """Positional reads on the files of a lineup; safe to use from several threads.

    Elements are addressed flat, in row-major order. Use as a context manager: leaving it closes
    the files.
    """

    def __init__(self, pin_memory: bool = False):
        self._pin = pin_memory
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

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

    def new_buffer(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Return an uninitialised CPU tensor, pinned when the reader was asked to."""
        return torch.empty(elements, dtype=dtype, pin_memory=self._pin)

    def read_raw(
        self, checkpoint: Checkpoint, row: int, low: int, high: int, reuse: bool = False
    ) -> Tensor:
        """Return elements [low, high) as stored: uint8 [bytes].

        With `reuse` the bytes lie in this thread's own buffer and are valid until its next read.
        `low` must fall on a whole byte where elements are narrower than one. Raises `UserError`
        with `truncated` when the file has become shorter, `unreadable` when the disk fails.
        """
        index = checkpoint.index
        dtype = index.dtype_of(row)
        path = checkpoint.files[int(index.file[row])]
        size = dtype.nbytes(high - low)
        buffer = self._scratch(size) if reuse else self.new_buffer(size, torch.uint8)
        view = buffer.numpy().data
        descriptor = self._descriptor(path)
        position = int(index.start[row]) + dtype.nbytes(low)
        filled = 0
        while filled < len(view):
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

    def _scratch(self, size: int) -> Tensor:
        """Return this thread's buffer, uint8 [size]: fresh ones would cost page faults."""
        found: Tensor | None = getattr(self._local, "scratch", None)
        if found is None or len(found) < size:
            found = self._local.scratch = self.new_buffer(size, torch.uint8)
        return found[:size]

    def read_stored(
        self, checkpoint: Checkpoint, row: int, low: int, high: int, reuse: bool = False
    ) -> Tensor:
        """Return elements [low, high) in their stored dtype, [high - low]; floats only.

        `reuse` as in `read_raw`.
        """
        dtype = getattr(torch, TORCH_NAMES[checkpoint.index.dtype_of(row).code])
        return self.read_raw(checkpoint, row, low, high, reuse).view(dtype)

    def read(self, source: Source, low: int, high: int, out: Tensor | None = None) -> Tensor:
        """Return elements [low, high) of a source in float32, [high - low]: in `out` or anew.

        For an adapter that is its model's weight plus scale * B @ A, computed in float32.
        """
        values = self.new_buffer(high - low, torch.float32) if out is None else out
        values.copy_(self.read_stored(source.checkpoint, source.row, low, high, reuse=True))
        if source.low_rank is None:
            return values
        return values.add_(self._low_rank_change(source, low, high))

    def _low_rank_change(self, source: Source, low: int, high: int) -> Tensor:
        change, adapter = source.low_rank, source.adapter
        assert change is not None
        assert adapter is not None
        a, b = self._whole(adapter, change.a), self._whole(adapter, change.b)
        left, right = (a.T, b.T) if change.transposed else (b, a)
        width = right.shape[1]
        first, last = low // width, -(-high // width)
        rows = torch.mm(left[first:last], right).mul_(change.scale).flatten()
        return rows[low - first * width : high - first * width]

    def _whole(self, checkpoint: Checkpoint, row: int) -> Tensor:
        """Return a factor as float32; the last few stay at hand, slices of a tensor share them."""
        cache: dict[tuple[Path, int], Tensor] = self._local.__dict__.setdefault("factors", {})
        key = (checkpoint.path, row)
        if key not in cache:
            while len(cache) >= 4:
                del cache[next(iter(cache))]
            numel = int(checkpoint.index.numel[row])
            flat = self.read_stored(checkpoint, row, 0, numel).to(torch.float32)
            cache[key] = flat.view(checkpoint.index.shapes[row])
        return cache[key]
