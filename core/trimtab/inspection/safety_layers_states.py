"""The hidden state of each query's last token behind each block, computed once and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trimtab.activations.calibrated import (
    Setting,
    calibrated,
    content_key,
    keep_newest,
    provenance,
)
from trimtab.activations.calibration import Calibration
from trimtab.activations.statistics import StateWatch
from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.activations.weights import ModelWeights
from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.safety_layers import States
from trimtab.paths import cache_dir

_KEPT = 100
_NAME = "states"


def last_states(
    weights: ModelWeights, queries: Calibration, setting: Setting, control: Control
) -> tuple[States, bool]:
    """Return the states float32 [blocks, queries, hidden], and whether they were known.

    Of the last token of each query, in the set's order; queries have no answers. Raises
    `UserError` as `calibrated` does, and `JobCancelled`.
    """
    key = content_key(weights, queries, setting, _NAME)
    path = cache_dir() / "activations" / f"{key}.states.safetensors"
    known = _load(path)
    if known is not None:
        path.touch()
        return known, True
    with calibrated(weights, queries, setting, control) as ready:
        width = int(ready.model.model.config.get_text_config().hidden_size)
        watch = StateWatch(len(ready.model.blocks), len(ready.tokens), width)
        ready.run.forward([watch])
    about = provenance(weights, queries, setting)
    metadata = {"about": json.dumps(about, ensure_ascii=False)}
    with TensorFileWriter(path, (_NAME,), metadata) as writer:
        writer.add(_NAME, watch.states)
        writer.finish()
    keep_newest(path.parent, "*.states.safetensors", _KEPT)
    return watch.states, False


def _load(path: Path) -> States | None:
    if not path.exists():
        return None
    try:
        checkpoint = open_checkpoint(path)
        row = checkpoint.index.row(_NAME)
        out = np.empty(int(checkpoint.index.numel[row]), dtype=np.float32)
        with TensorReader() as reader:
            reader.read_plain(checkpoint, row, 0, out.size, out)
    except (UserError, KeyError):
        return None  # damaged: it can be made again
    return out.reshape(checkpoint.index.shapes[row])
