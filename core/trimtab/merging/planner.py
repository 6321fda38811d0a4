"""Decides from headers alone what every byte of the output will be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trimtab import __version__
from trimtab.checkpoints import Lineup, Member, Source
from trimtab.checkpoints.dtypes import BY_CODE, OUTPUT_DTYPES
from trimtab.checkpoints.naming import parse
from trimtab.errors import UserError
from trimtab.merging.layout import Shard, lay_out
from trimtab.merging.recipe import Recipe
from trimtab.methods import MergeMethod, get_method

#: elements per work item: what is journalled and resumed as one piece
ITEM = 1 << 22

Action = Literal["merged", "copied", "converted"]


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: what is done, from which models, and where its bytes go.

    `ratios` holds a number for each entry of `models`; `offset` is in bytes from the start of the
    file of shard number `shard`.
    """

    name: str
    row: int
    shape: tuple[int, ...]
    numel: int
    dtype: str
    action: Action
    why: str
    origin: Source
    models: tuple[Source, ...]
    ratios: tuple[float, ...]
    model_names: tuple[str, ...]
    shard: int
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of this tensor in the output."""
        return BY_CODE[self.dtype].nbytes(self.numel)


@dataclass(frozen=True)
class WorkItem:
    """Elements [low, high) of a planned tensor."""

    number: int
    tensor: PlannedTensor
    low: int
    high: int


@dataclass(frozen=True)
class Plan:
    """A merge, worked out but not begun."""

    recipe: Recipe
    lineup: Lineup = field(repr=False)
    method: MergeMethod = field(repr=False)
    parameters: Mapping[str, float]
    tensors: tuple[PlannedTensor, ...] = field(repr=False)
    shards: tuple[Shard, ...] = field(repr=False)
    items: tuple[WorkItem, ...] = field(repr=False)

    @property
    def bytes_out(self) -> int:
        """Bytes of the weight files to be written."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def bytes_data(self) -> int:
        """Bytes of all tensors in the output: what is to be written but for the headers."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bytes_in(self) -> int:
        """Bytes to be read, adapters' factors not counted."""
        return sum(
            s.checkpoint.index.dtype_of(s.row).nbytes(t.numel)
            for t in self.tensors
            for s in sources_read(t)
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of output tensors by what happens to them."""
        return dict(Counter(tensor.action for tensor in self.tensors))

    def digest(self) -> str:
        """Hex digest of all that the output's bytes depend on."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.lineup.fingerprint.encode())
        digest.update(f"{__version__} {ITEM}\n".encode())
        digest.update(f"{self.method.name} {sorted(self.parameters.items())}".encode())
        for shard in self.shards:
            digest.update(shard.name.encode() + shard.header)
        for tensor in self.tensors:
            digest.update(
                f"{tensor.action} {tensor.origin.checkpoint.fingerprint} {tensor.origin.row} "
                f"{tensor.model_names} {tensor.ratios}\n".encode()
            )
        return digest.hexdigest()


def sources_read(tensor: PlannedTensor) -> tuple[Source, ...]:
    """Return the stored tensors that making `tensor` reads."""
    return (tensor.origin, *tensor.models) if tensor.action == "merged" else (tensor.origin,)


def plan_merge(recipe: Recipe, lineup: Lineup) -> Plan:
    """Plan the merge of `lineup` by `recipe`.

    Raises `UserError` with `cannot_merge` when the lineup has errors, `nothing_to_merge` without
    a fine-tuned model, `unknown_layer` and `unknown_module` for ratios that name what is not
    there, and what the method says of its parameters.
    """
    if lineup.errors:
        first = lineup.errors[0]
        raise UserError(
            "cannot_merge",
            f"{first.model} cannot be merged.",
            first.what,
            first.effect,
            details="\n".join(f"{f.model}: {f.what} {f.effect}" for f in lineup.errors),
        )
    if not lineup.finetuned:
        raise UserError(
            "nothing_to_merge",
            "There is no fine-tuned model.",
            "A merge adds task vectors to the reference.",
            "Add at least one fine-tuned model.",
        )
    method = get_method(recipe.method)
    parameters = method.check(recipe.parameters)
    places = [parse(name) for name in lineup.names]
    layers = np.array([-1 if p.layer is None else p.layer for p in places], dtype=np.int32)
    modules = tuple(p.module for p in places)
    _check_names(recipe, set(layers.tolist()), set(modules))
    ratios = recipe.ratios(layers, modules)
    coefficients = method.coefficients(ratios, **parameters)
    index = lineup.reference.checkpoint.index
    wanted = OUTPUT_DTYPES.get(recipe.output.dtype)
    dtypes = [
        wanted if wanted and index.dtype_of(row).mergeable else index.dtype_of(row).code
        for row in range(len(index))
    ]
    shards, positions = lay_out(lineup.reference.checkpoint, dtypes, recipe.output.shard_size)
    tensors = []
    for row, name in enumerate(lineup.names):
        action, why, origin, chosen = _decide(lineup, row, dtypes[row], coefficients[row])
        shard, offset = positions[row]
        tensors.append(
            PlannedTensor(
                name=name,
                row=row,
                shape=index.shapes[row],
                numel=int(index.numel[row]),
                dtype=dtypes[row],
                action=action,
                why=why,
                origin=origin,
                models=tuple(source for _, source, _ in chosen),
                ratios=tuple(float(ratios[row, i]) for i, _, _ in chosen),
                model_names=tuple(member.name for _, _, member in chosen),
                shard=shard,
                offset=offset,
            )
        )
    return Plan(recipe, lineup, method, parameters, tuple(tensors), shards, _items(tensors, lineup))


def _check_names(recipe: Recipe, layers: set[int], modules: set[str]) -> None:
    for model in recipe.finetuned:
        for layer in model.layers:
            if layer not in layers or layer < 0:
                known = layers - {-1}
                raise UserError(
                    "unknown_layer",
                    f"There is no layer {layer}.",
                    f"The reference has layers {min(known)} to {max(known)}."
                    if known
                    else "The reference has no layers.",
                    f"Correct the layers of {model.name or model.path} in the recipe.",
                )
        for module in model.modules:
            if module not in modules:
                raise UserError(
                    "unknown_module",
                    f"There is no module {module}.",
                    f"The reference has: {', '.join(sorted(modules))}.",
                    f"Correct the modules of {model.name or model.path} in the recipe.",
                )


def _decide(
    lineup: Lineup, row: int, dtype: str, coefficients: np.ndarray
) -> tuple[Action, str, Source, list[tuple[int, Source, Member]]]:
    """Return action, reason, origin, and the models that take part with their positions."""
    index = lineup.reference.checkpoint.index
    name = lineup.names[row]
    reference = lineup.source(name, lineup.reference)
    assert reference is not None
    ref_name = lineup.reference.name
    stored = index.dtype_of(row).code

    def unchanged(why: str) -> tuple[Action, str, Source, list[tuple[int, Source, Member]]]:
        action: Action = "copied" if stored == dtype else "converted"
        return action, f"from {ref_name}: {why}", reference, []

    if not index.dtype_of(row).mergeable:
        return unchanged(f"{index.dtype_of(row).label} is not averaged")
    active: list[tuple[int, Source, Member]] = []
    absent: list[str] = []
    for i, member in enumerate(lineup.finetuned):
        source = lineup.source(name, member)
        if source is None:
            absent.append(member.name)
        elif not source.same_bytes_as(reference):
            active.append((i, source, member))
    if not active:
        return unchanged(f"missing in {', '.join(absent)}" if absent else "the models share it")
    moving = [entry for entry in active if coefficients[entry[0]] != 0]
    if not moving:
        return unchanged("ratio 0")
    if len(moving) == 1 and coefficients[moving[0][0]] == 1 and moving[0][1].low_rank is None:
        i, source, member = moving[0]
        same = source.checkpoint.index.dtype_of(source.row).code == dtype
        return "copied" if same else "converted", f"from {member.name}: ratio 1", source, []
    # models at ratio 0 stay out of the sum, where even 0 * Inf would count; an absent model's
    # share of a mean falls to the reference
    takes_part = _with_absent(lineup, name, reference, active, coefficients)
    names = ", ".join(member.name for _, _, member in takes_part)
    return "merged", f"{ref_name} with {names}", reference, takes_part


def _with_absent(
    lineup: Lineup,
    name: str,
    reference: Source,
    active: Sequence[tuple[int, Source, Member]],
    coefficients: np.ndarray,
) -> list[tuple[int, Source, Member]]:
    known = {i: (i, source, member) for i, source, member in active}
    return [
        known.get(i, (i, reference, member))
        for i, member in enumerate(lineup.finetuned)
        if coefficients[i] != 0
    ]


def _items(tensors: Sequence[PlannedTensor], lineup: Lineup) -> tuple[WorkItem, ...]:
    """Cut the tensors into work items in the order in which the reference lies on disk."""
    index = lineup.reference.checkpoint.index
    items: list[WorkItem] = []
    for row in np.lexsort((index.start, index.file)):
        tensor = tensors[int(row)]
        for low in range(0, tensor.numel, ITEM):
            items.append(WorkItem(len(items), tensor, low, min(low + ITEM, tensor.numel)))
    return tuple(items)


def describe(plan: Plan) -> dict[str, object]:
    """Return the account of every tensor, ready for JSON: the dry run and the final report."""
    return {
        "method": plan.method.name,
        "parameters": dict(plan.parameters),
        "reference": plan.lineup.reference.name,
        "bytes_in": plan.bytes_in,
        "bytes_out": plan.bytes_out,
        "shards": [shard.name for shard in plan.shards],
        "counts": plan.counts,
        "findings": [
            {"level": f.level, "model": f.model, "what": f.what, "effect": f.effect}
            for f in plan.lineup.findings
        ],
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "dtype": BY_CODE[t.dtype].label,
                "action": t.action,
                "why": t.why,
                "ratios": dict(zip(t.model_names, t.ratios, strict=True)),
            }
            for t in plan.tensors
        ],
    }
