"""Measures a merge of models that are too large for memory: block by block, merged on arrival."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimtab.activations.blocks import BlockModel
from trimtab.activations.shelf import Shelf
from trimtab.activations.stream import Pass
from trimtab.activations.tokens import Batch
from trimtab.activations.weights import ModelWeights, checkpoint_weights
from trimtab.checkpoints import Checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control, Unattended
from trimtab.evaluation.preview_feeds import Feed
from trimtab.evaluation.preview_model import as_tensor
from trimtab.evaluation.preview_reading import Questions, Reading, sees_masks
from trimtab.evaluation.preview_rows import Rows
from trimtab.evaluation.preview_weights import Bytes, Maker
from trimtab.merging.plan import Plan, PlannedTensor, WorkItem
from trimtab.paths import cache_dir

#: bytes of hidden states that stay in memory between two blocks; more go to the disk
_STATES = 256 << 20


class ArrivingWeights:
    """The tensors of a merge, each made when it is asked for and forgotten afterwards.

    They are those of the saved merge, bit for bit. Not for several threads.
    """

    def __init__(self) -> None:
        self._maker = Maker(room=0)
        self._control: Control = Unattended()
        self._plan: Plan | None = None
        self._work: dict[str, tuple[PlannedTensor, list[WorkItem]]] = {}

    def close(self) -> None:
        """Let go of the models' files."""
        self._maker.close()

    @property
    def reader(self) -> TensorReader:
        """Reads the models, from memory where it holds them."""
        return self._maker.reader

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds between two tensors."""
        return self._maker.reader.nbytes

    def keep(self, room: int) -> None:
        """Keep up to so many more bytes of what the models hold in memory."""
        self._maker.reader.keep(room)

    def follow(self, plan: Plan | None, control: Control) -> None:
        """Make what a plan says from now on; None stands for the reference as it is."""
        self._plan, self._control = plan, _Quiet(control.check)
        self._work = {}
        if plan is not None:
            self._work = {tensor.name: (tensor, []) for tensor in plan.tensors}
            for item in plan.items:
                self._work[item.tensor.name][1].append(item)

    def planned(self, name: str) -> PlannedTensor | None:
        """Return what the plan says of a tensor, None where it says nothing."""
        found = self._work.get(name)
        return None if found is None else found[0]

    def make(self, name: str) -> Bytes:
        """Return a planned tensor's bytes as they would be written, uint8 [bytes].

        Raises `UserError` as the merge would, `JobCancelled` between pieces.
        """
        tensor, items = self._work[name]
        assert self._plan is not None
        out = np.empty(tensor.nbytes, dtype=np.uint8)
        self._maker.make(
            replace(self._plan, items=tuple(items)),
            lambda number, shard: (out, tensor.offset),
            lambda number: None,
            self._control,
        )
        return out


class _Quiet:
    """Stops when another `Control` does and reports nothing: blocks are counted, not tensors."""

    def __init__(self, check: Callable[[], None]):
        self.check = check

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Report to nobody."""

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Report to nobody."""


@dataclass(frozen=True, eq=False)
class _MergedWeights(ModelWeights):
    """The reference's weights, of which a merge's stand in the place of those that it makes."""

    arriving: ArrivingWeights = field(repr=False)

    def read(self, reader: TensorReader, name: str) -> npt.NDArray[np.float32]:
        """Return a whole tensor in float32, in its own shape."""
        tensor = self.arriving.planned(name)
        if tensor is None:
            return super().read(reader, name)
        made: npt.NDArray[np.float32] = as_tensor(self.arriving.make(name), tensor).float().numpy()
        return made


class StreamedModel:
    """A lineup's model that takes the weights of merges and is measured, one block at a time.

    Numbers are those of `PreviewModel` in `dtype` but for rounding. `ask` says what is measured
    before anything is. Raises `UserError` as `BlockModel` does.
    """

    def __init__(self, reference: Checkpoint, device: str, dtype: torch.dtype):
        self.arriving = ArrivingWeights()
        plain = checkpoint_weights(reference)
        weights = _MergedWeights(
            plain.name, plain.folder, plain.config, plain.sources, plain.shapes, plain.fingerprint,
            self.arriving,
        )  # fmt: skip
        self.blocks = BlockModel(weights, self.arriving.reader, device, dtype)
        self._plan: Plan | None = None
        self.questions: Questions | None = None
        accepted = inspect.signature(self.blocks.model.forward).parameters
        self._positions = "position_ids" in accepted

    @property
    def config(self) -> Any:
        """The model's text config."""
        return self.blocks.model.config.get_text_config()

    @property
    def dtype(self) -> str:
        """What it computes in, by torch's name."""
        return str(self.blocks.dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds between two requests."""
        return self.arriving.nbytes

    def close(self) -> None:
        """Let go of the models' files."""
        self.arriving.close()

    def ask(self, rows: Rows) -> None:
        """Measure on these probes from now on."""
        packs = self._positions and sees_masks(self.blocks.model)
        self.questions = Questions(rows, self.blocks.device, packs=packs)

    def follow(self, plan: Plan) -> None:
        """Measure what a plan makes from now on; before the first one it is the reference."""
        self._plan = plan

    def measure(self, control: Control, reference: Reading | None = None) -> Reading:
        """Measure on all probes; `reference` is the reading that divergences are taken from.

        All weights are made and let go of on the way. Raises `UserError` as the merge would, and
        `JobCancelled` between pieces of a tensor and between batches of a block.
        """
        assert self.questions is not None
        self.arriving.follow(self._plan, control)
        feeds = self.questions.feeds
        with Shelf(cache_dir() / "activations", _STATES) as shelf:
            run = Pass(self.blocks, [self._batch(feed) for feed in feeds], shelf, control)
            run.forward()
            return self.questions.read(run.all_logits([feed.keep for feed in feeds]), reference)

    def _batch(self, feed: Feed) -> Batch:
        given = {"attention_mask": feed.mask}
        if self._positions:
            given["position_ids"] = feed.positions
        nothing = torch.zeros_like(feed.ids, dtype=torch.bool)
        return Batch(feed.ids, nothing, tuple(range(len(feed.ids))), given)
