"""Measures a merge that is not saved while its ratios are moved: what stays loaded in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from trimtab.checkpoints import Checkpoint, Lineup
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.preview_device import DeviceWeights
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_reading import Reading
from trimtab.evaluation.preview_room import (
    Room,
    Whole,
    free_room,
    held_whole,
    left_for_models,
    measuring_bytes,
    streaming_dtype,
    too_large,
)
from trimtab.evaluation.preview_rows import Rows, tokenise
from trimtab.evaluation.preview_stream import StreamedModel
from trimtab.evaluation.preview_weights import MergedWeights, refuse_other_shapes
from trimtab.evaluation.probes import PROBES, open_probes
from trimtab.evaluation.targets import runnable
from trimtab.evaluation.targets_loading import load_model, load_tokenizer
from trimtab.merging.plan import Plan
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Recipe, open_lineup

#: what a reading's stage is called: the first two serve all requests that come
_STAGES = {"reference": "Loading", "finetuned": "Loading", "merged": "Measuring"}
_STREAMING = {
    "reference": "Streaming the reference",
    "finetuned": "Streaming the fine-tuned model",
    "merged": "Streaming",
}


@dataclass(frozen=True)
class Request:
    """What is asked: a recipe, on which probes, where, and what it is compared with.

    `against` is the number of the fine-tuned model whose own values come along, None for none.
    `suite` is as in `open_probes`; `count` probes of each kind are chosen by `seed`.
    """

    recipe: Recipe
    suite: str = "auto"
    count: int = PROBES
    seed: int = 0
    device: str = "cpu"
    against: int | None = None


@dataclass
class _Times:
    """Milliseconds spent in each part of a request."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            taken = 1000 * (time.perf_counter() - begun)
            self.spent[part] = self.spent.get(part, 0.0) + taken

    def to_dict(self) -> dict[str, float]:
        total = sum(self.spent.values())
        return {part: round(ms, 3) for part, ms in {**self.spent, "total": total}.items()}


