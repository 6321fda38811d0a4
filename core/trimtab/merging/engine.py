"""Carries a plan out: slices flow from disk through the method to disk, memory stays bounded."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.checkpoints import Source
from trimtab.checkpoints.dtypes import TORCH_NAMES
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control, JobCancelled
from trimtab.errors import UserError
from trimtab.merging.companions import companion_files, written_files
from trimtab.merging.place import check_output, recover_replaced
from trimtab.merging.planner import Plan, PlannedTensor, WorkItem, describe, sources_read
from trimtab.merging.writer import CheckpointWriter

#: elements per step: the float32 slices of a few models stay in the processor's cache
CHUNK = 1 << 18
# after these errors going on would end the same way: what was begun is removed
_HOPELESS = frozenset({"weights_not_finite", "result_not_finite", "verification_failed"})


def run_merge(
    plan: Plan,
    output: Path,
    control: Control,
    *,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> dict[str, Any]:
    """Write the merged model to the folder `output` and return the report.

    Arithmetic is float32, rounded once to the output's dtype, to nearest even. The folder
    appears under its name when all of it is written and verified; until then it is
    `<output>.partial`, which `resume` goes on with after an interruption. Raises `UserError`
    (see `check_output`, `CheckpointWriter`), with `weights_not_finite` for NaN or Inf in an input
    and `result_not_finite` when only the result overflows; `JobCancelled` when cancelled, after
    removing what was begun; `JobAbandoned` when whoever asked has gone, keeping it.
    """
    output = output.expanduser().absolute()
    begun = time.monotonic()
    inputs = [m.checkpoint.path for m in plan.lineup.members]
    recover_replaced(output)
    check_output(output, 0 if resume else plan.bytes_out, inputs, overwrite, resume)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            CheckpointWriter(output, plan.shards, plan.digest(), resume) as writer,
            TensorReader(pin_memory=device.startswith("cuda")) as reader,
        ):
            try:
                _stream(plan, writer, reader, control, torch.device(device), threads)
                control.stage("Verifying", len(plan.items), plan.bytes_data)
                writer.verify(lambda size: _tick(control, size))
                report = _report(plan, output, device, time.monotonic() - begun)
                reference = plan.lineup.reference.checkpoint
                writer.commit(written_files(plan, report), companion_files(reference), overwrite)
            except JobCancelled:
                writer.discard()
                raise
            except UserError as error:
                if error.code in _HOPELESS:
                    writer.discard()
                raise
    finally:
        torch.set_num_threads(before)
    return report


def _tick(control: Control, size: int) -> None:
    control.check()
    control.advance(1, size)


def _report(plan: Plan, output: Path, device: str, seconds: float) -> dict[str, Any]:
    return {
        "output": str(output),
        "files": len(plan.shards),
        "bytes_read": plan.bytes_in,
        "bytes_written": plan.bytes_out,
        "seconds": round(seconds, 3),
        "device": device,
        **{key: value for key, value in describe(plan).items() if key != "shards"},
    }


def _stream(
    plan: Plan,
    writer: CheckpointWriter,
    reader: TensorReader,
    control: Control,
    device: torch.device,
    threads: int | None,
) -> None:
    """Let a few threads take work items in on-disk order; each reads, computes and writes.

    While one thread computes the others read and write, and no queue can grow: what is in
    memory is one chunk of each model per thread.
    """
    control.stage("Merging", len(plan.items), plan.bytes_data)
    coming = iter(plan.items)
    lock = threading.Lock()
    failed = threading.Event()

    def take() -> WorkItem | None:
        with lock:
            return next(coming, None)

    def work() -> None:
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        space = _Workspace(reader)
        try:
            with torch.inference_mode(), torch.cuda.stream(stream):
                while not failed.is_set() and (item := take()) is not None:
                    size = item.tensor.nbytes * (item.high - item.low) // item.tensor.numel
                    if not writer.is_done(item.number):
                        _run_item(plan, item, writer, reader, control, device, space)
                    control.advance(1, size)
        except BaseException:
            failed.set()
            raise

    count = threads or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(count, thread_name_prefix="merge") as pool:
        futures = [pool.submit(work) for _ in range(count)]
    for future in futures:
        future.result()


def _run_item(
    plan: Plan,
    item: WorkItem,
    writer: CheckpointWriter,
    reader: TensorReader,
    control: Control,
    device: torch.device,
    space: _Workspace,
) -> None:
    tensor = item.tensor
    dtype_bytes = tensor.nbytes // tensor.numel
    piece = writer.item(item.number, tensor.shard)
    for source in sources_read(tensor):
        reader.will_read(source.checkpoint, source.row, item.low, item.high)
    for low, high in pairwise([*range(item.low, item.high, CHUNK), item.high]):
        control.check()
        if tensor.action == "merged":
            data = _merge(plan, tensor, reader, low, high, device, space)
        else:
            data = _carry_over(tensor, reader, low, high)
        offset = tensor.offset + (
            low * dtype_bytes if tensor.action != "copied" else _stored_bytes(tensor.origin, low)
        )
        piece.write(data.contiguous().view(torch.uint8).numpy().data, offset)
    piece.finish()


def _stored_bytes(source: Source, elements: int) -> int:
    return source.checkpoint.index.dtype_of(source.row).nbytes(elements)


def _merge(
    plan: Plan,
    tensor: PlannedTensor,
    reader: TensorReader,
    low: int,
    high: int,
    device: torch.device,
    space: _Workspace,
) -> Tensor:
    buffers = space.inputs(1 + len(tensor.models), high - low)
    reference = reader.read(tensor.origin, low, high, out=buffers[0])
    models = []
    for source, buffer in zip(tensor.models, buffers[1:], strict=True):
        if source.same_bytes_as(tensor.origin):
            models.append(buffer.copy_(reference))
        else:
            models.append(reader.read(source, low, high, out=buffer))
    if device.type != "cpu":
        reference = reference.to(device, non_blocking=True)
        models = [model.to(device, non_blocking=True) for model in models]
    merged = plan.method.combine(reference, models, tensor.ratios, **plan.parameters)
    # this copy waits for the device, so the buffers are free again when it is done
    result = space.output(high - low, getattr(torch, TORCH_NAMES[tensor.dtype])).copy_(merged)
    if not _all_finite(result):
        raise _not_finite(plan, tensor, reader, low, high)
    return result


class _Workspace:
    """The buffers of one thread, kept from chunk to chunk: fresh ones would cost page faults."""

    def __init__(self, reader: TensorReader):
        self._reader = reader
        self._inputs: list[Tensor] = []
        self._output = reader.new_buffer(0, torch.uint8)

    def inputs(self, count: int, size: int) -> list[Tensor]:
        """Return `count` float32 tensors of `size` elements."""
        while len(self._inputs) < count:
            self._inputs.append(self._reader.new_buffer(CHUNK, torch.float32))
        return [buffer[:size] for buffer in self._inputs[:count]]

    def output(self, size: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor for the result."""
        n_bytes = size * dtype.itemsize
        if len(self._output) < n_bytes:
            self._output = self._reader.new_buffer(CHUNK * dtype.itemsize, torch.uint8)
        return self._output[:n_bytes].view(dtype)


