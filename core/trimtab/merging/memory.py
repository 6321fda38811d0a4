"""Keeps the promise of how much memory a merge takes: from it follow threads and what is kept."""

from __future__ import annotations

import math

import psutil

from trimtab.errors import UserError
from trimtab.kernels.workbench import CpuBench, CudaBench
from trimtab.merging.plan import Plan, PlannedTensor

#: what the threads of the system, the journal and the report take besides, measured generously
_MARGIN = 64 << 20
#: for each element of each model of a whole tensor: its copy, factors and products of its matrix
_WHOLE = 6
#: without a limit, masks found in a measuring pass are kept up to so many bytes a tensor
_KEPT_MASKS = 128 << 20
#: for each element of a piece and model: the piece, what is made of it, and what it was read from
_PIECE = 4 * 4


class Memory:
    """What a merge may take in memory, in bytes, this process's own size included.

    `each` is what one thread needs for the pieces it works on.

    Raises `UserError` with `memory_too_small` when not even one thread's pieces fit in `limit`.
    """

    def __init__(self, plan: Plan, limit: int | None, device: str):
        self._limit = limit
        self._free = math.inf if limit is None else limit - _own_size() - _MARGIN
        bench = CpuBench if device == "cpu" else CudaBench
        self._on_cpu = device == "cpu"
        self.each = max(
            (_need(plan, tensor, bench.piece) for tensor in plan.tensors), default=0
        )  # fmt: skip
        self._plan = plan
        if self.each > self._free:
            assert limit is not None
            needed = self.each + limit - int(self._free)
            raise UserError(
                "memory_too_small",
                f"{limit / 1e9:.3g} GB of memory are not enough for this merge.",
                f"{plan.method.title} needs about {needed / 1e9:.2g} GB for its largest tensor.",
                f"Allow {math.ceil(needed / 1e8) / 10:g} GB, or a method that works on pieces.",
            )

    def threads(self, wanted: int) -> int:
        """Return how many threads may work at once, at most `wanted`."""
        if self._limit is None:
            return max(1, wanted)
        return max(1, min(wanted, int(self._free // max(self.each, 1))))

    def keeps_store(self, tensor: PlannedTensor) -> bool:
        """Whether the masks found in a measuring pass may be kept for the merging one."""
        bits = tensor.numel * max(len(tensor.models), 1) // 8
        # a GPU makes them again sooner than the bus brings them back
        return self._on_cpu and bits <= min(_KEPT_MASKS, self._free / 4)


def _need(plan: Plan, tensor: PlannedTensor, piece: int) -> int:
    models = 1 + len(tensor.models) + (tensor.base is not None)
    # a mask's shares and random words take as much as another model
    models += sum(not isinstance(mask, bool) for mask in tensor.masks)
    if tensor.action != "merged":
        return 4 << 20
    if plan.method.scope(**tensor.parameters) == "tensor":
        return 4 * tensor.numel * models * _WHOLE
    width = tensor.shape[-1] if tensor.shape else 1
    return _PIECE * max(
        piece, width if plan.method.scope(**tensor.parameters) == "row" else 1
    ) * models + (16 << 20)


def _own_size() -> int:
    return int(psutil.Process().memory_info().rss)
