"""Keeps tensors at hand between two blocks: in memory as far as there is room, else on the disk."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from trimtab.errors import UserError

#: bytes that are kept in memory
ROOM = 2 << 30


class Shelf:
    """Tensors by key, on the CPU. Use as a context manager: what lies on the disk is gone after.

    `room` is how many bytes may stay in memory; the rest goes to a file without a name in
    `folder`. Raises `UserError` with `cannot_write` when the disk is full.
    """

    def __init__(self, folder: Path, room: int = ROOM):
        self._folder = folder
        self._room = room
        self._memory: dict[Hashable, torch.Tensor] = {}
        self._places: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._file: int | None = None
        self._end = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._memory.clear()
        self._places.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def on_disk(self) -> int:
        """Bytes that the file has grown to."""
        return self._end

    def put(self, key: Hashable, tensor: torch.Tensor) -> None:
        """Keep a tensor under a key that is free."""
        tensor = tensor.detach().to("cpu")
        if tensor.nbytes <= self._room:
            self._room -= tensor.nbytes
            self._memory[key] = tensor
            return
        size = tensor.nbytes
        free = self._free[size]
        place = free.pop() if free else self._end
        self._end = max(self._end, place + size)
        self._places[key] = (place, tensor.shape, tensor.dtype)
        data = _bytes(tensor.contiguous().reshape(-1).view(torch.uint8))
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file, name = tempfile.mkstemp(dir=self._folder, prefix="shelf-")
                Path(name).unlink()
            written = 0
            while written < size:
                written += os.pwrite(self._file, data[written:], place + written)
        except OSError as error:
            raise UserError(
                "cannot_write",
                "What the blocks hand on does not fit on the disk.",
                f"The system says: {error.strerror}.",
                "Make room in the cache folder, or calibrate on fewer examples.",
                details=str(self._folder),
            ) from error

    def get(self, key: Hashable) -> torch.Tensor:
        """Return the tensor of a key, which keeps it."""
        if key in self._memory:
            return self._memory[key]
        place, shape, dtype = self._places[key]
        assert self._file is not None
        size = shape.numel() * dtype.itemsize
        out = torch.empty(size, dtype=torch.uint8)
        view, read = _bytes(out), 0
        while read < size:
            count = os.preadv(self._file, [view[read:]], place + read)
            assert count  # nobody else knows of the file
            read += count
        return out.view(dtype).reshape(shape)

    def take(self, key: Hashable) -> torch.Tensor:
        """Return the tensor of a key and keep it no longer."""
        tensor = self.get(key)
        if self._memory.pop(key, None) is not None:
            self._room += tensor.nbytes
        else:
            place = self._places.pop(key)[0]
            self._free[tensor.nbytes].append(place)
        return tensor


def _bytes(tensor: torch.Tensor) -> memoryview:
    array: npt.NDArray[np.uint8] = tensor.numpy()
    return array.data
