"""Lists the output's tensors: from which tensor of which model each is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimtab.checkpoints import Checkpoint, Lineup, Member, Source
from trimtab.checkpoints.naming import parse
from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe, Slice, SliceSource, Tower

_BLOCK = re.compile(r"((?:^|\.)(?:layers|h|blocks?|layer)\.)([0-9]{1,5})(\.)")
#: names that other tools give to the part of a model that is its text model or all of it
_TEXT_TOWERS = ("default", "text_decoder", "language_model", "text_model", "model", "decoder")


@dataclass(frozen=True)
class Input:
    """One model's part in an output tensor; `source` is None where it has no such tensor.

    `model` is its place among the fine-tuned models, `name` the tensor's name there, which filters
    of the model's own values look at, and `given` the slice's word on it. Where all of it is masked
    out `source` is the reference's tensor.
    """

    model: int
    member: Member
    name: str
    source: Source | None
    given: SliceSource | None = None
    masked_out: bool = False


@dataclass(frozen=True)
class Slot:
    """One tensor of the output, before it is decided what happens to it.

    `reference` is where task vectors start from and what the output looks like; `t` in [0, 1] is
    the layer's place in its slice, which gradients are evaluated at.
    """

    name: str
    reference: Source
    reference_name: str
    inputs: tuple[Input, ...]
    t: float
    slice: Slice | None = None
    tower: Tower | None = None


def _renumbered(name: str, layer: int) -> str:
    return _BLOCK.sub(lambda m: f"{m[1]}{layer}{m[3]}", name, count=1)


def n_layers(names: Sequence[str]) -> int:
    """Return how many blocks the tensors' names speak of."""
    return 1 + max(
        (layer for name in names if (layer := parse(name).layer) is not None), default=-1
    )


def tower_of(recipe: Recipe, name: str) -> Tower | None:
    """Return what the recipe says of the part of the model that a tensor belongs to."""
    components = name.split(".")
    for key, tower in recipe.towers.items():
        if key in components:
            return tower
    if parse(name).zone == "in" and any(c.startswith(("vision", "visual")) for c in components):
        return None
    return next((recipe.towers[key] for key in _TEXT_TOWERS if key in recipe.towers), None)


def slices_of(recipe: Recipe) -> tuple[Slice, ...]:
    """Return the slices that the output's layers are stacked from, empty for layers as they are.

    Raises `UserError` with `bad_recipe` when more than one tower has slices.
    """
    found = [tower.slices for tower in recipe.towers.values() if tower.slices]
    if len(found) > 1:
        raise UserError(
            "bad_recipe",
            "More than one part of the model is made of slices.",
            "Which layers belong to which part cannot be told.",
            "Use slices for the text model alone.",
        )
    return recipe.slices or (found[0] if found else ())


def build_slots(recipe: Recipe, lineup: Lineup) -> list[Slot]:
    """Return the output's tensors: as the reference has them, or stacked as the slices say.

    Raises `UserError` with `unknown_model`, `slice_length`, `unknown_layer` for slices that name
    what is not there.
    """
    slices = slices_of(recipe)
    if slices:
        return list(_stacked(recipe, lineup, slices))
    names = lineup.names
    last = max(n_layers(names) - 1, 0)
    offset = lineup.members.index(lineup.finetuned[0]) if lineup.finetuned else 0
    reference = lineup.members.index(lineup.reference)
    slots = []
    for name in names:
        column = lineup.sources[name]
        own = column[reference]
        assert own is not None
        layer = parse(name).layer
        # as mergekit counts: 0 outside the layers, 1 in a model of one layer
        t = 0.0 if layer is None else (layer / last if last else 1.0)
        inputs = tuple(
            Input(i, member, name, column[offset + i]) for i, member in enumerate(lineup.finetuned)
        )
        slots.append(Slot(name, own, name, inputs, t, None, tower_of(recipe, name)))
    return slots