class Preview:
    """A lineup with its probes: answers one request after another.

    Where it fits in memory the reference is loaded as a transformers model once; for each recipe
    only the tensors that it changes are merged anew, by the same plan and kernels as a merge to
    disk, and put into the model. Else the model is streamed: each block is read, merged and
    measured when its turn comes. What the fine-tuned models and the reference come to is measured
    once. `room` is what it may take, by default a share of what is free.
    """

    def __init__(self, request: Request, control: Control, room: Room | None = None):
        control.stage("Loading", 1)
        self._asked = _session_key(request)
        self._models = _models_key(request.recipe)
        self.lineup: Lineup = open_lineup(request.recipe)
        reference = self.lineup.reference.checkpoint
        runnable(reference)
        self.device = request.device
        self.probes = open_probes(request.suite, reference.folder, request.count, request.seed)
        self.tokenizer = load_tokenizer(reference.folder)
        control.check()
        self.rows: Rows
        self.model: PreviewModel | StreamedModel
        self.weights: MergedWeights | None = None
        self._there: DeviceWeights | None = None
        self._place(request.recipe, room or free_room(request.device), control)
        self._reference: Reading | None = None
        self._alone: dict[tuple[int, str], Reading] = {}
        self._seed = request.seed

    def _place(self, recipe: Recipe, room: Room, control: Control) -> None:
        """Load the model whole where it fits, else make ready to stream it."""
        reference = self.lineup.reference.checkpoint
        whole = held_whole(self.lineup, room)
        obstacle = None
        if whole is not None:
            try:
                self._load(reference, whole, control)
                return
            except UserError as error:
                if error.code != "not_previewable":
                    raise
                # block by block, weights are sought under more names
                obstacle = error
        try:
            self.model = self._streamed(reference, self.plan(recipe), room)
        except UserError as error:
            if error.code != "not_streamable":
                raise
            raise obstacle or too_large(
                f"They do not fit in memory, and cannot be run block by block: {error.why}"
            ) from error

    def _load(self, reference: Checkpoint, whole: Whole, control: Control) -> None:
        loaded = load_model(reference.folder, self.device, whole.dtype)
        loaded.eval()
        control.check()
        self.rows = self._tokenised(loaded.config.get_text_config())
        self.model = model = PreviewModel(loaded, reference, self.rows)
        self.weights = MergedWeights(whole.room)
        if whole.device is not None:
            self._there = DeviceWeights(model, self.weights, whole.device)

    def _streamed(self, reference: Checkpoint, plan: Plan, room: Room) -> StreamedModel:
        model = StreamedModel(reference, self.device, streaming_dtype(reference, self.device))
        self.rows = self._tokenised(model.config)
        model.ask(self.rows)
        measuring = measuring_bytes(self.rows, model.config.hidden_size, model.config.vocab_size)
        model.arriving.keep(left_for_models(model.blocks, plan, measuring, room))
        return model

    def _tokenised(self, config: Any) -> Rows:
        positions = getattr(config, "max_position_embeddings", None) or 1 << 30
        return tokenise(self.probes, self.tokenizer, positions, int(config.vocab_size))

    def close(self) -> None:
        """Give back files and memory."""
        for held in (self.weights, self._there):
            if held is not None:
                held.close()
        if isinstance(self.model, StreamedModel):
            self.model.close()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def serves(self, request: Request) -> bool:
        """Whether a request is about what is loaded, and the files are still what they were."""
        return self._asked == _session_key(request) and _unchanged(self.lineup)

    def is_of(self, recipe: Recipe, device: str) -> bool:
        """Whether a recipe is of the lineup that is loaded there, its files unchanged."""
        same = self._models == _models_key(recipe) and self.device == device
        return same and _unchanged(self.lineup)

    @property
    def streams(self) -> bool:
        """Whether the model is streamed."""
        return isinstance(self.model, StreamedModel)

    @property
    def knows_reference(self) -> bool:
        """Whether the reference has been measured; until then its weights must stay."""
        return self._reference is not None

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds, roughly."""
        held = [each.nbytes for each in (self.weights, self._there) if each is not None]
        return self.model.nbytes + sum(held)

    def plan(self, recipe: Recipe) -> Plan:
        """Plan a recipe of this lineup; raises `UserError` as `plan_merge` does."""
        plan = plan_merge(recipe, self.lineup)
        refuse_other_shapes(plan)
        return plan

    def bring(self, plan: Plan, control: Control) -> int:
        """Put a plan's weights into the model; returns how many tensors are made.

        Of a streamed model they are made while it is measured.
        """
        if isinstance(self.model, StreamedModel):
            self.model.follow(plan)
            return len(plan.tensors)
        if self._there is not None:
            return self._there.update(plan, control)
        assert self.weights is not None
        made = self.weights.update(plan, control)
        # with those that an update which was cancelled has made
        self.model.take(self.weights, self.weights.take_changed())
        return made

    def _measure(self, of: str, control: Control, reference: Reading | None) -> Reading:
        """Measure what is in the model; a stage is named after what that serves."""
        names = _STREAMING if self.streams else _STAGES
        return self.model.measure(_Named(control, names[of]), reference)

    def _reference_reading(self, control: Control) -> Reading:
        """Measure the reference as it is, which comes before anything is merged."""
        if self._reference is None:
            self._reference = self._measure("reference", control, None)
        return self._reference

    def answer(self, request: Request, control: Control) -> dict[str, Any]:
        """Return what a recipe comes to, ready for JSON.

        Raises `UserError` as a merge of the recipe would; `JobCancelled` between layers.
        """
        times = _Times()
        with times.of("plan"):
            plan = self.plan(request.recipe)
        reference = self._reference_reading(control)
        compared = None
        if request.against is not None:
            compared = self._alone_of(request.recipe, request.against, control)
        with times.of("merge"):
            made = self.bring(plan, control)
        with times.of("measure"):
            reading = self._measure("merged", control, reference)
        rows = self.rows
        return {
            "merged": reading.to_dict(),
            "reference": reference.to_dict(),
            "finetuned": compared.to_dict() if compared else None,
            "probes": {
                "suite": self.probes.suite,
                "digest": self.probes.digest,
                "seed": self._seed,
                "harmful": rows.n_harmful,
                "task": rows.n_tasks,
                "text": rows.n_texts,
                "template": rows.template,
                "openings": list(self.probes.openings),
            },
            "tensors": {"made": made, "all": len(plan.tensors)},
            "milliseconds": times.to_dict(),
            "streamed": self.streams,
            "device": self.device,
            "dtype": self.model.dtype,
        }

    def _alone_of(self, recipe: Recipe, model: int, control: Control) -> Reading:
        """Measure one fine-tuned model as it is."""
        key = (model, recipe.output.dtype)
        if key not in self._alone:
            self.bring(self.plan(alone(recipe, model)), control)
            self._alone[key] = self._measure("finetuned", control, self._reference)
        return self._alone[key]


def alone(recipe: Recipe, model: int) -> Recipe:
    """Return the recipe that takes one fine-tuned model as it is and leaves the others out."""
    plain: dict[str, Any] = {
        "layers": {}, "modules": {}, "weight": None, "parameters": {}, "masks": (),
        "rescale": False,
    }  # fmt: skip
    return Recipe(
        base=recipe.base,
        aligned=recipe.aligned,
        finetuned=tuple(
            each.model_copy(update={**plain, "ratio": 1.0 if i == model else 0.0})
            for i, each in enumerate(recipe.finetuned)
        ),
        output=recipe.output,
    )


class _Named:
    """Another `Control` to which every stage has one name."""

    def __init__(self, control: Control, name: str):
        self.check, self.advance = control.check, control.advance
        self._stage, self._name = control.stage, name

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Begin a stage under the one name."""
        self._stage(self._name, total, bytes_total)


