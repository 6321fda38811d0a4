"""Antidote from a recipe and realignment data: a mask, a model or an adapter, and its account."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.activations.calibration import Calibration
from trimtab.checkpoints import Lineup
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX, MaskAbout, Prompts
from trimtab.masks.spread import Counting
from trimtab.merging.place import output_exists
from trimtab.merging.recipe import FineTuned, Recipe
from trimtab.realign.antidote import Variant
from trimtab.realign.antidote_sinks import sink_for
from trimtab.realign.antidote_work import AntidoteOptions, Found, Pruning


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
    pruning = Pruning.open(recipe, options)
    for path in (output, control_output):
        _check_name(path, options.variant, overwrite)
    lineup, target = pruning.lineup, pruning.target
    with TensorReader() as reader, ExitStack() as stack:
        inputs = pruning.measure(calibration, reader, control, device)
        about = _about(lineup, calibration, options)
        inputs_of = [m.checkpoint.path for m in lineup.members]
        sinks = [
            stack.enter_context(sink_for(path, options.variant, target, about, inputs_of, overwrite,
                                      control))
            for path in (output, control_output) if path is not None
        ]  # fmt: skip
        found = Found()
        for part, pruned, random in pruning.pruned(inputs, reader, control):
            for sink, choice in zip(sinks, (pruned, random), strict=False):
                sink.take(part, choice)
            found.add(part, pruned, random, options.alpha)
        report = pruning.report(found, calibration, device)
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
                _masked_recipe(recipe, pruning.model, path, options.rescale).save(place)
        files["recipe"] = str(output.absolute().with_name(output.name.removesuffix(SUFFIX))) + (
            ".trim"
        )
    return {**report, "files": files}


def estimate(
    recipe: Recipe,
    calibration: Calibration,
    options: AntidoteOptions,
    control: Control,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """Return the report of what `antidote` would prune, and write nothing.

    `spread` tells in it how all scores lie, as `masks.spread.Spread` counts them, and `norms` in
    which file of the cache the input strengths are, if in one. Raises as `antidote` does.
    """
    pruning, counting, found = Pruning.open(recipe, options), Counting(), Found()
    with TensorReader() as reader:
        inputs = pruning.measure(calibration, reader, control, device)
        for part, pruned, random in pruning.pruned(inputs, reader, control):
            found.add(part, pruned, random, options.alpha)
            counting.add(part.scores)
    report = pruning.report(found, calibration, device)
    norms = None if inputs.path is None else str(inputs.path)
    return {**report, "norms": norms, "spread": counting.result().to_dict()}


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
