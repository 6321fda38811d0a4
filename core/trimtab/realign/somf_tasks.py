"""The aligned model ready to run, and each task's change of it, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import psutil
import torch
from transformers import PreTrainedModel

from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.merged_target import role_targets
from trimtab.merging.recipe import Recipe
from trimtab.realign.somf_options import SomfOptions, needed_bytes, refuse_too_large
from trimtab.realign.somf_recipe import takes_part
from trimtab.realign.somf_units import Units, units_of


@dataclass(frozen=True)
class Tasks:
    """What masks are learned on.

    `base` holds the aligned model's tensors that differ in any task, `deltas` each task's
    change of them, float32 on the device, by the names of the checkpoint; `places` says by what
    name the running `model` knows each.
    """

    model: PreTrainedModel
    tokenizer: Any
    names: tuple[str, ...]
    base: Mapping[str, torch.Tensor]
    deltas: Mapping[str, tuple[torch.Tensor, ...]]
    units: Mapping[str, Units]
    places: Mapping[str, str]
    device: str

    @property
    def entries(self) -> int:
        """How many parameters differ, and are masked."""
        return sum(tensor.numel() for tensor in self.base.values())


def active(recipe: Recipe, lineup: Lineup) -> tuple[Member, ...]:
    """Return the fine-tuned models that take part: those whose ratio is not 0 throughout.

    Raises `UserError` with `no_aligned` and `no_task`.
    """
    if lineup.aligned is None:
        raise UserError(
            "no_aligned",
            "The recipe names no aligned model.",
            "Masks bring back what an aligned model has: there must be one to come from.",
            "Give the recipe an aligned model.",
        )
    found = tuple(
        member
        for member, ref in zip(lineup.finetuned, recipe.finetuned, strict=True)
        if takes_part(ref)
    )
    if not found:
        raise UserError(
            "no_task",
            "No fine-tuned model takes part.",
            "A model whose ratio is 0 is left out, and there is no other.",
            "Add a fine-tuned model, or raise its ratio.",
        )
    return found


def load_tasks(
    recipe: Recipe,
    lineup: Lineup,
    options: SomfOptions,
    device: str,
    control: Control,
) -> Tasks:
    """Read the task vectors and load the aligned model.

    Raises `UserError`: as `active`, `cannot_merge` for a lineup with errors, `nothing_changed`,
    `somf_memory`, `somf_unmapped` for tensors that the running model does not know by their name,
    and what loading a model raises.
    """
    members = active(recipe, lineup)
    if lineup.errors:
        first = lineup.errors[0]
        raise UserError("cannot_merge", f"{first.model} does not fit.", first.what, first.effect)
    reference = lineup.reference.checkpoint
    changed = _may_differ(lineup, members)
    units = {
        name: units_of(name, reference.index.shapes[reference.index.row(name)],
                       options.granularity, reference.config)
        for name in changed
    }  # fmt: skip
    _check_memory(lineup, units, len(members), options, device)
    (target,) = role_targets(recipe, ("aligned",), device=device)
    model, tokenizer = target.loaded(control)
    cast(torch.nn.Module, model).requires_grad_(False)
    base: dict[str, torch.Tensor] = {}
    deltas: dict[str, tuple[torch.Tensor, ...]] = {}
    control.stage("Reading task vectors", len(changed))
    with TensorReader() as reader:
        for name in changed:
            control.check()
            found = _read(lineup, members, name, reader)
            control.advance(1)
            if found is None:
                continue
            base[name] = torch.from_numpy(found[0]).to(device)
            deltas[name] = tuple(torch.from_numpy(delta).to(device) for delta in found[1:])
    if not base:
        raise UserError(
            "nothing_changed",
            "The fine-tuned model is the aligned one.",
            "Every entry of every task vector is zero: there is nothing to mask.",
            "Choose another model.",
        )
    return Tasks(
        model, tokenizer, tuple(m.name for m in members), base, deltas,
        {name: units[name] for name in base}, _places(model, base), device,
    )  # fmt: skip


def _may_differ(lineup: Lineup, members: tuple[Member, ...]) -> list[str]:
    reference = lineup.reference.checkpoint
    found = []
    for row, name in enumerate(lineup.names):
        own = lineup.source(name, lineup.reference)
        others = [lineup.source(name, member) for member in members]
        if own is None or not reference.index.dtype_of(row).mergeable:
            continue
        if any(other is not None and not other.same_bytes_as(own) for other in others):
            found.append(name)
    return found


def _check_memory(
    lineup: Lineup, units: Mapping[str, Units], tasks: int, options: SomfOptions, device: str
) -> None:
    entries = sum(int(np.prod(u.shape, dtype=np.int64)) for u in units.values())
    logits = sum(u.count for u in units.values())
    checkpoint = lineup.reference.checkpoint
    if device.startswith("cuda"):
        free, model = int(torch.cuda.mem_get_info(device)[0]), checkpoint.n_bytes
    else:
        free, model = int(psutil.virtual_memory().available), 4 * checkpoint.n_parameters
    needed = needed_bytes(model, entries, tasks, logits, options.granularity)
    refuse_too_large(needed, free, entries, options.granularity)


def _read(
    lineup: Lineup, members: tuple[Member, ...], name: str, reader: TensorReader
) -> list[np.ndarray[Any, np.dtype[np.float32]]] | None:
    """Return the aligned tensor and each task's change of it in float32, None where all are 0."""
    own = lineup.source(name, lineup.reference)
    assert own is not None
    checkpoint = lineup.reference.checkpoint
    shape = checkpoint.index.shapes[checkpoint.index.row(name)]
    count = int(np.prod(shape, dtype=np.int64))
    base = reader.read(own, 0, count)
    found, any_changed = [base.reshape(shape)], False
    for member in members:
        source = lineup.source(name, member)
        tuned = base if source is None else reader.read(source, 0, count)
        delta = tuned - base
        if not np.isfinite(delta).all():
            raise UserError(
                "not_finite",
                f"{name} of {member.name} has entries that are no numbers.",
                "NaN or Inf would spread through all that is learned.",
                "Get the model again.",
            )
        any_changed |= bool(delta.any())
        found.append(delta.reshape(shape))
    return found if any_changed else None


def _places(model: PreTrainedModel, base: Mapping[str, torch.Tensor]) -> dict[str, str]:
    known = dict(model.named_parameters())
    prefix = getattr(model, "base_model_prefix", "")
    found, missing = {}, []
    for name, tensor in base.items():
        names = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
        place = next((n for n in names if n in known and known[n].shape == tensor.shape), None)
        if place is None:
            missing.append(name)
        else:
            found[name] = place
    if missing:
        raise UserError(
            "somf_unmapped",
            f"{len(missing)} changed tensors are not parameters of the running model.",
            f"{missing[0]} is stored in a form that transformers turns into another when it loads.",
            "Masks can be learned for models whose files name their parameters as the model does.",
            details="\n".join(missing),
        )
    return found
