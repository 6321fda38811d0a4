"""The bytes of a merge that is not saved, kept up to date in memory while its recipe changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.preview_facts import Facts, RatiosRead, origin
from trimtab.kernels.rounding import compiled_conversion, plain_conversion
from trimtab.kernels.threads import one_thread_each
from trimtab.kernels.whole import default_backend
from trimtab.kernels.workbench import make_bench
from trimtab.merging.hand import Common, Hand
from trimtab.merging.layout import Shard
from trimtab.merging.plan import Plan, PlannedTensor
from trimtab.merging.schedule import Schedule
from trimtab.merging.writer import CheckpointWriter
from trimtab.methods.registry import package_of

Bytes = npt.NDArray[np.uint8]
#: f(number of an item, of its shard) -> the memory its bytes go to, and where in the shard that is
Place = Callable[[int, int], tuple[Bytes, int]]
#: below so many bytes of weights threads cost more than they bring
_THREADED = 64 << 20


class HeldReader(TensorReader):
    """A reader that keeps what it has read in memory, up to `room` bytes; the rest it streams."""

    def __init__(self, room: int, **options: Any):
        super().__init__(**options)
        self._room = room
        self._held: dict[tuple[str, int], Bytes] = {}
        self._filling = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return sum(part.nbytes for part in self._held.values())

    def keep(self, room: int) -> None:
        """Keep up to so many more bytes."""
        self._room += room

    def _hold(self, checkpoint: Checkpoint, row: int) -> Bytes | None:
        key = (str(checkpoint.path), row)
        found = self._held.get(key)
        if found is not None:
            return found
        index = checkpoint.index
        size = int(index.stop[row] - index.start[row])
        # or each thread that works on a tensor would read all of it
        with self._filling:
            found = self._held.get(key)
            if found is None and size <= self._room:
                found = np.empty(size, dtype=np.uint8)
                super().read_raw(checkpoint, row, 0, int(index.numel[row]), found)
                self._room -= size
                self._held[key] = found
        return found

    def will_read(self, checkpoint: Checkpoint, row: int, low: int, high: int) -> None:
        """Tell the system what will come from the disk; see `TensorReader.will_read`."""
        index = checkpoint.index
        held = (str(checkpoint.path), row) in self._held
        if not held and int(index.stop[row] - index.start[row]) > self._room:
            super().will_read(checkpoint, row, low, high)

    def read_raw(
        self, checkpoint: Checkpoint, row: int, low: int, high: int, out: Bytes | None = None
    ) -> Bytes:
        """Return elements [low, high) as stored; see `TensorReader.read_raw`."""
        held = self._hold(checkpoint, row)
        if held is None:
            return super().read_raw(checkpoint, row, low, high, out)
        dtype = checkpoint.index.dtype_of(row)
        part = held[dtype.nbytes(low) : dtype.nbytes(low) + dtype.nbytes(high - low)]
        if out is None:
            return part.copy()
        out[: part.size] = part
        return out[: part.size]


class _Piece:
    """Takes one work item's bytes to their place: `image` begins at `start` of the output file."""

    def __init__(self, image: Bytes, start: int, ended: Callable[[], None]):
        self._image = image
        self._start = start
        self._ended = ended

    def write(self, data: memoryview, position: int) -> None:
        low = position - self._start
        self._image[low : low + len(data)] = data

    def finish(self) -> None:
        self._ended()


class _Writer:
    """What a merge takes for its writer, with memory in place of files."""

    def __init__(self, place: Place, ended: Callable[[int], None]):
        self._place = place
        self._ended = ended
        self._done: set[int] = set()

    def is_done(self, number: int) -> bool:
        return number in self._done

    def item(self, number: int, shard: int) -> _Piece:
        image, start = self._place(number, shard)
        return _Piece(image, start, lambda: self._finished(number))

    def _finished(self, number: int) -> None:
        self._done.add(number)
        self._ended(number)


class Maker:
    """Makes tensors of merges in memory, by the plan, kernels and rounding of a merge to disk.

    What the models hold is kept up to `room` bytes, and what was measured of them for the next
    plan. Not for several threads.
    """

    def __init__(self, room: int, backend: str | None = None):
        self._backend = backend or default_backend()
        self._compiled = self._backend == "numba"
        self._conversion = compiled_conversion() if self._compiled else plain_conversion()
        self.reader = HeldReader(room, widen=self._conversion.widen)
        self._facts = Facts()

    def close(self) -> None:
        """Let go of the models' files."""
        self.reader.__exit__(None, None, None)

    def known(self, plan: Plan, tensor: PlannedTensor) -> Sequence[Any] | None:
        """Return what a tensor's passes have found, None while it is not known."""
        passes, facts = self._facts.passes(plan, tensor)
        return facts if len(facts) == len(passes) else None

    def make(
        self, plan: Plan, place: Place, ended: Callable[[int], None], control: Control
    ) -> None:
        """Carry out a plan's items; `ended` hears the number of each that is done.

        Raises `UserError` as the merge would, `JobCancelled` between pieces.
        """
        writer = _Writer(place, ended)
        try:
            self._run(plan, writer, control)
        except RatiosRead:
            self._facts.mistrust(plan.method)
            self._run(plan, writer, control)

    def _run(self, plan: Plan, writer: _Writer, control: Control) -> None:
        # the writer's part that a hand uses is all there
        disk = cast(CheckpointWriter, writer)
        common = Common(plan, disk, control, self.reader, self._conversion, self._compiled)
        schedule = Schedule(
            plan, lambda tensor: self._facts.passes(plan, tensor), writer.is_done, lambda _: True
        )
        total = sum(item.high - item.low for item in plan.items)
        count = min(8, os.cpu_count() or 1) if 2 * total > _THREADED else 1
        # compiled loops start no threads, and asking every library costs more than a small merge
        alone: AbstractContextManager[None] = (
            one_thread_each() if count > 1 or plan.method.backend == "torch" else nullcontext()
        )

        def work() -> None:
            try:
                hand = Hand(common, make_bench("cpu", self._backend, plan.method.backend))
                while (task := schedule.take()) is not None:
                    control.check()
                    schedule.finished(task, hand.carry_out(task))
            except BaseException:
                schedule.stop()
                raise

        control.stage("Merging", len(plan.items))
        with alone:
            if count == 1:
                work()
                return
            with ThreadPoolExecutor(count, thread_name_prefix="preview") as pool:
                futures = [pool.submit(work) for _ in range(count)]
            for future in futures:
                future.result()


