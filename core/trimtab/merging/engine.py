"""Carries a plan out: pieces flow from disk through the method to disk, memory stays bounded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control, JobCancelled
from trimtab.errors import UserError
from trimtab.kernels.piece import Pass
from trimtab.kernels.rounding import compiled_conversion, plain_conversion
from trimtab.kernels.threads import one_thread_each
from trimtab.kernels.whole import default_backend
from trimtab.kernels.workbench import make_bench
from trimtab.merging.companions import REPORT_NAME, companion_files, written_files
from trimtab.merging.hand import Common, Hand
from trimtab.merging.memory import Memory
from trimtab.merging.place import check_output, is_whole, recover_replaced
from trimtab.merging.plan import Plan, PlannedTensor, describe
from trimtab.merging.schedule import Schedule
from trimtab.merging.writer import CheckpointWriter

# after these errors going on would end the same way: what was begun is removed
_HOPELESS = frozenset({"weights_not_finite", "result_not_finite", "verification_failed"})
#: f(tensor, kind of pass) -> the fact if it is known without reading, such as inner products
Known = Callable[[PlannedTensor, str], Any]


def run_merge(
    plan: Plan,
    output: Path,
    control: Control,
    *,
    overwrite: bool = False,
    resume: bool = False,
    device: str | Sequence[str] = "cpu",
    threads: int | None = None,
    memory: int | None = None,
    backend: str | None = None,
    known: Known | None = None,
) -> dict[str, Any]:
    """Write the merged model to the folder `output` and return the report.

    Arithmetic is float32, rounded once to the output's dtype, to nearest even. The folder
    appears under its name when all of it is written and verified; until then it is
    `<output>.partial`, which `resume` goes on with after an interruption; where only the last step
    was missing, `resume` does that and returns the report that was written. Several devices share
    the work. `memory` bounds what this process takes, in bytes; `backend` names the primitives
    ("numba" or "torch") on the CPU. Raises `UserError` (see `check_output`, `CheckpointWriter`),
    with `weights_not_finite` for NaN or Inf in an input, `result_not_finite` when only the result
    overflows, `memory_too_small`; `JobCancelled` when cancelled, after removing what was begun;
    `JobAbandoned` when whoever asked has gone, keeping it.
    """
    output = output.expanduser().absolute()
    begun = time.monotonic()
    devices = [device] if isinstance(device, str) else list(device)
    backend = backend or default_backend()
    room = Memory(plan, memory, devices[0])
    inputs = [m.checkpoint.path for m in plan.lineup.members]
    whole = resume and is_whole(output, plan.digest())
    recover_replaced(output)
    if whole:
        report: dict[str, Any] = json.loads((output / REPORT_NAME).read_bytes())
        return report
    check_output(output, 0 if resume else plan.bytes_out, inputs, overwrite, resume)
    phases = {}
    with (
        one_thread_each(),
        CheckpointWriter(output, plan.shards, plan.digest(), resume) as writer,
    ):
        try:
            started = time.monotonic()
            # a few more than there are cores: some wait for the disk while the others compute
            count = room.threads(threads or (min(8, os.cpu_count() or 1) + 2) * len(devices))
            _Stream(plan, writer, control, devices, backend, room, known).run(count)
            phases["merge"] = time.monotonic() - started
            control.stage("Verifying", len(plan.items), plan.bytes_data)
            started = time.monotonic()
            writer.verify(lambda size: _tick(control, size), count)
            phases["verify"] = time.monotonic() - started
            report = _report(plan, output, ", ".join(devices), backend, time.monotonic() - begun)
            reference = plan.lineup.reference.checkpoint
            started = time.monotonic()
            writer.commit(written_files(plan, report), companion_files(plan, reference), overwrite)
            phases["flush"] = time.monotonic() - started
        except JobCancelled:
            writer.discard()
            raise
        except UserError as error:
            if error.code in _HOPELESS:
                writer.discard()
            raise
    return {**report, "phases": {name: round(took, 3) for name, took in phases.items()}}


def _tick(control: Control, size: int) -> None:
    control.check()
    control.advance(1, size)


def _report(plan: Plan, output: Path, device: str, backend: str, seconds: float) -> dict[str, Any]:
    return {
        "output": str(output),
        "files": len(plan.shards),
        "bytes_read": plan.bytes_in,
        "bytes_written": plan.bytes_out,
        "seconds": round(seconds, 3),
        "device": device,
        "kernels": backend if device == "cpu" else "torch",
        **{key: value for key, value in describe(plan).items() if key != "shards"},
    }


class _Stream:
    """The threads' common ground."""

    def __init__(
        self,
        plan: Plan,
        writer: CheckpointWriter,
        control: Control,
        devices: Sequence[str],
        backend: str,
        room: Memory,
        known: Known | None,
    ):
        self.plan = plan
        self.writer = writer
        self.control = control
        self.room = room
        self._devices = devices
        self._backend = backend
        self._known = known
        self._compiled = backend == "numba" and devices[0] == "cpu"
        self._conversion = compiled_conversion() if self._compiled else plain_conversion()
        self._schedule = Schedule(plan, self._passes, writer.is_done, room.keeps_store)

    def _passes(self, tensor: PlannedTensor) -> tuple[Sequence[Pass], Sequence[Any]]:
        if tensor.selects:
            return (), ()
        passes = self.plan.method.passes(tensor.outline, **tensor.parameters)
        facts: list[Any] = []
        for each in passes:
            asked = self._known is not None and each.kind and not tensor.masks
            fact = self._known(tensor, each.kind) if self._known and asked else None
            if fact is None:
                break
            facts.append(fact)
        return passes, facts

    def run(self, count: int) -> None:
        """Let `count` threads take tasks; each reads, computes and writes.

        While one computes the others read and write, and no queue can grow: what is in memory is
        one piece of each model per thread.
        """
        self.control.stage("Merging", len(self.plan.items), self.plan.bytes_data)
        with TensorReader(widen=self._conversion.widen) as reader:
            common = Common(
                self.plan, self.writer, self.control, reader, self._conversion, self._compiled
            )
            with ThreadPoolExecutor(count, thread_name_prefix="merge") as pool:
                futures = [
                    pool.submit(self._work, common, self._devices[i % len(self._devices)])
                    for i in range(count)
                ]
            for future in futures:
                future.result()

    def _work(self, common: Common, device: str) -> None:
        try:
            bench = make_bench(device, self._backend, self.plan.method.backend)
            hand = Hand(common, bench)
            while (task := self._schedule.take()) is not None:
                self._schedule.finished(task, hand.carry_out(task))
        except BaseException:
            self._schedule.stop()
            raise
