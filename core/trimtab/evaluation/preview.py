"""Measures a merge that is not saved while its ratios are moved: what stays loaded in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from trimtab.checkpoints import Checkpoint, Lineup
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.preview_model import PreviewModel, Reading
from trimtab.evaluation.preview_rows import tokenise
from trimtab.evaluation.preview_weights import MergedWeights, refuse_other_shapes
from trimtab.evaluation.probes import PROBES, open_probes
from trimtab.evaluation.targets import runnable
from trimtab.evaluation.targets_loading import load_model, load_tokenizer
from trimtab.merging.plan import Plan
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Recipe, open_lineup

#: share of the free memory that a preview may take
_SHARE = 0.6


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
    """A lineup held in memory with its probes: answers one request after another.

    The reference is loaded as a transformers model once; for each recipe only the tensors that it
    changes are merged anew, by the same plan and kernels as a merge to disk, and put into the
    model. What the fine-tuned models and the reference come to is measured once.
    """

    def __init__(self, request: Request, control: Control):
        control.stage("Loading", 1)
        self._asked = _session_key(request)
        self._models = _models_key(request.recipe)
        self.lineup: Lineup = open_lineup(request.recipe)
        reference = self.lineup.reference.checkpoint
        runnable(reference)
        self.device = request.device
        self.dtype, room = _precision(self.lineup, request.device)
        self.probes = open_probes(request.suite, reference.folder, request.count, request.seed)
        tokenizer = load_tokenizer(reference.folder)
        control.check()
        model = load_model(reference.folder, request.device, self.dtype)
        model.eval()
        control.check()
        text = model.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None) or 1 << 30
        rows = tokenise(self.probes, tokenizer, positions, int(text.vocab_size))
        self.model = PreviewModel(model, reference, rows)
        self.tokenizer = tokenizer
        self.weights = MergedWeights(room)
        self._reference = self.model.measure(control)
        self._alone: dict[tuple[int, str], Reading] = {}
        self._seed = request.seed

    def close(self) -> None:
        """Give back files and memory."""
        self.weights.close()
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
    def nbytes(self) -> int:
        """Bytes of memory that it holds, roughly."""
        size = sum(t.numel() * t.element_size() for t in self.model.model.state_dict().values())
        return int(size) + self.weights.nbytes

    def plan(self, recipe: Recipe) -> Plan:
        """Plan a recipe of this lineup; raises `UserError` as `plan_merge` does."""
        plan = plan_merge(recipe, self.lineup)
        refuse_other_shapes(plan)
        return plan

    def bring(self, plan: Plan, control: Control) -> int:
        """Put a plan's weights into the model; returns how many tensors were made."""
        made = self.weights.update(plan, control)
        # with those that an update which was cancelled has made
        self.model.take(self.weights, self.weights.take_changed())
        return made

    def answer(self, request: Request, control: Control) -> dict[str, Any]:
        """Return what a recipe comes to, ready for JSON.

        Raises `UserError` as a merge of the recipe would; `JobCancelled` between layers.
        """
        times = _Times()
        with times.of("plan"):
            plan = self.plan(request.recipe)
        compared = None
        if request.against is not None:
            compared = self._alone_of(request.recipe, request.against, control)
        with times.of("merge"):
            made = self.bring(plan, control)
        with times.of("measure"):
            reading = self.model.measure(control, self._reference)
        rows = self.model.rows
        return {
            "merged": reading.to_dict(),
            "reference": self._reference.to_dict(),
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
            "device": self.device,
            "dtype": str(self.dtype or "stored").removeprefix("torch."),
        }

    def _alone_of(self, recipe: Recipe, model: int, control: Control) -> Reading:
        """Measure one fine-tuned model as it is."""
        key = (model, recipe.output.dtype)
        if key not in self._alone:
            self.bring(self.plan(alone(recipe, model)), control)
            self._alone[key] = self.model.measure(control, self._reference)
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


_loaded: Preview | None = None


def preview(request: Request, control: Control) -> dict[str, Any]:
    """Answer a request with what is loaded, or load what it needs in place of that."""
    global _loaded
    begun = time.perf_counter()
    fresh = _loaded is None or not _loaded.serves(request)
    if fresh:
        release()
        _loaded = Preview(request, control)
    assert _loaded is not None
    result = _loaded.answer(request, control)
    result["loaded"] = fresh
    result["milliseconds"]["all"] = round(1000 * (time.perf_counter() - begun), 3)
    return result


def lend(recipe: Recipe, device: str, control: Control) -> tuple[Any, Any] | None:
    """Return the model that is loaded for a lineup, the recipe's weights in it, and its tokenizer.

    None where there is none, or where it cannot take them. Whoever asks next changes the weights.
    Raises `UserError` as the merge would.
    """
    if _loaded is None or not _loaded.is_of(recipe, device):
        return None
    try:
        plan = _loaded.plan(recipe)
    except UserError as error:
        if error.code == "not_previewable":
            return None
        raise
    _loaded.bring(plan, control)
    return _loaded.model.model, _loaded.tokenizer


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


def _precision(lineup: Lineup, device: str) -> tuple[torch.dtype | None, int]:
    """Return what to compute in, and how many bytes of the models may be kept in memory.

    Float32 on the CPU where there is room for it, else what is stored. Raises `UserError` with
    `preview_too_large`.
    """
    count = lineup.reference.checkpoint.n_parameters
    image = sum(header.file_bytes for header in lineup.reference.checkpoint.headers)
    free = int(_SHARE * psutil.virtual_memory().available)
    on_cpu = device == "cpu"
    if on_cpu and 4 * count + image <= free:
        return torch.float32, free - 4 * count - image
    needed = image + (image if on_cpu else 0)
    if needed > free:
        raise UserError(
            "preview_too_large",
            "These models are too large to be measured while the hand moves.",
            f"That takes {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB may be used.",
            "Close other programs, or merge and save, then evaluate the result.",
        )
    return None, free - needed
