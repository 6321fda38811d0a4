"""Computes scores of weights that take gradients, block by block, and keeps them in the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from trimtab.activations.calibrated import (
    Setting,
    calibrated,
    content_key,
    keep_newest,
    provenance,
)
from trimtab.activations.calibration import Calibration
from trimtab.activations.statistics import GradientWatch
from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.activations.tokens import need_answers
from trimtab.activations.weights import ModelWeights
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.attribution import MARK, VERSION, Score, StoredScores
from trimtab.paths import cache_dir

# a file is as large as the model in float32
_KEPT = 8


def scores_path(
    weights: ModelWeights, calibration: Calibration, setting: Setting, score: Score
) -> Path:
    """Return where such scores of this model on this set are kept."""
    key = content_key(weights, calibration, setting, "scores", VERSION, score)
    return cache_dir() / "attribution" / f"{key}.{score}.safetensors"


def gradient_scores(
    weights: ModelWeights,
    calibration: Calibration,
    setting: Setting,
    scores: Sequence[Score],
    control: Control,
) -> tuple[dict[Score, Path], bool]:
    """Return the files with these scores, "snip" or "fisher", and whether all were known.

    Those that are not known are computed together, in one run forwards and one back. The loss is
    that of the answers' tokens. Raises `UserError` as `calibrated` does and with `no_answers`, and
    `JobCancelled`.
    """
    paths = {score: scores_path(weights, calibration, setting, score) for score in scores}
    missing = {score: path for score, path in paths.items() if not _is_known(path)}
    if missing:
        _compute(weights, calibration, setting, missing, control)
    for path in paths.values():
        path.touch()
        keep_newest(path.parent, "*.safetensors", _KEPT)
    return paths, not missing


def _is_known(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with TensorReader() as reader:
            StoredScores(path, reader)
    except UserError:
        path.unlink()  # of another version, or damaged: it can be made again
        return False
    return True


def _compute(
    weights: ModelWeights,
    calibration: Calibration,
    setting: Setting,
    missing: dict[Score, Path],
    control: Control,
) -> None:
    about = provenance(weights, calibration, setting)
    with calibrated(weights, calibration, setting, control) as ready, ExitStack() as stack:
        need_answers(ready.tokens, calibration)
        names = tuple(site.name for site in ready.sites)
        writers: dict[str, TensorFileWriter] = {}
        for score, path in missing.items():
            facts = {"score": score, "mode": "authors' code", "calibration": about}
            metadata = {MARK: VERSION, "about": json.dumps(facts, ensure_ascii=False)}
            # the losses, which come last, take room as if each were a name
            room = (*names, *calibration.ids)
            writers[score] = stack.enter_context(TensorFileWriter(path, room, metadata))
        ready.run.forward(keep=True)
        losses = ready.run.backward([GradientWatch(writers, len(ready.tokens))])
        for writer in writers.values():
            writer.finish({"losses": json.dumps(losses)})