def _stacked(recipe: Recipe, lineup: Lineup, slices: Sequence[Slice]) -> Iterator[Slot]:
    members = {m.name: m for m in reversed(lineup.members)}
    places = {m.name: i for i, m in enumerate(lineup.finetuned)}
    for part in slices:
        _check_slice(part, members, lineup)

    def source(member: Member, name: str) -> Source | None:
        if name in lineup.sources:
            return lineup.source(name, member)
        index = member.checkpoint.index
        if name not in index or member.adapter is not None:
            return None
        return Source(member.checkpoint, index.row(name))

    def slot(
        part: Slice, name: str, at: Sequence[str], template: Member, own: str, t: float
    ) -> Slot:
        reference = source(template, own)
        if reference is None:
            raise UserError(
                "unknown_layer",
                f"{template.name} has no {own}.",
                "A slice asks for it.",
                "Use a model that has this layer as the slice's base.",
            )
        inputs = tuple(
            Input(places[s.model], members[s.model], n, source(members[s.model], n), s)
            for s, n in zip(part.sources, at, strict=True)
            if s.model in places and s.model != part.base
        )
        return Slot(name, reference, own, inputs, t, part, tower_of(recipe, name))

    outside = [name for name in lineup.names if parse(name).layer is None]
    for name in outside:
        part = slices[-1] if parse(name).zone == "out" else slices[0]
        template = members[part.base] if part.base else lineup.reference
        yield slot(part, name, [name] * len(part.sources), template, name, 0.0)
    layer = 0
    for part in slices:
        first, last = part.sources[0].layers
        for k in range(last - first):
            template, start = _template(part, members, lineup)
            t = k / (last - first - 1) if last - first > 1 else 1.0
            for own in _layer_names(template.checkpoint, start + k):
                at = [_renumbered(own, s.layers[0] + k) for s in part.sources]
                yield slot(part, _renumbered(own, layer), at, template, own, t)
            layer += 1


def _template(part: Slice, members: Mapping[str, Member], lineup: Lineup) -> tuple[Member, int]:
    """Return the model whose layers a slice's look like, and its first layer there.

    That is the slice's base, or the reference, where it is among the sources; else the first.
    """
    wanted = part.base or lineup.reference.name
    for candidate in part.sources:
        if candidate.model == wanted:
            return members[candidate.model], candidate.layers[0]
    return members[part.sources[0].model], part.sources[0].layers[0]


def _layer_names(checkpoint: Checkpoint, layer: int) -> list[str]:
    return [name for name in checkpoint.index.names if parse(name).layer == layer]


def _check_slice(part: Slice, members: Mapping[str, Member], lineup: Lineup) -> None:
    if part.base is not None and part.base not in members:
        raise _unknown_model(part.base, members)
    lengths = {s.layers[1] - s.layers[0] for s in part.sources}
    if len(lengths) != 1 or min(lengths) < 1:
        raise UserError(
            "slice_length",
            "The sources of a slice have different numbers of layers, or none.",
            ", ".join(f"{s.model} {list(s.layers)}" for s in part.sources) + ".",
            "Give each source of a slice as many layers as the others.",
        )
    merged = {m.name for m in lineup.finetuned} | {part.base or lineup.reference.name}
    for s in part.sources:
        if s.model not in members:
            raise _unknown_model(s.model, members)
        if s.model not in merged:
            raise UserError(
                "not_merged",
                f"{s.model} is in a slice and takes no part in the merge.",
                f"Task vectors start from {part.base or lineup.reference.name} here.",
                "Add it to the fine-tuned models, or leave it out of the slice.",
            )
        known = n_layers(members[s.model].checkpoint.index.names)
        if members[s.model].checkpoint.kind == "adapter":
            known = n_layers(lineup.names)
        if s.layers[1] > known:
            raise UserError(
                "unknown_layer",
                f"{s.model} has no layer {s.layers[1] - 1}.",
                f"It has layers 0 to {known - 1}; a slice asks for {list(s.layers)}.",
                "The second number is the first layer that is not taken.",
            )


def _unknown_model(name: str, members: Mapping[str, Member]) -> UserError:
    return UserError(
        "unknown_model",
        f"There is no model called {name} in the lineup.",
        f"There are: {', '.join(members)}.",
        "Name one of these in the slice.",
    )
