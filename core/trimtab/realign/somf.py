"""SOMF from a recipe and preference pairs to a mask: learned, measured, written, and told."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab.activations.tokens import Tokens
from trimtab.checkpoints import Lineup
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.file import SUFFIX, MaskAbout, Prompts
from trimtab.merging.place import output_busy, output_exists
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.realign.pairs_tokens import pair_rows
from trimtab.realign.preferences import Preferences, ids_of
from trimtab.realign.somf_file import SUFFIX as LOGITS
from trimtab.realign.somf_file import Form, SomfLogits
from trimtab.realign.somf_learning import ENOUGH, LOG, STATE, Learning
from trimtab.realign.somf_options import Settled, SomfOptions
from trimtab.realign.somf_recipe import somf_recipe
from trimtab.realign.somf_tasks import Tasks, load_tasks

_LOCK = "trimtab-lock"


def files_of(output: Path) -> dict[str, Path]:
    """Return what a run writes, by what it is: mask, logits, log, recipe, and the unfinished run.

    Raises `UserError` with `cannot_write` for a name that is no mask's.
    """
    if not output.name.endswith(SUFFIX):
        raise UserError(
            "cannot_write",
            f"{output.name} is no name for a mask.",
            f"The names of masks end in {SUFFIX}.",
            f"Call it {output.name.split('.')[0]}{SUFFIX}.",
        )
    stem = output.name.removesuffix(SUFFIX)
    return {
        "mask": output,
        "logits": output.with_name(stem + LOGITS),
        "log": output.with_name(stem + ".somf.json"),
        "recipe": output.with_name(stem + ".trim"),
        "unfinished": output.with_name(stem + ".somf.partial"),
    }


def learn(
    recipe: Recipe,
    pairs: Preferences,
    options: SomfOptions,
    output: Path,
    control: Control,
    *,
    form: Form = "expected",
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Learn masks for the recipe's fine-tuned models and write them to `output` in one form.

    Beside it lie the logits, the log, and the recipe that merges as it was learned. While it
    learns, the log grows in `<name>.somf.partial`, where the state is kept when the work is told
    to stop; with `resume` it goes on from there, on the CPU to the same bits. Returns the report
    that the log ends with. Raises `UserError`: as `load_tasks`, `pair_rows`, `SomfOptions.settled`
    do; `output_exists`, `unfinished_exists`, `output_busy`, `somf_other_run`, `cannot_write`, and
    `pairs_empty` where none are left to learn from.
    """
    files = files_of(output.absolute())
    begun = time.monotonic()
    with _claimed(files, resume, overwrite) as folder:
        lineup = open_lineup(recipe)
        tasks = load_tasks(recipe, lineup, options, device, control)
        settled = options.settled(len(tasks.names))
        learned, aside = pairs.split(options.validation)
        if not learned.pairs:
            raise UserError(
                "pairs_empty",
                f"{pairs.name} has no pairs to learn from.",
                f"Of {len(pairs.pairs)}, {len(aside.pairs)} are kept aside to measure by.",
                "Give more pairs.",
            )
        rows = _rows(tasks, learned)
        key = options.digest(lineup.fingerprint, learned.digest, device.partition(":")[0])
        learning = Learning(tasks, rows, options, settled, key)
        if resume:
            learning.resume(folder)
        learning.run(folder, control)
        found = _logits(lineup, learned, learning, tasks, settled, options)
        rows_aside = _rows(tasks, aside) if aside.pairs else rows
        report = {
            "settings": {**options.to_dict(), "merge": settled.merge, "scale": settled.scale,
                         "rescale": "tensor" if settled.rescale else "none"},
            "mode": options.mode(settled.merge),
            "form": form,
            "tasks": list(tasks.names),
            "pairs": {"name": pairs.name, "learned": len(learned.pairs), "aside": len(aside.pairs),
                      "left_out": pairs.left_out},
            "device": device,
            "threads": torch.get_num_threads(),
            "steps_taken": learning.step,
            "parameters": tasks.entries,
            "logits": sum(u.count for u in tasks.units.values()),
            "undecided": found.undecided(),
            "informative": found.informative(),
            "histogram": found.histogram(),
            **_measured(learning, found, form, rows_aside, control),
            "seconds": round(time.monotonic() - begun, 3),
            "log": learning.log,
        }  # fmt: skip
        found.save(files["logits"])
        found.write_mask(files["mask"], form)
        somf_recipe(recipe, settled, files["mask"], options.seed).save(files["recipe"])
        _write(files["log"], json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    shutil.rmtree(files["unfinished"], ignore_errors=True)
    return {**report, "files": {k: str(v) for k, v in files.items() if k != "unfinished"}}


def _rows(tasks: Tasks, pairs: Preferences) -> list[tuple[Tokens, Tokens]]:
    config: Any = tasks.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return pair_rows(tasks.tokenizer, pairs.pairs, positions)


def _logits(
    lineup: Lineup,
    pairs: Preferences,
    learning: Learning,
    tasks: Tasks,
    settled: Settled,
    options: SomfOptions,
) -> SomfLogits:
    about = MaskAbout(
        builder="SOMF",
        mode=options.mode(settled.merge),
        parameters={**options.to_dict(), "merge": settled.merge, "scale": settled.scale,
                    "rescale": "tensor" if settled.rescale else "none"},
        seed=options.seed,
        lineup=lineup.fingerprint,
        prompts=(Prompts(name=pairs.name, digest=pairs.digest, ids=ids_of(pairs.pairs)),),
    )  # fmt: skip
    logits = {name: x.detach().cpu().numpy().copy() for name, x in learning.logits.items()}
    return SomfLogits(about, dict(tasks.units), logits, options.seed)


@torch.no_grad()
def _measured(
    learning: Learning, found: SomfLogits, form: Form, rows: Any, control: Control
) -> dict[str, Any]:
    """Return energies, and how often chosen answers are preferred on pairs that are kept aside.

    Of the aligned model, the merge without a mask, with the mask in this form, and with its
    random control: the same logits, dealt out anew within each tensor.
    """
    seed = learning.options.seed
    control_of = found.permuted(seed + 1)
    cases: dict[str, Mapping[str, torch.Tensor] | None] = {
        "no mask": None,
        "masked": _masks(learning, found, form),
        "random control": _masks(learning, control_of, form),
    }
    control.stage("Measuring", len(rows) * (len(cases) + 1))
    table = {"aligned": _preferred(learning.measured({}, rows, control))}
    for name, masks in cases.items():
        table[name] = _preferred(learning.measured(learning.merged(masks), rows, control))
    return {
        "preference": table,
        "energy": {
            task: {
                "removed": _removed(learning, cases["masked"], i),
                "control_removed": _removed(learning, cases["random control"], i),
            }
            for i, task in enumerate(learning.tasks.names)
        },
    }


def _masks(learning: Learning, found: SomfLogits, form: Form) -> dict[str, torch.Tensor]:
    device = learning.tasks.device
    return {
        name: torch.from_numpy(found.values(name, form, found.seed).copy()).to(device)
        for name in found.logits
    }


def _preferred(likelihoods: torch.Tensor) -> dict[str, float]:
    gap = (likelihoods[:, 0] - likelihoods[:, 1]).double().cpu().numpy()
    return {"share": float(np.mean(gap > 0)), "nats": float(gap.mean())}


def _removed(learning: Learning, masks: Mapping[str, torch.Tensor] | None, task: int) -> float:
    """Return ‖(1 − m) ⊙ δ‖² / ‖δ‖² of a task over all tensors: before any rescaling."""
    assert masks is not None
    removed = total = 0.0
    for name, deltas in learning.tasks.deltas.items():
        delta, units = deltas[task].double(), learning.tasks.units[name]
        lost = delta.reshape(units.view) * (1 - masks[name].double())
        removed += float(lost.square().sum())
        total += float(delta.square().sum())
    return removed / total if total else 0.0


@contextlib.contextmanager
def _claimed(files: Mapping[str, Path], resume: bool, overwrite: bool) -> Iterator[Path]:
    """Hold the folder of the unfinished run: nobody else learns to the same name meanwhile."""
    folder = files["unfinished"]
    if not overwrite:
        for kind in ("mask", "logits", "log", "recipe"):
            if files[kind].exists():
                raise output_exists(files[kind])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(
            "cannot_write",
            f"{folder.name} cannot be made.",
            f"The system says: {error.strerror}.",
            "Choose another place.",
            details=str(folder),
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise output_busy(files["mask"]) from None
        if (folder / STATE).exists() and not resume:
            if not overwrite:
                raise UserError(
                    "unfinished_exists",
                    f"There is an unfinished run to {files['mask'].name}.",
                    "It was interrupted, and what it learned is still there.",
                    "Resume it, or allow overwriting to start anew.",
                    details=str(folder),
                )
            for name in (STATE, LOG, ENOUGH):
                (folder / name).unlink(missing_ok=True)
        try:
            yield folder
        finally:
            # nothing learned yet: nothing to go on with
            if not (folder / STATE).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(
            "cannot_write",
            f"{path.name} could not be written.",
            f"The system says: {error.strerror}.",
            "Choose another place.",
            details=str(path),
        ) from error
