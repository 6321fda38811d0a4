"""A model in memory whose weights are exchanged between two measurements on the same probes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control, Unattended
from trimtab.errors import UserError
from trimtab.evaluation.preview_feeds import Feed
from trimtab.evaluation.preview_reading import Questions, Reading, sees_masks
from trimtab.evaluation.preview_rows import Rows
from trimtab.evaluation.preview_weights import Bytes, MergedWeights
from trimtab.merging.plan import PlannedTensor

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class PreviewModel:
    """A transformers model that takes the weights of merges and is measured on fixed rows.

    `reference` is where its tensors' names come from. Raises `UserError` with `not_previewable`
    when the model keeps its weights under other names than its files.
    """

    def __init__(self, model: Any, reference: Checkpoint, rows: Rows):
        self.model = model
        self.rows = rows
        self._state: dict[str, torch.Tensor] = dict(model.state_dict())
        self._place = self._placed(reference)
        accepted = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in accepted
        self._keep = "logits_to_keep" in accepted
        self._control: Control = Unattended()
        self.questions = Questions(rows, self.device, packs=self._positions and sees_masks(model))
        for layer in _layers(model):
            layer.register_forward_pre_hook(lambda module, inputs: self._control.check())

    @property
    def dtype(self) -> str:
        """What it computes in, by torch's name."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(tensor.nbytes for tensor in self._state.values())

    def _placed(self, reference: Checkpoint) -> dict[str, str]:
        """Return for each tensor of the files the name that the model has for it."""
        prefix = f"{getattr(self.model, 'base_model_prefix', '')}."
        tied = set(getattr(self.model, "_tied_weights_keys", None) or ())
        taken: dict[int, str] = {}
        found: dict[str, str] = {}
        # of two names for one tensor the one that is tied to the other gives way
        for name in sorted(reference.index.names, key=lambda n: n in tied):
            own = next((n for n in (name, prefix + name) if n in self._state), None)
            if own is None:
                continue
            stored = reference.index.shapes[reference.index.row(name)]
            if tuple(self._state[own].shape) != tuple(stored):
                raise _not_previewable(name)
            pointer = self._state[own].data_ptr()
            if taken.setdefault(pointer, name) == name:
                found[name] = own
        lacking = [n for n, t in self._state.items() if t.numel() and t.data_ptr() not in taken]
        if lacking:
            raise _not_previewable(lacking[0])
        return found

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(iter(self._state.values())).device

    @torch.no_grad()
    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Put in a tensor that the files call `name`, of any dtype on any device."""
        own = self._place.get(name)
        if own is not None:
            self._state[own].copy_(tensor)

    @torch.no_grad()
    def take(self, weights: MergedWeights, names: Iterable[str]) -> None:
        """Put these tensors of a merge into the model, in the precision it computes in."""
        for name in names:
            if name in self._place:
                self.put(name, as_tensor(weights.stored(name), weights.tensors[name]))

    def state(self, name: str) -> torch.Tensor:
        """Return what the model holds of a tensor that the files call `name`."""
        return self._state[self._place[name]]

    @torch.inference_mode()
    def measure(self, control: Control, reference: Reading | None = None) -> Reading:
        """Measure on all probes; `reference` is the reading that divergences are taken from.

        Raises `JobCancelled` between layers and batches.
        """
        self._control = control
        threads = torch.get_num_threads()
        # torch's threads wait for each other at every step: on a core that the window draws on
        # one of them would hold up all
        torch.set_num_threads(max(1, min(threads, (os.cpu_count() or 1) - 1)))
        try:
            return self.questions.read(self._answers(control), reference)
        finally:
            torch.set_num_threads(threads)
            self._control = Unattended()

    def _answers(self, control: Control) -> Iterator[torch.Tensor]:
        feeds = self.questions.feeds
        control.stage("Measuring", len(feeds))
        for feed in feeds:
            control.check()
            yield self._logits(feed)
            control.advance(1)

    def _logits(self, feed: Feed) -> torch.Tensor:
        more: dict[str, Any] = {}
        if self._positions:
            more["position_ids"] = feed.positions
        if self._keep:
            more["logits_to_keep"] = feed.keep
        output = self.model(input_ids=feed.ids, attention_mask=feed.mask, use_cache=False, **more)
        # what models do not leave out by themselves
        return cast(torch.Tensor, output.logits[:, -feed.keep :])


def as_tensor(stored: Bytes, tensor: PlannedTensor) -> torch.Tensor:
    """Return a merge's tensor as torch sees its bytes, uint8 [bytes]: a view in their own dtype."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UserError(
            "not_previewable",
            "These models cannot be measured while the hand moves.",
            f"{tensor.name} is stored as {tensor.dtype}, which is not computed with here.",
            "Merge and save, then evaluate the result.",
        )
    if tensor.offset % dtype.itemsize:
        stored = stored.copy()  # torch looks at memory only at multiples of the element's size
    return torch.from_numpy(stored).view(dtype).reshape(tensor.shape)


def _layers(model: Any) -> Sequence[torch.nn.Module]:
    """Return the model's blocks: the longest list of modules in it."""
    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    longest: list[torch.nn.Module] = max(lists, key=lambda found: len(found), default=[])
    return longest


def _not_previewable(name: str) -> UserError:
    return UserError(
        "not_previewable",
        "These models cannot be measured while the hand moves.",
        f"transformers keeps {name} in another form than the files do.",
        "Merge and save, then evaluate the result.",
    )