_loaded: Preview | None = None


def preview(
    request: Request, control: Control, make_room: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Answer a request with what is loaded, or load what it needs in place of that.

    `make_room` is called when there is too little memory to hold the models.
    """
    global _loaded
    begun = time.perf_counter()
    fresh = _loaded is None or not _loaded.serves(request)
    if fresh:
        release()
        if make_room is not None and not _fits(request):
            make_room()
        _loaded = Preview(request, control)
    assert _loaded is not None
    result = _loaded.answer(request, control)
    result["loaded"] = fresh
    result["milliseconds"]["all"] = round(1000 * (time.perf_counter() - begun), 3)
    return result


def _fits(request: Request) -> bool:
    return held_whole(open_lineup(request.recipe), free_room(request.device)) is not None


def lend(recipe: Recipe, device: str, control: Control) -> tuple[Any, Any] | None:
    """Return the model that is loaded for a lineup, the recipe's weights in it, and its tokenizer.

    None where there is none, or where it cannot take them. Whoever asks next changes the weights.
    Raises `UserError` as the merge would.
    """
    if _loaded is None or not _loaded.is_of(recipe, device):
        return None
    model = _loaded.model
    if isinstance(model, StreamedModel) or not _loaded.knows_reference:
        return None
    try:
        plan = _loaded.plan(recipe)
    except UserError as error:
        if error.code == "not_previewable":
            return None
        raise
    _loaded.bring(plan, control)
    return model.model, _loaded.tokenizer


def release(least: int = 0) -> None:
    """Let go of what is loaded, if that is at least so many bytes."""
    global _loaded
    if _loaded is not None and _loaded.nbytes >= least:
        _loaded.close()
        _loaded = None


def _session_key(request: Request) -> object:
    named = _models_key(request.recipe)
    return named, request.suite, request.count, request.seed, request.device


def _models_key(recipe: Recipe) -> object:
    models = (recipe.base, recipe.aligned, *recipe.finetuned)
    return tuple(
        model
        and (
            model.path, model.revision, model.lora, model.lora_revision, model.name,
            getattr(model, "adapter_base", None),
        )
        for model in models
    )  # fmt: skip


def _checkpoints(lineup: Lineup) -> Iterator[Checkpoint]:
    for member in lineup.members:
        yield member.checkpoint
        if member.adapter is not None:
            yield member.adapter


def _unchanged(lineup: Lineup) -> bool:
    try:
        stats = [(header.path.stat(), header) for c in _checkpoints(lineup) for header in c.headers]
    except OSError:
        return False
    return all(
        (stat.st_mtime_ns, stat.st_size) == (header.mtime_ns, header.file_bytes)
        for stat, header in stats
    )
