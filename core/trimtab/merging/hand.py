"""One thread's work on a merge: it reads pieces, lets the method work on them, and writes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Source
from trimtab.checkpoints.dtypes import BY_CODE
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.kernels.piece import Array, Measured, Piece
from trimtab.kernels.rounding import Conversion
from trimtab.kernels.whole import added
from trimtab.kernels.workbench import CpuBench, CudaBench
from trimtab.masks.bits import unpack
from trimtab.masks.stack import TensorMask
from trimtab.merging.plan import Plan, PlannedTensor, WorkItem, sources_read
from trimtab.merging.schedule import Task
from trimtab.merging.writer import CheckpointWriter, ItemWriter

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
#: elements that are read, copied or combined at once: they lie in the cache till they are used
STRIDE = 1 << 18


@dataclass(frozen=True)
class Common:
    """What the threads of a merge share; `compiled` says whether numba's loops are at hand."""

    plan: Plan
    writer: CheckpointWriter
    control: Control
    reader: TensorReader
    conversion: Conversion
    compiled: bool


class _Window:
    """Stored elements of one source around the piece at work, read in longer strides."""

    def __init__(self, reader: TensorReader):
        self._reader = reader
        self._source: Source | None = None
        self._low = self._high = 0
        self._raw = np.empty(0, dtype=np.uint8)

    def read(self, source: Source, low: int, high: int) -> Bytes:
        """Return elements [low, high) as stored; valid until the next call."""
        index = source.checkpoint.index
        dtype = index.dtype_of(source.row)
        if source is not self._source or low < self._low or high > self._high:
            stop = max(high, min(low + STRIDE, int(index.numel[source.row])))
            size = dtype.nbytes(stop - low)
            if self._raw.size < size:
                self._raw = np.empty(size, dtype=np.uint8)
            self._reader.read_raw(source.checkpoint, source.row, low, stop, self._raw)
            self._source, self._low, self._high = source, low, stop
        begin = dtype.nbytes(low - self._low)
        return self._raw[begin : begin + dtype.nbytes(high - low)]


class _Windows:
    """A window for each source of the tensor at work, made when it is asked for."""

    def __init__(self, reader: TensorReader):
        self._reader = reader
        self._found: list[_Window] = []

    def __getitem__(self, number: int) -> _Window:
        while len(self._found) <= number:
            self._found.append(_Window(self._reader))
        return self._found[number]


