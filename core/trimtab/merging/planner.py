"""Decides from headers alone what every byte of the output will be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.dtypes import OUTPUT_DTYPES
from trimtab.errors import UserError
from trimtab.kernels.piece import random_key
from trimtab.masks.stack import TensorMask
from trimtab.merging.alignment import align
from trimtab.merging.chat_templates import chat_template_files
from trimtab.merging.config_changes import stacked_config, vocabulary_config
from trimtab.merging.layout import lay_out
from trimtab.merging.masking import Masking
from trimtab.merging.plan import ITEM, Action, Plan, PlannedTensor, WorkItem
from trimtab.merging.recipe import Recipe
from trimtab.merging.slots import Input, Slot, build_slots, slices_of
from trimtab.merging.values import Values
from trimtab.methods import MergeMethod, get_method


def plan_merge(recipe: Recipe, lineup: Lineup) -> Plan:
    """Plan the merge of `lineup` by `recipe`.

    Raises `UserError` with `cannot_merge` when the lineup has errors, `nothing_to_merge` without
    a fine-tuned model, `model_count` when the method takes more or fewer models, `unknown_layer`
    and `unknown_module` for ratios that name what is not there, `shapes_differ` for layers that do
    not fit, and what the method says of its parameters.
    """
    stacked = bool(slices_of(recipe))
    lineup, vocabulary = align(recipe, lineup)
    method = get_method(recipe.method)
    _check_lineup(lineup, method, stacked)
    if not stacked:
        method.check_models(len(lineup.finetuned))
    slots = build_slots(recipe, lineup)
    masking = Masking(recipe, {slot.name: _shape(slot.reference) for slot in slots})
    slots = masking.without_removed(slots)
    values = Values(recipe, method, slots)
    wanted = OUTPUT_DTYPES.get(recipe.output.dtype)
    drafts = [
        _draft(
            row,
            slot,
            values,
            masking,
            method,
            wanted,
            recipe.seed,
            _base_of(lineup, slot, method),
        )
        for row, slot in enumerate(slots)
    ]
    shards, positions = lay_out(
        lineup.reference.checkpoint,
        [(t.name, t.shape, t.dtype) for t in drafts],
        recipe.output.shard_size,
    )
    tensors = tuple(
        replace(t, shard=shard, offset=offset)
        for t, (shard, offset) in zip(drafts, positions, strict=True)
    )
    config = stacked_config(recipe, lineup) if stacked else {}
    files = dict(vocabulary.files) if vocabulary else {}
    reference = lineup.reference.checkpoint
    if vocabulary:
        config |= vocabulary_config(vocabulary, {**reference.config, **config})
    if recipe.chat_template is not None:
        folders = [member.checkpoint.folder for member in lineup.members]
        files |= chat_template_files(recipe.chat_template, folders, reference.folder, files)
    return Plan(
        recipe, lineup, method, tensors, shards, _items(tensors, method), config, files,
        vocabulary.dropped if vocabulary else frozenset(),
        vocabulary.fingerprint if vocabulary else "",
    )  # fmt: skip


def _check_lineup(lineup: Lineup, method: MergeMethod, stacked: bool) -> None:
    # layers may be taken from models of another depth, and are compared one by one
    errors = [f for f in lineup.errors if not (stacked and f.code in _BY_TENSOR)]
    if errors:
        first = errors[0]
        raise UserError(
            "cannot_merge",
            f"{first.model} cannot be merged.",
            first.what,
            first.effect,
            details="\n".join(f"{f.model}: {f.what} {f.effect}" for f in errors),
        )
    if method.needs_base and (stacked or not lineup.has_alignment):
        raise UserError(
            "needs_base",
            f"{method.title} cannot be used here.",
            "It goes by what alignment changed in each tensor, aligned minus base, "
            + ("and layers are stacked anew." if stacked else "and one of the two is not there."),
            "Leave the layers as they are." if stacked else "Add the base and the aligned model.",
        )
    if not lineup.finetuned and method.takes[0]:
        raise UserError(
            "nothing_to_merge",
            "There is no fine-tuned model.",
            "A merge adds task vectors to the reference.",
            "Add at least one fine-tuned model.",
        )


# findings that a merge of stacked layers checks for itself, tensor by tensor
_BY_TENSOR = ("configs_differ", "shapes_differ")


def _base_of(lineup: Lineup, slot: Slot, method: MergeMethod) -> Source | None:
    """Return the base model's tensor where the method asks for it and alignment changed it."""
    if not method.needs_base or lineup.base is None:
        return None
    source = lineup.source(slot.name, lineup.base)
    if source is None or source.same_bytes_as(slot.reference):
        return None
    return source if _shape(source) == _shape(slot.reference) else None


