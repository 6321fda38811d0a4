"""Merges on the device that measures: models lie there as stored, and their sums never leave it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from trimtab.checkpoints import Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_weights import MergedWeights, signature
from trimtab.kernels.piece import Piece
from trimtab.kernels.plain import TorchOps
from trimtab.merging.plan import Plan, PlannedTensor

#: elements that are worked on at once: few enough to be in memory several times in float32
_STEP = 1 << 26
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class DeviceWeights:
    """A merge's weights put into a model on its device, where those that can be are also made.

    Those are copies, and what a method makes of each element by itself, without masks; of both
    the formula is the method's own, and no product is rounded together with a sum, so that bits
    are those of the merge on the CPU. The others come from `weights`. What the models hold is kept
    on the device up to `room` bytes. Not for several threads.
    """

    def __init__(self, model: PreviewModel, weights: MergedWeights, room: int):
        self._model = model
        self._weights = weights
        self._room = room
        self._reader = TensorReader()
        self._held: dict[tuple[str, int], torch.Tensor] = {}
        self._made: dict[str, object] = {}
        self._ops = TorchOps()

    def close(self) -> None:
        """Let go of the models' files, and of what the device holds of them."""
        self._reader.__exit__(None, None, None)
        self._held.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that it holds."""
        return sum(held.nbytes for held in self._held.values())

    @torch.inference_mode()
    def update(self, plan: Plan, control: Control) -> int:
        """Bring the model to a plan; returns how many tensors were made.

        Raises `UserError` as the merge would, `JobCancelled` between tensors: what is made by then
        stays made.
        """
        wanted = {tensor.name: signature(plan, tensor) for tensor in plan.tensors}
        stale = [t for t in plan.tensors if self._made.get(t.name) != wanted[t.name]]
        control.stage("Merging", len(stale))
        left: list[PlannedTensor] = []
        finite: list[tuple[PlannedTensor, torch.Tensor]] = []
        for tensor in stale:
            control.check()
            self._made.pop(tensor.name, None)
            made = self._make(plan, tensor)
            if made is None:
                left.append(tensor)
                continue
            finite.append((tensor, made.isfinite().all()))
            self._model.put(tensor.name, made)
            control.advance(1)
        # asked once: each answer waits for the device
        flags = torch.stack([flag for _, flag in finite]).tolist() if finite else []
        for (tensor, _), fine in zip(finite, flags, strict=True):
            if fine:
                self._made[tensor.name] = wanted[tensor.name]
            else:
                left.append(tensor)  # there it is said whose fault that is
        if left:
            names = {tensor.name for tensor in left}
            items = tuple(item for item in plan.items if item.tensor.name in names)
            self._weights.update(replace(plan, tensors=tuple(left), items=items), control)
            self._model.take(self._weights, names)
            self._made |= {name: wanted[name] for name in names}
        return len(stale)

    def _make(self, plan: Plan, tensor: PlannedTensor) -> torch.Tensor | None:
        """Return a tensor in its shape and output dtype, None where that is left to the CPU."""
        method = plan.method
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None or not tensor.numel:
            return None
        if tensor.action != "merged":
            origin = self._stored(tensor.origin)
            return None if origin is None else origin.to(dtype).view(tensor.shape)
        if tensor.selects or tensor.base is not None or any(m is not True for m in tensor.masks):
            return None
        if method.scope(**tensor.parameters) != "element":
            return None
        facts = self._weights.known(plan, tensor)
        if facts is None or (facts and method.form is None):
            return None  # what passes find may be counted by pieces
        sources = [self._stored(source) for source in (tensor.origin, *tensor.models)]
        stored = [source for source in sources if source is not None]
        if len(stored) < len(sources):
            return None
        out = torch.empty(tensor.numel, dtype=dtype, device=stored[0].device)
        for low, high in pairwise([*range(0, tensor.numel, _STEP), tensor.numel]):
            reference, *models = (s[low:high].to(torch.float32, copy=True) for s in stored)
            piece = Piece(
                reference, models, tensor.ratios, tensor.keys, self._ops, tensor.shape,
                tensor.numel, low, facts=facts,
            )  # fmt: skip
            out[low:high] = method.combine(piece, **tensor.parameters)
        return out.view(tensor.shape)

    def _stored(self, source: Source) -> torch.Tensor | None:
        """Return a stored tensor on the device, flat in its own dtype, where it can be there."""
        index = source.checkpoint.index
        dtype = _DTYPES.get(index.dtype_of(source.row).code)
        if dtype is None or source.change is not None or source.rows is not None:
            return None
        key = (str(source.checkpoint.path), source.row)
        found = self._held.get(key)
        if found is None:
            size = int(index.stop[source.row] - index.start[source.row])
            if size > self._room:
                return None
            numel = int(index.numel[source.row])
            raw = self._reader.read_raw(source.checkpoint, source.row, 0, numel)
            found = torch.from_numpy(raw).view(dtype).to(self._model.device, copy=True)
            self._room -= size
            self._held[key] = found
        return found