def _carry_over(tensor: PlannedTensor, reader: TensorReader, low: int, high: int) -> Tensor:
    origin = tensor.origin
    if not origin.checkpoint.index.dtype_of(origin.row).mergeable:
        return reader.read_raw(origin.checkpoint, origin.row, low, high, reuse=True)
    stored = reader.read_stored(origin.checkpoint, origin.row, low, high, reuse=True)
    if not _all_finite(stored):
        raise _input_not_finite(tensor, origin)
    converted = stored.to(getattr(torch, TORCH_NAMES[tensor.dtype]))
    if tensor.action == "converted" and not _all_finite(converted):
        raise _overflow(tensor)
    return converted


def _all_finite(values: Tensor) -> bool:
    # one pass: a sum is finite unless an entry is not, or the sum itself overflows
    return bool(torch.isfinite(values.sum(dtype=torch.float32))) or bool(
        torch.isfinite(values).all()
    )


def _input_not_finite(tensor: PlannedTensor, source: Source) -> UserError:
    owner = source.adapter or source.checkpoint
    return UserError(
        "weights_not_finite",
        f"{owner.name} holds NaN or Inf.",
        f"It is in {tensor.name}; a merge would spread it.",
        "Train or download that model again, or leave it out.",
        details=str(owner.path),
    )


def _not_finite(
    plan: Plan, tensor: PlannedTensor, reader: TensorReader, low: int, high: int
) -> UserError:
    """Say whose fault a result that is not finite is."""
    for source in sources_read(tensor):
        if not bool(torch.isfinite(reader.read(source, low, high)).all()):
            return _input_not_finite(tensor, source)
    return _overflow(tensor)


def _overflow(tensor: PlannedTensor) -> UserError:
    return UserError(
        "result_not_finite",
        f"The result overflows in {tensor.name}.",
        f"{tensor.dtype} cannot hold numbers that large.",
        "Use smaller ratios, or another output precision.",
    )