def _draft(
    row: int,
    slot: Slot,
    values: Values,
    masking: Masking,
    method: MergeMethod,
    wanted: str | None,
    seed: int,
    base: Source | None,
) -> PlannedTensor:
    """Decide what happens to one tensor; its place in the output is still open."""
    reference = slot.reference
    index = reference.checkpoint.index
    stored = index.dtype_of(reference.row)
    dtype = wanted if wanted and stored.mergeable else stored.code
    shape = _shape(reference)
    ref_name = reference.checkpoint.name
    numel = math.prod(shape)
    if slot.slice is not None:
        method.check_models(len(slot.inputs))

    def made(
        action: Action,
        why: str,
        origin: Source,
        chosen: Sequence[tuple[Input, Source, float]] = (),
        parameters: Mapping[str, Any] | None = None,
        selects: bool = False,
    ) -> PlannedTensor:
        masks = tuple(masking.of(slot, given) for given, _, _ in chosen)
        return PlannedTensor(
            slot.name, shape, numel, dtype, action, why, origin,
            tuple(source for _, source, _ in chosen),
            tuple(weight for _, _, weight in chosen),
            tuple(given.member.name for given, _, _ in chosen),
            tuple(random_key(seed, slot.name, given.member.name) for given, _, _ in chosen),
            dict(parameters or {}), base=base if action == "merged" else None,
            masks=() if all(mask is True for mask in masks) else masks, selects=selects,
        )  # fmt: skip

    def carried(why: str, origin: Source, name: str) -> PlannedTensor:
        plain = origin.change is None and origin.rows is None
        code = origin.checkpoint.index.dtype_of(origin.row).code
        same = plain and code == dtype
        return made("copied" if same else "converted", f"from {name}: {why}", origin)

    if not stored.mergeable:
        return carried(f"{stored.label} is not averaged", reference, ref_name)
    present = [(given, given.source) for given in slot.inputs if given.source is not None]
    _check_shapes(slot, present)
    absent = [given.member.name for given in slot.inputs if given.source is None]
    weights = [values.weight(row, slot, given) for given in slot.inputs]
    parameters = _parameters(method, values, slot)
    factors = _coefficients(method, weights, parameters)
    moved = [(g, s) for g, s in present if not s.same_bytes_as(reference)]
    alone = not method.takes[0] and base is not None
    if method.part != "layout" and not moved and not alone:
        if absent:
            return carried(f"missing in {', '.join(absent)}", reference, ref_name)
        if any(given.masked_out for given in slot.inputs):
            return carried("masked out", reference, ref_name)
        if factors is not None or method.part == "origin":
            return carried("the models share it", reference, ref_name)
    of = dict(zip((id(g) for g in slot.inputs), weights, strict=True))
    if factors is not None:
        return _by_coefficients(
            slot, present, moved, weights, factors, parameters, masking, made, carried
        )
    if method.last:
        # who the last one is matters, even at ratio 0 and where it has no such tensor
        present = [(g, g.source or reference) for g in slot.inputs]
    elif method.weighted and method.part == "origin":
        present = [(g, s) for g, s in present if of[id(g)] != 0]
        if not present and not alone:
            return carried("ratio 0", reference, ref_name)
    if len(present) < method.takes[0] or not (present or alone):
        missing = f"missing in {', '.join(absent)}" if absent else "too few models take part"
        return carried(missing, reference, ref_name)
    if method.name == "passthrough" and parameters["scale"][0] == 1:
        given, source = present[0]
        mask = masking.of(slot, given)
        if mask is False:
            return carried("masked out", reference, ref_name)
        if mask is True:
            return carried("as it is", source, given.member.name)
    kept = [i for i, g in enumerate(slot.inputs) if any(g is p for p, _ in present)]
    own = {
        name: tuple(value[i] for i in kept) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }
    names = ", ".join(g.member.name for g, _ in present) or "what alignment changed"
    why = names if method.part == "layout" else f"{ref_name} with {names}"
    return made("merged", why, reference, [(g, s, of[id(g)]) for g, s in present], own)


