"""Hands work to threads: a tensor is measured, pass by pass, before its pieces are merged."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from trimtab.kernels.piece import Measured, Pass, settle_known
from trimtab.merging.plan import Plan, PlannedTensor, WorkItem


@dataclass
class TensorWork:
    """What is known of a tensor while it is worked on; `stores` has one dict a unit."""

    order: int
    items: Sequence[WorkItem]
    passes: Sequence[Pass]
    facts: list[Any] = field(default_factory=list)
    units: list[Measured | None] = field(default_factory=list)
    waiting: int = 0
    stores: list[dict[Any, Any] | None] = field(default_factory=list)

    @property
    def tensor(self) -> PlannedTensor:
        """The tensor."""
        return self.items[0].tensor


@dataclass(frozen=True)
class Task:
    """One unit of work: measure an item for pass number `phase`, or merge it (phase = passes)."""

    work: TensorWork
    item: WorkItem
    phase: int

    @property
    def merges(self) -> bool:
        """Whether this is the item's last task."""
        return self.phase == len(self.work.passes)


#: f(tensor) -> its passes, and the facts of those of them that are known already
Passes = Callable[[PlannedTensor], tuple[Sequence[Pass], Sequence[Any]]]


class Schedule:
    """Gives each thread its next task; a new tensor is begun only when nothing older is ready.

    So what a pass has read is read again while the system still has it at hand, and no more tensors
    are open than there are threads.
    """

    def __init__(
        self,
        plan: Plan,
        passes: Passes,
        is_done: Callable[[int], bool],
        keep_store: Callable[[PlannedTensor], bool],
    ):
        self._coming: Iterator[tuple[int, list[WorkItem]]] = (
            (order, list(items))
            for order, (_, items) in enumerate(groupby(plan.items, key=lambda i: id(i.tensor)))
        )
        self._passes = passes
        self._is_done = is_done
        self._keep_store = keep_store
        self._ready: list[tuple[int, int, int, Task]] = []
        self._open = 0
        self._ended = False
        self._turn = threading.Condition()

    def take(self) -> Task | None:
        """Return the next task, None when there is none any more; waits for others' results."""
        with self._turn:
            while not self._ended:
                if self._ready:
                    return heapq.heappop(self._ready)[3]
                if self._begin():
                    continue
                if not self._open:
                    self._end()
                    break
                self._turn.wait()
            return None

    def stop(self) -> None:
        """Let no further task begin."""
        with self._turn:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._turn.notify_all()

    def _begin(self) -> bool:
        """Open the next tensor; False when there is none."""
        for order, items in self._coming:
            tensor = items[0].tensor
            merged = tensor.action == "merged"
            undone = any(not self._is_done(item.number) for item in items)
            passes, known = self._passes(tensor) if merged and undone else ((), ())
            work = TensorWork(order, items, passes, list(known))
            work.stores = [{} if passes and self._keep_store(tensor) else None for _ in items]
            self._open += 1
            self._push(work)
            return True
        return False

    def _push(self, work: TensorWork) -> None:
        phase = len(work.facts)
        work.units = [None] * len(work.items)
        work.waiting = len(work.items)
        for item in work.items:
            task = Task(work, item, phase)
            heapq.heappush(self._ready, (work.order, phase, item.unit, task))
        self._turn.notify_all()

    def finished(self, task: Task, measured: Measured | None) -> None:
        """Take a task's result; the last one of a pass settles it and opens the next."""
        work = task.work
        with self._turn:
            work.units[task.item.unit] = measured
            work.waiting -= 1
            if work.waiting:
                return
            if task.merges:
                self._open -= 1
                work.stores = []
                self._turn.notify_all()
                return
        units = [unit for unit in work.units if unit is not None]
        fact = work.passes[task.phase].settle(units, work.facts)
        facts = [*work.facts, fact]
        settle_known(work.passes, facts)
        with self._turn:
            work.facts[:] = facts
            self._push(work)
