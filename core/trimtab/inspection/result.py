"""What an inspection found, in numpy columns that a window can draw without reading weights."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.grid import Grid

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RESULT_VERSION = 2


@dataclass(frozen=True)
class Inspection:
    """Sums over the entries of each tensor (or of each group of tensors).

    With n rows, m fine-tuned models and the vectors v = (a, tau_1 .. tau_m), where
    a = aligned - base and tau_i = fine-tuned_i - reference:

    - `gram` float64 [n, m + 1, m + 1]: inner products <v_i, v_j>; row and column 0 belong to a
      and are nan where a tensor has no alignment vector
    - `ref_dots` float64 [n, m + 1]: inner products of the reference with each v, nan where
      `gram` is
    - `norm2` float64 [n]: squared norm of the reference tensor
    - `numel` int64 [n]
    - `conflicts` int64 [n, m]: entries where tau_i and a have opposite signs
    - `zeros` int64 [n, m]: entries where tau_i is exactly zero
    - `non_finite` int64 [n, m + 2]: NaN or Inf entries in base, reference, fine-tuned models
    """

    names: tuple[str, ...]
    finetuned: tuple[str, ...]
    has_alignment: bool
    gram: Floats
    ref_dots: Floats
    norm2: Floats
    numel: Counts
    conflicts: Counts
    zeros: Counts
    non_finite: Counts

    @property
    def not_numbers(self) -> npt.NDArray[np.bool_]:
        """Rows of integers, booleans and the like, bool [n]: nan throughout, with no entry bad."""
        nothing = np.isnan(self.gram).all(axis=(1, 2))
        return np.asarray(nothing & (self.non_finite.sum(axis=1) == 0))

    def gram_of(self, row: int, models: Sequence[int]) -> Floats:
        """Return the inner products of [reference, tau...] of one row, float64 [1 + k, 1 + k].

        `models` are k numbers of fine-tuned models, in the order that is wanted. It is what a merge
        method's `form` takes.
        """
        taus = [1 + model for model in models]
        gram = np.empty((1 + len(taus), 1 + len(taus)))
        gram[0, 0] = self.norm2[row]
        gram[0, 1:] = gram[1:, 0] = self.ref_dots[row, taus]
        gram[1:, 1:] = self.gram[row][np.ix_(taus, taus)]
        return gram

    def summed(self, group_of: npt.NDArray[np.int32], labels: tuple[str, ...]) -> Inspection:
        """Add rows up: row i goes to group `group_of[i]`, int32 [n], which `labels` names.

        Tensors that are no floating-point numbers count only where a group has no others, and
        a's sums are over the tensors that have an alignment vector, nan where none has. NaN in
        the weights stays NaN.
        """

        def add(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            out = np.zeros((len(labels), *values.shape[1:]), dtype=values.dtype)
            np.add.at(out, group_of, values)
            return out

        def beside_others(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
            return np.asarray(rows & (add((~rows).astype(np.int64)) > 0)[group_of])

        left_out = beside_others(self.not_numbers)
        no_alignment = np.isnan(self.gram[:, 0, 0]) & (self.non_finite.sum(axis=1) == 0)
        without = beside_others(no_alignment)
        gram = self.gram.copy()
        gram[left_out] = 0.0
        gram[without, 0, :] = gram[without, :, 0] = 0.0
        ref_dots = self.ref_dots.copy()
        ref_dots[left_out] = 0.0
        ref_dots[without, 0] = 0.0
        return Inspection(
            names=labels,
            finetuned=self.finetuned,
            has_alignment=self.has_alignment,
            gram=add(gram),
            ref_dots=add(ref_dots),
            norm2=add(self.norm2),
            numel=add(np.where(left_out, 0, self.numel)),
            conflicts=add(self.conflicts),
            zeros=add(self.zeros),
            non_finite=add(self.non_finite),
        )

    def grouped(self, grid: Grid) -> Inspection:
        """Add the rows of each of the grid's groups up."""
        return self.summed(grid.group_of, grid.labels)

    def total(self) -> Inspection:
        """Add all rows up to one, as `summed` does."""
        return self.summed(np.zeros(len(self.norm2), dtype=np.int32), ("all",))

    def save(self, path: Path) -> None:
        """Write to `path` (npz without pickles) by way of a temporary name."""
        # two windows may save the same result at once
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        meta = {
            "version": RESULT_VERSION,
            "names": self.names,
            "finetuned": self.finetuned,
            "has_alignment": self.has_alignment,
        }
        with open(partial, "wb") as file:
            np.savez(
                file,
                meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
                gram=self.gram,
                ref_dots=self.ref_dots,
                norm2=self.norm2,
                numel=self.numel,
                conflicts=self.conflicts,
                zeros=self.zeros,
                non_finite=self.non_finite,
            )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Inspection | None:
        """Read what `save` wrote; None when it is missing, damaged or of another version."""
        try:
            # opened here: numpy leaves the file open when it is no archive
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                meta = json.loads(data["meta"].tobytes())
                if meta["version"] != RESULT_VERSION:
                    return None
                return cls(
                    names=tuple(meta["names"]),
                    finetuned=tuple(meta["finetuned"]),
                    has_alignment=meta["has_alignment"],
                    gram=data["gram"],
                    ref_dots=data["ref_dots"],
                    norm2=data["norm2"],
                    numel=data["numel"],
                    conflicts=data["conflicts"],
                    zeros=data["zeros"],
                    non_finite=data["non_finite"],
                )
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, MemoryError,
                zipfile.BadZipFile):  # fmt: skip
            return None