def _by_coefficients(
    slot: Slot,
    present: Sequence[tuple[Input, Source]],
    moved: Sequence[tuple[Input, Source]],
    weights: Sequence[float],
    factors: Sequence[float],
    parameters: Mapping[str, Any],
    masking: Masking,
    made: Any,
    carried: Any,
) -> PlannedTensor:
    """Decide for a method whose result is the reference plus so much of each change."""
    reference, ref_name = slot.reference, slot.reference.checkpoint.name
    at = {id(given): i for i, given in enumerate(slot.inputs)}
    moving = [(g, s) for g, s in moved if factors[at[id(g)]] != 0]
    if not moving:
        out = any(given.masked_out for given in slot.inputs)
        why = "ratio 0 or masked out" if out else "ratio 0"
        tensor: PlannedTensor = carried(why, reference, ref_name)
        return tensor
    if len(moving) == 1 and factors[at[id(moving[0][0])]] == 1:
        given, source = moving[0]
        if source.change is None and source.rows is None:
            mask = masking.of(slot, given)
            if mask is True:
                tensor = carried("ratio 1", source, given.member.name)
                return tensor
            if isinstance(mask, TensorMask) and not (mask.soft or mask.rescale):
                why = f"from {given.member.name} where its mask says so: ratio 1"
                one = [(given, source, weights[at[id(given)]])]
                tensor = made("merged", why, reference, one, parameters, selects=True)
                return tensor
    # models at ratio 0 stay out of the sum, where even 0 * Inf would count; an absent model's
    # share of a mean falls to the reference
    sources = {id(g): s for g, s in present}
    chosen = [
        (g, sources.get(id(g), reference), weights[i])
        for i, g in enumerate(slot.inputs)
        if factors[i] != 0
    ]
    names = ", ".join(given.member.name for given, _, _ in chosen)
    tensor = made("merged", f"{ref_name} with {names}", reference, chosen, parameters)
    return tensor


def _parameters(method: MergeMethod, values: Values, slot: Slot) -> dict[str, Any]:
    found: dict[str, Any] = dict(values.shared(slot))
    own = [values.own(slot, given) for given in slot.inputs]
    for parameter in method.parameters:
        if parameter.per_model:
            found[parameter.name] = tuple(each[parameter.name] for each in own)
    return found


def _coefficients(
    method: MergeMethod, weights: Sequence[float], parameters: Mapping[str, Any]
) -> list[float] | None:
    if method.coefficients is None:
        return None
    found = method.coefficients(np.array([weights], dtype=np.float64), **parameters)
    return None if found is None else [float(c) for c in found[0]]


def _check_shapes(slot: Slot, present: Sequence[tuple[Input, Source]]) -> None:
    wanted = _shape(slot.reference)
    for given, source in present:
        if _shape(source) != wanted:
            raise UserError(
                "shapes_differ",
                f"{given.member.name} does not fit in {slot.name}.",
                f"It has {list(_shape(source))} there and {list(wanted)} is wanted.",
                "Merge layers of models of one width.",
            )


def _shape(source: Source) -> tuple[int, ...]:
    shape = source.checkpoint.index.shapes[source.row]
    return shape if source.rows is None else (source.rows.n_rows, *shape[1:])


def _items(tensors: Sequence[PlannedTensor], method: MergeMethod) -> tuple[WorkItem, ...]:
    """Cut the tensors into work items in the order in which the reference lies on disk."""

    def place(tensor: PlannedTensor) -> tuple[str, int, int]:
        source = tensor.origin
        index = source.checkpoint.index
        return (
            str(source.checkpoint.path),
            int(index.file[source.row]),
            int(index.start[source.row]),
        )

    items: list[WorkItem] = []
    for tensor in sorted(tensors, key=place):
        step = _step(tensor, method)
        for unit, low in enumerate(range(0, tensor.numel, step)):
            high = min(low + step, tensor.numel)
            items.append(WorkItem(len(items), tensor, low, high, unit))
    return tuple(items)


def _step(tensor: PlannedTensor, method: MergeMethod) -> int:
    scope = method.scope(**tensor.parameters) if tensor.models else "element"
    if scope == "tensor":
        return max(tensor.numel, 1)
    if scope == "row":
        width = max(tensor.shape[-1], 1) if tensor.shape else 1
        return max(ITEM // width, 1) * width
    return ITEM
