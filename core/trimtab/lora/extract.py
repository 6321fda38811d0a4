"""Makes a LoRA adapter of what fine-tuning changed: truncated SVD of every task vector."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.lineup import Lineup, Member
from trimtab.checkpoints.matching import build_lineup
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.lora.factoring import Extraction
from trimtab.lora.folder import AdapterFolder
from trimtab.lora.options import ExtractOptions
from trimtab.lora.papers import adapter_config, model_card
from trimtab.lora.targets import Target, find_targets

__all__ = ["REPORT_NAME", "ExtractOptions", "extract", "pair"]

REPORT_NAME = "trimtab-report.json"


def pair(finetuned: Checkpoint, reference: Checkpoint, adapter: Checkpoint | None = None) -> Lineup:
    """Return the lineup whose one task vector is `finetuned` minus `reference`.

    With `adapter`, that is applied to `finetuned` first.
    """
    name = finetuned.name if finetuned.name != reference.name else f"{finetuned.name}, fine-tuned"
    tuned = Member("finetuned", finetuned, name, "aligned", adapter)
    return build_lineup(None, Member("aligned", reference, reference.name), [tuned])


def extract(
    lineup: Lineup,
    options: ExtractOptions,
    output: Path,
    control: Control,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the lineup's one task vector to `output` as an adapter that PEFT loads.

    Reads tensor by tensor; one matrix is in memory at a time. The report, which is also in the
    folder, gives for each target rank and relative error ||dW - BA||_F / ||dW||_F of the factors
    as they are written. Raises `UserError`: `not_one_task_vector`, `cannot_merge` for a lineup
    with errors, `nothing_changed`, `not_finite`, `overflow` and the codes of `AdapterFolder`.
    """
    _check(lineup)
    began = time.monotonic()
    reference = lineup.reference.checkpoint
    shapes = {
        name: shape
        for row, (name, shape) in enumerate(
            zip(reference.index.names, reference.index.shapes, strict=True)
        )
        if reference.index.dtype_of(row).mergeable
    }
    targets = find_targets(shapes, reference.config, options.embeddings)
    members = [lineup.reference, lineup.finetuned[0]]
    inputs = [m.checkpoint.path for m in members] + [m.adapter.path for m in members if m.adapter]
    control.stage(
        "Extracting", len(shapes), 2 * 4 * sum(math.prod(shape) for shape in shapes.values())
    )
    needed = 2 * sum(_needed(target, shapes, options) for target in targets.factored)
    with (
        TensorReader() as reader,
        AdapterFolder(output, needed, inputs, overwrite) as folder,
    ):
        work = Extraction(lineup, options, targets, shapes, reader, folder, control)
        report = work.run()
        report |= {
            "output": str(output),
            "n_bytes": folder.n_bytes,
            "seconds": round(time.monotonic() - began, 3),
        }
        base = options.base_name or str(reference.path)
        config = adapter_config(work.written, work.biases, work.modules, options.rank, base,
                                reference.config, work.linear_modules)  # fmt: skip
        text = json.dumps(report, indent=2, ensure_ascii=False)
        folder.commit(config, {REPORT_NAME: text, "README.md": model_card(report, base)})
    return report


def _check(lineup: Lineup) -> None:
    if len(lineup.finetuned) != 1:
        raise UserError(
            "not_one_task_vector",
            f"An adapter is made of one fine-tuned model, and there are {len(lineup.finetuned)}.",
            "It holds one task vector: fine-tuned minus reference.",
            "Merge the models first, and extract the adapter from the result.",
        )
    if lineup.errors:
        first = lineup.errors[0]
        raise UserError("cannot_merge", f"{first.model} does not fit.", first.what, first.effect)


def _needed(target: Target, shapes: dict[str, tuple[int, ...]], options: ExtractOptions) -> int:
    *_, rows, columns = shapes[target.tensors[0]]
    elements = options.rank * (rows * len(target.parts[0]) + columns) * target.experts
    return elements * (4 if options.dtype == "float32" else 2)
