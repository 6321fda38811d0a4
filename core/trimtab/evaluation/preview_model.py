"""A model in memory whose weights are exchanged between two measurements on the same probes."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control, Unattended
from trimtab.errors import UserError
from trimtab.evaluation.preview_rows import Group, Rows
from trimtab.evaluation.preview_weights import MergedWeights
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


@dataclass(frozen=True)
class Value:
    """A number over `n` probes or tokens; `hits` where it is a share. None where it is nothing."""

    value: float | None
    n: int
    hits: int | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return it ready for JSON."""
        return {"value": self.value, "n": self.n, "hits": self.hits}


@dataclass(frozen=True)
class Reading:
    """What was measured, by the ids of `probes.MEASURES`.

    `first` holds the log-probabilities of each answer's first token, float32 [probes, vocabulary],
    harmful probes first: what a KL divergence is taken from.
    """

    values: dict[str, Value]
    first: torch.Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers ready for JSON."""
        return {name: value.to_dict() for name, value in self.values.items()}


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
        device = next(iter(self._state.values())).device
        self._groups = [group.to(device) for group in rows.groups]
        self._refusal = torch.tensor(rows.refusal, dtype=torch.long, device=device)
        for layer in _layers(model):
            layer.register_forward_pre_hook(lambda module, inputs: self._control.check())

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

    @torch.no_grad()
    def take(self, weights: MergedWeights, names: Iterable[str]) -> None:
        """Put these tensors of a merge into the model, in the precision it computes in."""
        for name in names:
            own = self._place.get(name)
            if own is not None:
                self._state[own].copy_(as_tensor(weights, weights.tensors[name]))

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
            return self._measure(control, reference)
        finally:
            torch.set_num_threads(threads)
            self._control = Unattended()

    def _measure(self, control: Control, reference: Reading | None) -> Reading:
        first: list[torch.Tensor] = []
        margins: list[torch.Tensor] = []
        nats, tokens = 0.0, 0
        control.stage("Measuring", len(self._groups))
        for group in self._groups:
            control.check()
            logits = self._logits(group)
            log_p = logits.float().log_softmax(-1)
            if group.kind == "text":
                nats += float(_chosen(log_p, group).sum(dtype=torch.float64))
                tokens += int(group.counted.sum())
            else:
                every = torch.arange(len(log_p), device=log_p.device)
                first.append(log_p[every, log_p.shape[1] - group.lengths])
                if group.kind == "answer":
                    margins.append(_answer_margins(log_p, group))
                elif group.kind == "choice":
                    margins.append(_choice_margins(log_p[:, -1], group))
            control.advance(1)
        every_first = torch.cat(first) if first else torch.empty(0, 0)
        harmful = every_first[: self.rows.n_harmful]
        task = torch.cat(margins) if margins else torch.empty(0)
        values = {**self._refusals(harmful), **_tasks(task)}
        values["perplexity"] = _value(
            math.exp(min(-nats / tokens, 700)) if tokens else None, tokens
        )
        divergence = None
        if reference is not None and len(every_first):
            p, q = reference.first, every_first
            terms = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0)
            divergence = float(terms.sum(-1, dtype=torch.float64).clamp(min=0).mean())
        elif len(every_first):
            divergence = 0.0  # of the reference from itself
        values["kl"] = _value(divergence, len(every_first))
        return Reading(values, every_first)

    def _logits(self, group: Group) -> torch.Tensor:
        more: dict[str, Any] = {}
        if self._positions:
            more["position_ids"] = group.positions
        if self._keep:
            more["logits_to_keep"] = group.keep
        output = self.model(input_ids=group.ids, attention_mask=group.mask, use_cache=False, **more)
        # what models do not leave out by themselves
        return cast(torch.Tensor, output.logits[:, -group.keep :])

    def _refusals(self, log_p: torch.Tensor) -> dict[str, Value]:
        if not len(log_p) or not len(self._refusal):
            return {"refusal_share": Value(None, 0), "refusal_margin": Value(None, 0)}
        refused = torch.isin(log_p.argmax(-1), self._refusal)
        inside = log_p[:, self._refusal].logsumexp(-1)
        outside = log_p.index_fill(1, self._refusal, -torch.inf).logsumexp(-1)
        margin = float((inside - outside).mean(dtype=torch.float64))
        return {
            "refusal_share": _share(refused),
            "refusal_margin": _value(margin, len(log_p)),
        }


def as_tensor(weights: MergedWeights, tensor: PlannedTensor) -> torch.Tensor:
    """Return a tensor of a merge as torch sees it: a view of its bytes in their own dtype."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UserError(
            "not_previewable",
            "These models cannot be measured while the hand moves.",
            f"{tensor.name} is stored as {tensor.dtype}, which is not computed with here.",
            "Merge and save, then evaluate the result.",
        )
    stored = weights.stored(tensor.name)
    if tensor.offset % dtype.itemsize:
        stored = stored.copy()  # torch looks at memory only at multiples of the element's size
    return torch.from_numpy(stored).view(dtype).reshape(tensor.shape)


def _layers(model: Any) -> Sequence[torch.nn.Module]:
    """Return the model's blocks: the longest list of modules in it."""
    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    longest: list[torch.nn.Module] = max(lists, key=lambda found: len(found), default=[])
    return longest


def _chosen(log_p: torch.Tensor, group: Group) -> torch.Tensor:
    """Return the log-probability of each target, 0 where there is none, [rows, keep]."""
    found = log_p.gather(-1, group.targets.clamp(min=0)[..., None])[..., 0]
    return torch.where(group.counted, found, 0.0)


def _answer_margins(log_p: torch.Tensor, group: Group) -> torch.Tensor:
    """Return how far each right answer is ahead at the weakest of its tokens, [rows]."""
    top = log_p.topk(2, dim=-1)
    right = log_p.gather(-1, group.targets.clamp(min=0)[..., None])[..., 0]
    leads = top.indices[..., 0] == group.targets
    margin = torch.where(leads, top.values[..., 0] - top.values[..., 1], right - top.values[..., 0])
    return torch.where(group.counted, margin, torch.inf).amin(-1)


def _choice_margins(log_p: torch.Tensor, group: Group) -> torch.Tensor:
    """Return how far each right letter is ahead of the best other one, [rows]."""
    letters = log_p.gather(-1, group.options.clamp(min=0))
    letters = torch.where(group.options >= 0, letters, -torch.inf)
    right = letters.gather(-1, group.answers[:, None])[:, 0]
    others = letters.scatter(1, group.answers[:, None], -torch.inf)
    return right - others.amax(-1)


def _tasks(margins: torch.Tensor) -> dict[str, Value]:
    if not len(margins):
        return {"task_accuracy": Value(None, 0), "task_margin": Value(None, 0)}
    mean = float(margins.mean(dtype=torch.float64))
    return {"task_accuracy": _share(margins > 0), "task_margin": _value(mean, len(margins))}


def _share(flags: torch.Tensor) -> Value:
    hits = int(flags.sum())
    return Value(hits / len(flags), len(flags), hits)


def _value(number: float | None, n: int) -> Value:
    return Value(number if number is not None and math.isfinite(number) else None, n)


def _not_previewable(name: str) -> UserError:
    return UserError(
        "not_previewable",
        "These models cannot be measured while the hand moves.",
        f"transformers keeps {name} in another form than the files do.",
        "Merge and save, then evaluate the result.",
    )
