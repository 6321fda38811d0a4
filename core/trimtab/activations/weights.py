"""The weights of one model of a lineup, read one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Checkpoint, Lineup, Member, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

Floats = npt.NDArray[np.float32]

#: the files beside the weights that decide what a text becomes in a model
_DECIDING = (
    "config.json", "tokenizer", "chat_template", "vocab", "merges", "special_tokens",
    "added_tokens", "spiece", "sentencepiece",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """Where each tensor of a model comes from, and the folder with its config and tokenizer.

    `fingerprint` changes with the weights, and with nothing else.
    """

    name: str
    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, Source] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    fingerprint: str

    def read(self, reader: TensorReader, name: str) -> Floats:
        """Return a whole tensor in float32, in its own shape."""
        shape = self.shapes[name]
        flat = reader.read(self.sources[name], 0, int(np.prod(shape, dtype=np.int64)))
        return flat.reshape(shape)

    @cached_property
    def key(self) -> str:
        """Hex digest of the weights and of all files beside them that decide what they compute."""
        digest = hashlib.blake2b(self.fingerprint.encode(), digest_size=16)
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name.startswith(_DECIDING):
                digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
        return digest.hexdigest()


def checkpoint_weights(checkpoint: Checkpoint, name: str = "") -> ModelWeights:
    """Return the weights of a model folder. Raises `UserError` with `cannot_run`."""
    if checkpoint.kind == "adapter":
        raise _cannot_run(checkpoint, "An adapter runs on a model, and says not surely on which.")
    index = checkpoint.index
    return ModelWeights(
        name or checkpoint.name,
        _folder(checkpoint),
        checkpoint.config,
        {tensor: Source(checkpoint, row) for row, tensor in enumerate(index.names)},
        dict(zip(index.names, index.shapes, strict=True)),
        checkpoint.fingerprint,
    )


def member_weights(lineup: Lineup, member: Member) -> ModelWeights:
    """Return the weights of a lineup's model; a LoRA is what it makes of the model below it.

    Raises `UserError` with `cannot_run`.
    """
    checkpoint = member.checkpoint
    if checkpoint.kind != "adapter" and member.adapter is None:
        return checkpoint_weights(checkpoint, member.name)
    column = lineup.members.index(member)
    sources = {n: row[column] for n, row in lineup.sources.items()}
    found = {n: source for n, source in sources.items() if source is not None}
    if not found:
        raise _cannot_run(checkpoint, "None of the lineup's tensors is known for it.")
    below = next(iter(found.values())).checkpoint
    shapes = {n: below.index.shapes[source.row] for n, source in found.items()}
    lora = member.adapter or checkpoint
    text = f"{below.fingerprint} {lora.fingerprint}"
    return ModelWeights(
        member.name,
        _folder(below),
        below.config,
        found,
        shapes,
        hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    )


def _folder(checkpoint: Checkpoint) -> Path:
    if not checkpoint.config:
        raise _cannot_run(
            checkpoint,
            "There is no config.json beside the weights, so their shape as a model is unknown.",
        )
    if checkpoint.config.get("quantization_config"):
        raise _cannot_run(checkpoint, "Its weights are quantised, and packed ones are not read.")
    return checkpoint.folder


def _cannot_run(checkpoint: Checkpoint, why: str) -> UserError:
    return UserError(
        "cannot_run",
        f"{checkpoint.name} cannot be run.",
        why,
        "Choose the folder that holds config, tokenizer and unquantised weights.",
        details=str(checkpoint.path),
    )
