"""A matrix that Antidote looks at, and where what is pruned goes: a mask, or a zeroed copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.realign.antidote import Bools, Floats, Variant, highest, matched_at_random, wanda
from trimtab.realign.antidote_copy import ZeroedCopy

REPORT_NAME = "trimtab-antidote.json"


class Part:
    """One matrix with its scores: what `highest` is taken of, [out, in]."""

    def __init__(
        self, name: str, row: int, values: Floats, norms: Floats, transposed: bool, module: str
    ):
        self.name, self.row, self.module = name, row, module
        self.values, self.scores = values, wanda(values, norms, transposed)
        self.transposed = transposed

    def chosen(self, alpha: float, seed: int) -> tuple[Bools, Bools]:
        """Return what is pruned, and what its control prunes: bool of the matrix's shape."""
        scores = self.scores.T if self.transposed else self.scores
        found = highest(scores, alpha)
        pruned = np.ascontiguousarray(found.T if self.transposed else found)
        energy = np.square(self.values)
        target = float(np.sum(energy[pruned], dtype=np.float64))
        return pruned, matched_at_random(energy, target, seed, self.name)


class Sink(Protocol):
    """Takes what is pruned, matrix by matrix. A context manager: it appears when finished."""

    def __enter__(self) -> Sink:
        """Begin."""

    def __exit__(self, *raised: Any) -> None:
        """Leave nothing unfinished behind."""

    def take(self, part: Part, pruned: Bools) -> None:
        """Take one matrix's pruned entries."""

    def finish(self, report: dict[str, Any]) -> None:
        """Give the result its name."""


class _MaskSink:
    """Writes what is pruned as a mask: there the merge falls back to the aligned model."""

    def __init__(self, path: Path, about: MaskAbout):
        self._writer = MaskWriter(path.absolute(), about)

    def __enter__(self) -> _MaskSink:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._writer.__exit__(*raised)

    def take(self, part: Part, pruned: Bools) -> None:
        packed = np.packbits(~pruned.reshape(-1), bitorder="little")
        self._writer.bits(part.name, part.values.shape, packed)

    def finish(self, report: dict[str, Any]) -> None:
        self._writer.finish()


class _FolderSink:
    """Writes a copy of the model or adapter in which what is pruned is zero."""

    def __init__(self, copy: ZeroedCopy):
        self._copy = copy

    def __enter__(self) -> _FolderSink:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._copy.__exit__(*raised)

    def take(self, part: Part, pruned: Bools) -> None:
        self._copy.zero(part.row, pruned)

    def finish(self, report: dict[str, Any]) -> None:
        self._copy.commit({REPORT_NAME: json.dumps(report, indent=2, ensure_ascii=False) + "\n"})


def sink_for(
    path: Path,
    variant: Variant,
    target: Checkpoint,
    about: MaskAbout,
    inputs: list[Path],
    overwrite: bool,
    control: Control,
) -> Sink:
    """Return what writes this variant's result to `path`; `target` is what is copied."""
    if variant == "delta-revert":
        return _MaskSink(path, about)
    return _FolderSink(ZeroedCopy(target, path, inputs, overwrite, control))