class Hand:
    """One thread at work: its buffers are kept from piece to piece, fresh ones cost page faults."""

    def __init__(self, common: Common, bench: CpuBench | CudaBench):
        self._common = common
        self._bench = bench
        self._reader = common.reader
        self._floats: list[Floats] = []
        self._windows = _Windows(self._reader)
        self._raw: list[Bytes] = []
        self._out = bench.allocate(0)

    def carry_out(self, task: Task) -> Measured | None:
        """Measure or merge one item; returns what was measured."""
        item = task.item
        control, writer = self._common.control, self._common.writer
        if not task.merges:
            return self._measure(task)
        size = item.tensor.nbytes * (item.high - item.low) // item.tensor.numel
        if not writer.is_done(item.number):
            piece = writer.item(item.number, item.tensor.shard)
            for source in sources_read(item.tensor):
                self._reader.will_read(source.checkpoint, source.row, item.low, item.high)
            if item.tensor.action != "merged":
                self._carry_over(item, piece)
            elif item.tensor.selects:
                self._select(item, piece)
            elif not self._combine_stored(task, piece):
                self._merge(task, piece)
            piece.finish()
        control.advance(1, size)
        return None

    # Merging.

    def _edges(self, item: WorkItem, step: int) -> list[tuple[int, int]]:
        plan = self._common.plan
        scope = plan.method.scope(**item.tensor.parameters)
        if scope == "tensor":
            return [(item.low, item.high)]
        if scope == "row" and item.tensor.shape:
            width = max(item.tensor.shape[-1], 1)
            step = max(step // width, 1) * width
        return list(pairwise([*range(item.low, item.high, step), item.high]))

    def _measure(self, task: Task) -> Measured | None:
        needed = task.work.passes[task.phase]
        whole = self._common.plan.method.scope(**task.item.tensor.parameters) == "tensor"
        stored = needed.takes_stored and not whole and self._is_stored_bf16(task.item.tensor)
        carry: dict[Any, Any] = {}
        total: Measured | None = None
        for low, high in self._edges(task.item, self._bench.measured):
            self._common.control.check()
            with self._bench.working():
                total = added(total, needed.measure(self._piece(task, low, high, carry, stored)))
        return total

    def _merge(self, task: Task, writer: ItemWriter) -> None:
        tensor = task.item.tensor
        method = self._common.plan.method
        carry: dict[Any, Any] = {}
        # what was kept of a pass is kept by its pieces
        kept = task.work.stores[task.item.unit] is not None
        step = self._bench.measured if kept else self._bench.piece
        for low, high in self._edges(task.item, step):
            self._common.control.check()
            with self._bench.working():
                piece = self._piece(task, low, high, carry)
                merged = method.combine(piece, **tensor.parameters)
            out = self._output(BY_CODE[tensor.dtype].nbytes(high - low))
            if not self._bench.fetch(merged, tensor.dtype, out):
                raise _not_finite(tensor, self._reader, low, high)
            writer.write(out.data, tensor.offset + BY_CODE[tensor.dtype].nbytes(low))

    def _piece(
        self, task: Task, low: int, high: int, carry: dict[Any, Any], stored: bool = False
    ) -> Piece:
        tensor = task.item.tensor
        whole = self._common.plan.method.scope(**tensor.parameters) == "tensor"
        shape = tensor.shape if whole else None
        base = None
        if stored:
            sources = enumerate((tensor.origin, *tensor.models))
            arrays = [self._windows[i].read(s, low, high).view(np.uint16) for i, s in sources]
        else:
            arrays = self._arrays(tensor, low, high, shape)
            base = None if tensor.base is None else arrays.pop()
        return Piece(
            arrays[0], arrays[1:], tensor.ratios, tensor.keys, self._bench.ops, tensor.shape,
            tensor.numel, low, task.item.unit, task.work.facts, carry,
            task.work.stores[task.item.unit], base,
        )  # fmt: skip

    def _arrays(
        self, tensor: PlannedTensor, low: int, high: int, shape: tuple[int, ...] | None
    ) -> list[Array]:
        """Read a piece of the reference and of each model to where the work is done."""
        sources = (tensor.origin, *tensor.models, *([] if tensor.base is None else [tensor.base]))
        size = high - low
        if len(self._floats) < len(sources) or self._floats[0].size < size:
            self._floats = [
                self._bench.allocate(4 * size).view(np.float32) for _ in range(len(sources))
            ]
        placed: list[Array | None] = [None] * len(sources)
        floats: dict[int, Floats] = {}
        for i, source in enumerate(sources):
            buffer = self._floats[i][:size]
            code = source.checkpoint.index.dtype_of(source.row).code
            plain = source.change is None and source.rows is None and code != "F64"
            if i and source.same_bytes_as(tensor.origin) and 0 in floats:
                np.copyto(buffer, floats[0])
                floats[i] = buffer
            elif plain and self._bench.wants_stored:
                raw = self._reader.read_raw(
                    source.checkpoint, source.row, low, high, buffer.view(np.uint8)
                )
                placed[i] = self._bench.place_stored(raw, code, shape)
            elif plain and code != "F32" and shape is None:
                raw = self._windows[i].read(source, low, high)
                self._common.conversion.widen(raw, code, buffer)
                floats[i] = buffer
            else:
                floats[i] = self._reader.read(source, low, high, out=buffer)
        for i, array in zip(floats, self._bench.place(list(floats.values()), shape), strict=True):
            placed[i] = array
        for mask, model in zip(tensor.masks, placed[1:], strict=False):
            if isinstance(mask, TensorMask):
                mask.apply(self._bench.ops, model, placed[0], low)
        return placed

    def _is_stored_bf16(self, tensor: PlannedTensor) -> bool:
        """Whether compiled loops can work on the bfloat16 that the files hold as it is."""
        if tensor.base is not None or any(isinstance(mask, TensorMask) for mask in tensor.masks):
            return False
        return self._common.compiled and all(
            s.change is None
            and s.rows is None
            and s.checkpoint.index.dtype_of(s.row).code == "BF16"
            for s in (tensor.origin, *tensor.models)
        )

    def _output(self, size: int) -> Bytes:
        if self._out.size < size:
            self._out = self._bench.allocate(size)
        return self._out[:size]

    # What needs no method, or only factors.

    def _combine_stored(self, task: Task, writer: ItemWriter) -> bool:
        """Merge bfloat16 by factors straight from stored bytes; False where that cannot be done."""
        tensor, method = task.item.tensor, self._common.plan.method
        if method.form is None or tensor.dtype != "BF16":
            return False
        if not self._is_stored_bf16(tensor):
            return False
        gram = task.work.facts[0] if task.work.facts else None
        form = method.form(gram, tensor.ratios, **tensor.parameters)
        if form is None:
            return False
        from trimtab.kernels.compiled import combine_bf16

        # a model that is the reference has not moved: it need not be read
        moved = [i for i, s in enumerate(tensor.models) if not s.same_bytes_as(tensor.origin)]
        if not moved:
            return False
        sources = (tensor.origin, *(tensor.models[i] for i in moved))
        first, factors = np.float32(form[0]), np.asarray(form[1], dtype=np.float32)[moved]
        while len(self._raw) < len(sources):
            self._raw.append(np.empty(2 * STRIDE, dtype=np.uint8))
        for low, high in pairwise([*range(task.item.low, task.item.high, STRIDE), task.item.high]):
            self._common.control.check()
            raws = [
                self._reader.read_raw(s.checkpoint, s.row, low, high, buffer).view(np.uint16)
                for s, buffer in zip(sources, self._raw, strict=False)
            ]
            out = self._output(2 * (high - low))
            if not combine_bf16(raws[0], tuple(raws[1:]), first, factors, out.view(np.uint16)):
                raise _not_finite(tensor, self._reader, low, high)
            writer.write(out.data, tensor.offset + 2 * low)
        return True

    def _select(self, item: WorkItem, writer: ItemWriter) -> None:
        """Write one model's elements where its mask says so, and the reference's elsewhere."""
        tensor, mask = item.tensor, item.tensor.masks[0]
        assert isinstance(mask, TensorMask)
        sources = (tensor.origin, tensor.models[0])
        dtype = BY_CODE[tensor.dtype]
        # as they are stored, if possible: not even float64 is rounded then
        stored = all(
            s.rows is None and s.checkpoint.index.dtype_of(s.row) is dtype for s in sources
        )
        width = dtype.bits // 8
        step = STRIDE // 4
        for low, high in pairwise([*range(item.low, item.high, step), item.high]):
            self._common.control.check()
            kept = unpack(mask.bits(low, high), high - low)
            out = self._output(width * (high - low))
            if stored:
                reference, model = (
                    self._reader.read_raw(s.checkpoint, s.row, low, high).view(f"u{width}")
                    for s in sources
                )
                np.copyto(out.view(f"u{width}"), np.where(kept, model, reference))
                finite = self._common.conversion.is_finite(out, dtype.code)
            else:
                reference, model = (self._reader.read(s, low, high) for s in sources)
                chosen = np.where(kept, model, reference)
                finite = self._common.conversion.store(chosen, dtype.code, out)
            if not finite:
                raise _not_finite(tensor, self._reader, low, high)
            writer.write(out.data, tensor.offset + width * low)

    def _carry_over(self, item: WorkItem, writer: ItemWriter) -> None:
        tensor, origin = item.tensor, item.tensor.origin
        if origin.change is not None or origin.rows is not None:
            self._compute(item, writer)
            return
        stored = origin.checkpoint.index.dtype_of(origin.row)
        if not self._raw:
            self._raw.append(np.empty(2 * STRIDE, dtype=np.uint8))
        step = 2 * STRIDE * 8 // max(stored.bits, 8)
        for low, high in pairwise([*range(item.low, item.high, step), item.high]):
            self._common.control.check()
            raw = self._reader.read_raw(origin.checkpoint, origin.row, low, high, self._raw[0])
            if stored.mergeable and not self._common.conversion.is_finite(raw, stored.code):
                raise _input_not_finite(tensor, origin)
            if tensor.action == "copied":
                writer.write(raw.data, tensor.offset + stored.nbytes(low))
                continue
            values = np.empty(high - low, dtype=np.float32)
            self._common.conversion.widen(raw, stored.code, values)
            out = self._output(BY_CODE[tensor.dtype].nbytes(high - low))
            if not self._common.conversion.store(values, tensor.dtype, out):
                raise _overflow(tensor)
            writer.write(out.data, tensor.offset + BY_CODE[tensor.dtype].nbytes(low))

    def _compute(self, item: WorkItem, writer: ItemWriter) -> None:
        """Write what an adapter or a new vocabulary makes of one model's tensor."""
        tensor = item.tensor
        width = BY_CODE[tensor.dtype].bits // 8
        for low, high in pairwise([*range(item.low, item.high, STRIDE), item.high]):
            self._common.control.check()
            values = self._reader.read(tensor.origin, low, high)
            out = self._output(width * (high - low))
            if not self._common.conversion.store(values, tensor.dtype, out):
                raise _not_finite(tensor, self._reader, low, high)
            writer.write(out.data, tensor.offset + width * low)


def _input_not_finite(tensor: PlannedTensor, source: Source) -> UserError:
    owner = source.adapter or source.checkpoint
    return UserError(
        "weights_not_finite",
        f"{owner.name} holds NaN or Inf.",
        f"It is in {tensor.name}; a merge would spread it.",
        "Train or download that model again, or leave it out.",
        details=str(owner.path),
    )


def _not_finite(tensor: PlannedTensor, reader: TensorReader, low: int, high: int) -> UserError:
    """Say whose fault a result that is not finite is."""
    for source in sources_read(tensor):
        if not bool(np.isfinite(reader.read(source, low, high)).all()):
            return _input_not_finite(tensor, source)
    return _overflow(tensor)


def _overflow(tensor: PlannedTensor) -> UserError:
    return UserError(
        "result_not_finite",
        f"The result overflows in {tensor.name}.",
        f"{tensor.dtype} cannot hold numbers that large.",
        "Use smaller ratios, or another output precision.",
    )
