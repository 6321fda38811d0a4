"""Antidote from a recipe and realignment data: a mask, a model or an adapter, and its account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.activations.calibration import Calibration
from trimtab.activations.norms import Mode
from trimtab.activations.weights import member_weights
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.adapters import LowRank
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.naming import parse
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX, MaskAbout, Prompts
from trimtab.merging.place import output_exists
from trimtab.merging.recipe import FineTuned, Recipe, open_lineup
from trimtab.realign.antidote import (
    Floats,
    Removed,
    Variant,
    added_up,
    pruned_in_row,
    removed,
)
from trimtab.realign.antidote_norms import Inputs, measure
from trimtab.realign.antidote_sinks import Part, sink_for
from trimtab.realign.somf_recipe import takes_part

#: what the authors' full fine-tuning branch looks at
QKV = ("q", "k", "v")


@dataclass(frozen=True)
class AntidoteOptions:
    """What is pruned: `alpha` of every row, by scores with `norm`, in these `modules` (none: all).

    `model` names the fine-tuned model, where several take part. `seed` decides the random control.
    `rescale` (ours, of delta-revert) has the recipe divide by each tensor's mean of the mask.
    """

    variant: Variant = "delta-revert"
    alpha: float = 0.1
    norm: Mode = "authors' code"
    modules: tuple[str, ...] = ()
    model: str = ""
    seed: int = 0
    rescale: bool = False

    @property
    def mode(self) -> Mode:
        """Whose method this is: reverting to the aligned model is ours, whatever the scores."""
        return "ours" if self.variant == "delta-revert" else self.norm


def antidote(
    recipe: Recipe,
    calibration: Calibration,
    options: AntidoteOptions,
    output: Path,
    control: Control,
    *,
    control_output: Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prune one fine-tuned model by realignment data and write the result to `output`.

    delta-revert writes a mask, and beside it the recipe that uses it; weight-zeroing a model folder
    and lora-space an adapter folder, whose pruned entries are zero. `control_output` takes the
    same with the random control's entries, matched in energy matrix by matrix. Scores are of the
    model as it is, all at once: no block sees what was pruned in one before it. Returns the
    report. Raises `UserError`: `antidote_variant` where variant and model do not go together,
    `antidote_alpha`, `no_such_model`, `nothing_to_prune`, and what measuring and writing raise.
    """
    begun = time.monotonic()
    if not 0 < options.alpha <= 1:
        raise UserError(
            "antidote_alpha",
            f"α is {options.alpha:g}.",
            "It is the share of each row that is pruned: above 0, and at most 1.",
            "Choose such a share; the authors use 0.01 to 0.2.",
        )
    lineup = open_lineup(recipe)
    if lineup.errors:
        first = lineup.errors[0]
        raise UserError("cannot_merge", f"{first.model} does not fit.", first.what, first.effect)
    member, model = _chosen(recipe, lineup, options.model)
    target = _target(lineup, member, options.variant)
    for path in (output, control_output):
        _check_name(path, options.variant, overwrite)
    weights = member_weights(lineup, member)
    with TensorReader() as reader, ExitStack() as stack:
        factors = _factors(lineup, member, reader) if options.variant == "lora-space" else {}
        inputs = measure(weights, calibration, factors, options.norm, control, device)
        about = _about(lineup, calibration, options)
        inputs_of = [m.checkpoint.path for m in lineup.members]
        sinks = [
            stack.enter_context(sink_for(path, options.variant, target, about, inputs_of, overwrite,
                                      control))
            for path in (output, control_output) if path is not None
        ]  # fmt: skip
        parts: list[tuple[str, Removed]] = []
        floored = 0
        found = _parts(lineup, member, options, inputs, reader)
        control.stage("Pruning", len(inputs.norms.names))
        for part in found:
            control.check()
            pruned, random = part.chosen(options.alpha, options.seed)
            for sink, choice in zip(sinks, (pruned, random), strict=False):
                sink.take(part, choice)
            parts.append((part.module, removed(part.values, part.scores, pruned, random)))
            width = part.scores.shape[0 if part.transposed else 1]
            floored += pruned_in_row(width, options.alpha) > options.alpha * width
            control.advance(1)
        if not parts:
            raise UserError(
                "nothing_to_prune",
                f"{member.name} has nothing that this variant prunes.",
                f"Looked at: {', '.join(options.modules) or 'every Linear that differs'}.",
                "Choose other modules.",
            )
        report = _report(options, member, calibration, parts, floored, device)
        report["seconds"] = round(time.monotonic() - begun, 3)
        for sink in sinks:
            sink.finish(report)
    files = {"output": str(output.absolute())}
    if control_output is not None:
        files["control"] = str(control_output.absolute())
    if options.variant == "delta-revert":
        for path in (output, control_output):
            if path is not None:
                place = path.absolute().with_name(path.name.removesuffix(SUFFIX) + ".trim")
                _masked_recipe(recipe, model, path, options.rescale).save(place)
        files["recipe"] = str(output.absolute().with_name(output.name.removesuffix(SUFFIX))) + (
            ".trim"
        )
    return {**report, "files": files}