class MergedWeights:
    """The output files of a merge as they would be written, byte for byte, in memory.

    `update` brings them to another recipe's plan and makes only those tensors again whose models,
    ratios or parameters are others; it goes through the same plan, kernels and rounding as a
    merge to disk. What the models hold is kept up to `room` bytes. Not for several threads.
    """

    def __init__(self, room: int, backend: str | None = None):
        self._maker = Maker(room, backend)
        self._images: list[Bytes] = []
        self._shards: tuple[Shard, ...] = ()
        self._made: dict[str, object] = {}
        self._changed: set[str] = set()
        self.tensors: dict[str, PlannedTensor] = {}

    def close(self) -> None:
        """Let go of the models' files."""
        self._maker.close()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return sum(image.nbytes for image in self._images) + self._maker.reader.nbytes

    @property
    def files(self) -> Iterator[tuple[str, Bytes]]:
        """Each output file's name and content, uint8 [bytes]."""
        names = (shard.name for shard in self._shards)
        return zip(names, self._images, strict=True)

    def stored(self, name: str) -> Bytes:
        """Return a tensor's bytes as they would be written; a view, which `update` changes."""
        tensor = self.tensors[name]
        return self._images[tensor.shard][tensor.offset : tensor.offset + tensor.nbytes]

    def known(self, plan: Plan, tensor: PlannedTensor) -> Sequence[Any] | None:
        """Return what was found in measuring a tensor, None where it is still to be measured."""
        return self._maker.known(plan, tensor)

    def take_changed(self) -> set[str]:
        """Return the names of the tensors that were made since this was last asked."""
        changed, self._changed = self._changed, set()
        return changed

    def update(self, plan: Plan, control: Control) -> int:
        """Bring the weights to a plan; returns how many tensors were made.

        Raises `UserError` as the merge would, `JobCancelled` between pieces: what is made by then
        stays made, and the rest is made by the next update.
        """
        if plan.shards != self._shards:
            self._lay_out(plan)
        self.tensors = {tensor.name: tensor for tensor in plan.tensors}
        wanted = {tensor.name: signature(plan, tensor) for tensor in plan.tensors}
        stale = {name for name, want in wanted.items() if self._made.get(name) != want}
        if not stale:
            return 0
        for name in stale:
            self._made.pop(name, None)
        items = tuple(item for item in plan.items if item.tensor.name in stale)
        name_of = {item.number: item.tensor.name for item in items}
        open_items = dict.fromkeys(stale, 0)
        for item in items:
            open_items[item.tensor.name] += 1

        def ended(number: int) -> None:
            name = name_of[number]
            open_items[name] -= 1
            if not open_items[name]:
                self._changed.add(name)
                self._made[name] = wanted[name]

        self._maker.make(
            replace(plan, items=items), lambda _, shard: (self._images[shard], 0), ended, control
        )
        # a tensor without elements has no work
        for name, left in open_items.items():
            if not left:
                self._made[name] = wanted[name]
        return len(stale)

    def _lay_out(self, plan: Plan) -> None:
        self._images = [np.empty(shard.nbytes, dtype=np.uint8) for shard in plan.shards]
        for image, shard in zip(self._images, plan.shards, strict=True):
            image[: len(shard.header)] = np.frombuffer(shard.header, dtype=np.uint8)
        self._shards = plan.shards
        self._made.clear()


def signature(plan: Plan, tensor: PlannedTensor) -> object:
    """All that a tensor's bytes depend on, to be compared with what they were made from."""
    return (
        tensor.action,
        tensor.dtype,
        tensor.shape,
        origin(tensor.origin),
        tuple(origin(source) for source in tensor.models),
        None if tensor.base is None else origin(tensor.base),
        tensor.masked,
        tensor.selects,
        tensor.ratios,
        tensor.keys if plan.method.random else (),
        tuple(sorted(tensor.parameters.items())) if tensor.models else (),
        (plan.method.name, package_of(plan.method)) if tensor.models else (),
    )


def refuse_other_shapes(plan: Plan) -> None:
    """Raise `UserError` with `not_previewable` for what is asked, or built, unlike the reference.

    Such a merge has layers stacked anew, another vocabulary or another chat template.
    """
    if not plan.config and not plan.files:
        return
    why = (
        "Tokens are put together anew."
        if plan.vocabulary
        else ("Layers are stacked anew." if plan.config else "It gets another chat template.")
    )
    raise UserError(
        "not_previewable",
        "This merge cannot be measured while the hand moves.",
        why,
        "Merge and save it, then evaluate the result.",
    )
