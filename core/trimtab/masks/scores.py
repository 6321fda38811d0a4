"""Scores of our own that masks are built from: how large the entries of a task vector are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup, Member, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

Floats = npt.NDArray[np.float32]


def finetuned(lineup: Lineup, name: str = "") -> Member:
    """Return a lineup's fine-tuned model by its name; without one, the only one.

    Raises `UserError` with `unknown_model`, and with `nothing_to_merge` where there is none.
    """
    if not lineup.finetuned:
        raise UserError(
            "nothing_to_merge",
            "There is no fine-tuned model.",
            "A mask says which entries of a task vector survive.",
            "Add a fine-tuned model to the recipe.",
        )
    found = [m for m in lineup.finetuned if not name or m.name == name]
    if len(found) == 1 or (found and name):
        return found[0]
    raise UserError(
        "unknown_model",
        f"There is no fine-tuned model called {name}." if name else "Which model is not said.",
        f"There are: {', '.join(m.name for m in lineup.finetuned)}.",
        "Name one of these.",
    )


class TaskVector:
    """The entries of one model's task vector τ = fine-tuned − reference, in float32.

    `names` are the tensors of floats of which the model has a version of its own; that nothing in
    one was changed is seen only when it is read. Safe to use from several threads while the reader
    is open.
    """

    def __init__(self, lineup: Lineup, member: Member, reader: TensorReader):
        self._reader = reader
        self._sources: dict[str, tuple[Source, Source]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        index = lineup.reference.checkpoint.index
        for row, name in enumerate(lineup.names):
            own, reference = lineup.source(name, member), lineup.source(name, lineup.reference)
            if own is None or reference is None or own.same_bytes_as(reference):
                continue
            if index.dtype_of(row).mergeable:
                self._sources[name] = own, reference
                self._shapes[name] = index.shapes[row]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that it has entries in."""
        return tuple(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._shapes[name]

    def read(self, name: str, low: int, high: int) -> Floats:
        """Return entries [low, high), float32 [high - low]."""
        own, reference = self._sources[name]
        values = self._reader.read(own, low, high)
        values -= self._reader.read(reference, low, high)
        return values


class Magnitude:
    """How large the entries of a task vector are: |τ|, a score that needs no data."""

    def __init__(self, vector: TaskVector):
        self._vector = vector
        self.about: Mapping[str, Any] = {"score": "magnitude", "mode": "ours"}

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores."""
        return self._vector.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._vector.shape(name)

    def read(self, name: str, low: int, high: int) -> Floats:
        """Return the scores of elements [low, high), float32 [high - low]."""
        values = self._vector.read(name, low, high)
        return np.abs(values, out=values)