def _chosen(recipe: Recipe, lineup: Lineup, name: str) -> tuple[Member, FineTuned]:
    pairs = list(zip(lineup.finetuned, recipe.finetuned, strict=True))
    found = [p for p in pairs if (p[0].name == name if name else takes_part(p[1]))]
    if not found:
        raise UserError(
            "no_such_model",
            f"The recipe has no fine-tuned model {name}." if name else "No model takes part.",
            f"It has {', '.join(m.name for m in lineup.finetuned) or 'none'}.",
            "Name one of these; a model whose ratio is 0 must be named.",
        )
    return found[0]


def _target(lineup: Lineup, member: Member, variant: Variant) -> Checkpoint:
    """Return the checkpoint that is pruned. Raises `UserError` with `antidote_variant`."""
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


def _check_name(path: Path | None, variant: Variant, overwrite: bool) -> None:
    if path is None:
        return
    if path.exists() and not overwrite:
        raise output_exists(path)
    if variant == "delta-revert" and not path.name.endswith(SUFFIX):
        raise UserError(
            "cannot_write",
            f"{path.name} is no name for a mask.",
            f"The names of masks end in {SUFFIX}.",
            f"Call it {path.name.split('.')[0]}{SUFFIX}.",
        )


# --- What is pruned. ---


def _factors(lineup: Lineup, member: Member, reader: TensorReader) -> dict[str, Floats]:
    return {
        name: _read(reader, lora, change.a) for name, lora, change in _low_ranks(lineup, member)
    }


def _low_ranks(lineup: Lineup, member: Member) -> Iterator[tuple[str, Checkpoint, LowRank]]:
    """Yield the Linears that an adapter changes: no stacked experts, no embeddings."""
    for name in lineup.names:
        source = lineup.source(name, member)
        change = None if source is None else source.change
        embedding = parse(name).module in ("embed", "position")
        if isinstance(change, LowRank) and change.experts == 1 and not embedding:
            assert source is not None
            assert source.adapter is not None
            yield name, source.adapter, change


def _parts(
    lineup: Lineup, member: Member, options: AntidoteOptions, inputs: Inputs, reader: TensorReader
) -> Iterator[Part]:
    """Yield every matrix that is looked at; one is in memory at a time."""
    known = set(inputs.norms.names)

    def wanted(name: str) -> bool:
        return name in known and (not options.modules or parse(name).module in options.modules)

    if options.variant == "lora-space":
        for name, lora, change in _low_ranks(lineup, member):
            if not wanted(name):
                continue
            module = parse(name).module
            norms = (inputs.of(name, options.norm), inputs.projected[name])
            for side, row, norm in zip("AB", (change.a, change.b), norms, strict=True):
                values = _read(reader, lora, row)
                yield Part(f"{name} {side}", row, values, norm, False, f"{module} {side}")
        return
    for name in lineup.names:
        source = lineup.source(name, member)
        if source is None or not wanted(name):
            continue
        row = lineup.reference.checkpoint.index.row(name)
        shape = lineup.reference.checkpoint.index.shapes[row]
        count = int(np.prod(shape, dtype=np.int64))
        values = reader.read(source, 0, count)
        if options.variant == "delta-revert":
            own = lineup.source(name, lineup.reference)
            assert own is not None
            values = values - reader.read(own, 0, count)
            if not values.any():
                continue
        else:
            row = source.row
        norm = inputs.of(name, options.norm)
        transposed = name in inputs.norms.transposed
        yield Part(name, row, values.reshape(shape), norm, transposed, parse(name).module)


def _read(reader: TensorReader, checkpoint: Checkpoint, row: int) -> Floats:
    out = np.empty(int(checkpoint.index.numel[row]), dtype=np.float32)
    reader.read_plain(checkpoint, row, 0, out.size, out)
    return out.reshape(checkpoint.index.shapes[row])


def _about(lineup: Lineup, calibration: Calibration, options: AntidoteOptions) -> MaskAbout:
    return MaskAbout(
        builder=f"Antidote, {options.variant}",
        mode=options.mode,
        parameters=asdict(options),
        seed=options.seed,
        lineup=lineup.fingerprint,
        prompts=(Prompts(name=calibration.name, digest=calibration.digest, ids=calibration.ids),),
    )


def _masked_recipe(recipe: Recipe, model: FineTuned, mask: Path, rescale: bool) -> Recipe:
    entry = MaskEntry(path=str(mask.absolute()), name="Antidote")
    changed = {"masks": (*model.masks, entry), "rescale": rescale or model.rescale}
    masked = model.model_copy(update=changed)
    models = tuple(masked if m is model else m for m in recipe.finetuned)
    return recipe.model_copy(update={"finetuned": models})


def _report(
    options: AntidoteOptions,
    member: Member,
    calibration: Calibration,
    parts: list[tuple[str, Removed]],
    floored: int,
    device: str,
) -> dict[str, Any]:
    modules = dict.fromkeys(module for module, _ in parts)
    return {
        "settings": {**asdict(options), "modules": list(options.modules)},
        "mode": options.mode,
        "model": member.name,
        "calibration": {"name": calibration.name, "digest": calibration.digest,
                        "examples": len(calibration.examples)},
        "device": device,
        "matrices": len(parts),
        "floored": floored,
        "total": added_up([part for _, part in parts]).to_dict(),
        "modules": {
            module: added_up([part for m, part in parts if m == module]).to_dict()
            for module in modules
        },
    }  # fmt: skip
