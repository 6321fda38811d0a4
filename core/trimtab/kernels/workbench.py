"""Where pieces are worked on: compiled loops or torch on the CPU, or a stream of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimtab.kernels import rounding
from trimtab.kernels.piece import Array, Ops
from trimtab.kernels.whole import MEASURED, default_backend, make_ops

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Workbench(Protocol):
    """One thread's place to work: takes float32 from the reader, gives bytes to the writer."""

    ops: Ops
    #: elements of a piece, and of one that is measured
    piece: int
    measured: int

    def allocate(self, size: int) -> Bytes:
        """Return memory to read into, of so many bytes."""

    #: whether stored bytes are wanted as they are, to be widened where the work is done
    wants_stored: bool

    def working(self) -> AbstractContextManager[object]:
        """The context in which the primitives are called."""

    def place(self, values: Sequence[Floats], shape: tuple[int, ...] | None) -> list[Array]:
        """Bring what was read to where the work is done; in a shape where one is given."""

    def place_stored(self, raw: Bytes, code: str, shape: tuple[int, ...] | None) -> Array:
        """Bring stored bytes there and widen them to float32."""

    def fetch(self, merged: Array, code: str, out: Bytes) -> bool:
        """Round a result into `out`; returns whether all of it is finite."""


class CpuBench:
    """The CPU, by compiled loops or by torch's own operations."""

    # small enough for a few slices to stay in the processor's cache
    piece = 1 << 18
    # the same whatever the settings: sums do not depend on them
    measured = MEASURED
    wants_stored = False

    def __init__(self, backend: str):
        self.ops = make_ops(backend)
        self._torch = backend == "torch"
        conversion = rounding.plain_conversion if self._torch else rounding.compiled_conversion
        self._store = conversion().store

    def allocate(self, size: int) -> Bytes:
        return np.empty(size, dtype=np.uint8)

    def place(self, values: Sequence[Floats], shape: tuple[int, ...] | None) -> list[Array]:
        arrays: list[Array] = [v if shape is None else v.reshape(shape) for v in values]
        if not self._torch:
            return arrays
        import torch

        return [torch.from_numpy(array) for array in arrays]

    def place_stored(self, raw: Bytes, code: str, shape: tuple[int, ...] | None) -> Array:
        values = np.empty(raw.size * 8 // _BITS[code], dtype=np.float32)
        rounding.widen(raw, code, values)
        return self.place([values], shape)[0]

    def working(self) -> AbstractContextManager[object]:
        return nullcontext()

    def fetch(self, merged: Array, code: str, out: Bytes) -> bool:
        flat = merged.numpy() if self._torch else merged
        return self._store(np.ascontiguousarray(flat.reshape(-1)), code, out)


class CudaBench:
    """A CUDA device, on a stream of this thread's own, through pinned memory."""

    # large enough for a kernel's launch to cost nothing beside its work
    piece = 1 << 23
    measured = 1 << 23
    wants_stored = True

    def __init__(self, device: str):
        import torch

        self.ops = make_ops("torch")
        self._torch = torch
        self._device = torch.device(device)
        self.stream = torch.cuda.Stream(self._device)

    def allocate(self, size: int) -> Bytes:
        memory: Bytes = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True).numpy()
        return memory

    def place(self, values: Sequence[Floats], shape: tuple[int, ...] | None) -> list[Array]:
        torch = self._torch
        with torch.cuda.stream(self.stream):
            moved = [torch.from_numpy(v).to(self._device, non_blocking=True) for v in values]
        return [m if shape is None else m.reshape(shape) for m in moved]

    def place_stored(self, raw: Bytes, code: str, shape: tuple[int, ...] | None) -> Array:
        torch = self._torch
        with torch.cuda.stream(self.stream):
            moved = torch.from_numpy(raw).to(self._device, non_blocking=True)
            values = moved.view(getattr(torch, _TORCH[code])).to(torch.float32, copy=True)
        return values if shape is None else values.reshape(shape)

    def working(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = self._torch.cuda.stream(self.stream)
        return context

    def fetch(self, merged: Array, code: str, out: Bytes) -> bool:
        torch = self._torch
        with torch.cuda.stream(self.stream):
            stored = merged.reshape(-1).to(getattr(torch, _TORCH[code]))
            finite = torch.isfinite(stored).all()
            # waits for the stream: what was read from may be overwritten after this
            torch.from_numpy(out).copy_(stored.view(torch.uint8))
        return bool(finite)


def make_bench(device: str, backend: str | None, method_backend: str) -> CpuBench | CudaBench:
    """Return a place to work on a device; a method may ask for torch wherever it runs."""
    if device != "cpu":
        return CudaBench(device)
    chosen = backend or default_backend()
    return CpuBench("torch" if method_backend == "torch" else chosen)


__all__ = ["CpuBench", "CudaBench", "Workbench", "make_bench"]
