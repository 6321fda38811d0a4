"""How many entries Antidote would prune, from headers alone: before anything is read or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.adapter_names import is_transposed
from trimtab.checkpoints.adapters import LowRank
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.naming import parse
from trimtab.errors import UserError
from trimtab.realign.antidote import Variant, pruned_in_row

#: what the authors' full fine-tuning branch looks at
QKV = ("q", "k", "v")


def usual_modules(variant: Variant) -> tuple[str, ...]:
    """Return the modules that a variant looks at unless told otherwise; none for all."""
    return QKV if variant == "weight-zeroing" else ()


@dataclass(frozen=True)
class Counted:
    """Sums over matrices; in `floored` of them the floor makes it more than α of a row."""

    matrices: int
    entries: int
    pruned: int
    floored: int


def low_ranks(lineup: Lineup, member: Member) -> Iterator[tuple[str, LowRank]]:
    """Yield the Linears that an adapter changes: no stacked experts, no embeddings."""
    for name in lineup.names:
        source = lineup.source(name, member)
        change = None if source is None else source.change
        embedding = parse(name).module in ("embed", "position")
        if isinstance(change, LowRank) and change.experts == 1 and not embedding:
            yield name, change


def target_of(lineup: Lineup, member: Member, variant: Variant) -> Checkpoint:
    """Return the checkpoint that is pruned.

    Raises `UserError` with `antidote_variant` where variant and model do not go together.
    """
    adapter = member.checkpoint if member.checkpoint.kind == "adapter" else member.adapter
    if variant == "delta-revert":
        if lineup.aligned is not None:
            return lineup.reference.checkpoint
        why, fix = "There is no aligned model to revert to.", "Name one, or choose weight-zeroing."
    elif variant == "lora-space":
        if adapter is not None:
            return adapter
        why = f"{member.name} is no adapter: its factors are merged into its weights."
        fix = "Choose delta-revert, or give the recipe the adapter itself."
    elif adapter is None and member.checkpoint.kind == "folder":
        return member.checkpoint
    else:
        why = f"{member.name} is no model folder whose weights could be zeroed."
        fix = "Choose lora-space for an adapter, or delta-revert."
    raise UserError("antidote_variant", f"{variant} cannot be done here.", why, fix)


def looked_at(lineup: Lineup, member: Member, variant: Variant) -> tuple[tuple[int, int], ...]:
    """Return (rows, inputs) of every matrix of the variant's usual modules.

    From shapes: a matrix that fine-tuning saved anew and left as it was is here, though `antidote`
    will see that there is nothing to prune.
    """
    return tuple(_matrices(lineup, member, variant, usual_modules(variant)))


def count_pruned(matrices: Sequence[tuple[int, int]], alpha: float) -> Counted:
    """Count what `antidote` prunes of matrices (rows, inputs)."""
    return Counted(
        len(matrices),
        sum(rows * width for rows, width in matrices),
        sum(rows * pruned_in_row(width, alpha) for rows, width in matrices),
        sum(pruned_in_row(width, alpha) > alpha * width for _, width in matrices),
    )


def _matrices(
    lineup: Lineup, member: Member, variant: Variant, modules: tuple[str, ...]
) -> Iterator[tuple[int, int]]:
    index = lineup.reference.checkpoint.index
    shapes = dict(zip(lineup.names, index.shapes, strict=True))
    if variant == "lora-space":
        for name, change in low_ranks(lineup, member):
            if parse(name).layer is None:
                continue
            rows, width = _turned(lineup, name, shapes[name])
            yield from ((change.rank, width), (rows, change.rank))
        return
    for name, shape in shapes.items():
        place = parse(name)
        if len(shape) != 2 or place.layer is None or (modules and place.module not in modules):
            continue
        own, reference = lineup.source(name, member), lineup.source(name, lineup.reference)
        if own is None or reference is None:
            continue
        if variant == "delta-revert" and own.same_bytes_as(reference):
            continue
        yield _turned(lineup, name, shape)


def _turned(lineup: Lineup, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, inputs) of a matrix, which some models store the other way round."""
    config = lineup.reference.checkpoint.config
    layer = name.removesuffix(".weight")
    turned = is_transposed(layer, (0, 0), None, {}, config)
    return (shape[1], shape[0]) if turned else (shape[0], shape[1])
