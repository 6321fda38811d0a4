"""What is known of the spectra of a lineup so far, in numpy columns that a window can draw."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup
from trimtab.checkpoints.grid import Grid
from trimtab.paths import cache_dir

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SPECTRA_VERSION = 1
#: singular values that are kept of each tensor
VALUES = 64
#: directions of the alignment vector that energies and overlaps are measured with, at most
RANK = 16
#: row permutations that a tensor's energy and overlap are compared with
DRAWS = 20
NOTHING, COARSE, FINE, EXACT = range(4)
LEVELS = ("nothing", "coarse", "fine", "exact")


@dataclass(frozen=True)
class Spectra:
    """Spectra of each tensor (or group of tensors), as far as they are known.

    With n rows, m fine-tuned models and the vectors v = (a, τ₁ … τ_m), all float64 but for the
    first three. Unknown is nan. A tensor of several matrices (stacked experts), and a group of
    tensors, counts as the block-diagonal matrix of all of them.

    - `matrices` int64 [n]: how many matrices a row consists of; 0 for norms and the like
    - `present` bool [n, m + 1]: whether the row has the vector at all
    - `level` int64 [n, m + 1]: `NOTHING`, `COARSE`, `FINE` or `EXACT`
    - `values`, `lower`, `upper` [n, m + 1, 64]: the largest singular values and their bounds
    - `norm2`, `nuclear`, `log_sum`, `fourth` [n, m + 1]: Σσ², Σσ, Σσ ln σ, Σσ⁴; all but the first
      are known of exact spectra only
    - `inside` [n, m]: ‖U_kU_kᵀτ‖², U_k the leading left singular vectors of a; `whole` ‖τ‖² of the
      same matrices; `inside_expected` and `inside_variance`: mean and variance for a random
      subspace, exact (the variance wants exact spectra); `inside_permuted` [n, m, 20]: with a's
      output coordinates dealt out anew
    - `overlap` [n, m]: ‖U_k(a)ᵀU_k(τ)‖²; `overlap_most` the most it can be, min(k_a, k_τ);
      `overlap_expected` k_a k_τ/out; `overlap_permuted` [n, m, 20]
    """

    names: tuple[str, ...]
    finetuned: tuple[str, ...]
    has_alignment: bool
    rank: int
    seed: int
    matrices: Counts
    present: npt.NDArray[np.bool_]
    level: Counts
    values: Floats
    lower: Floats
    upper: Floats
    norm2: Floats
    nuclear: Floats
    log_sum: Floats
    fourth: Floats
    inside: Floats
    whole: Floats
    inside_expected: Floats
    inside_variance: Floats
    inside_permuted: Floats
    overlap: Floats
    overlap_most: Floats
    overlap_expected: Floats
    overlap_permuted: Floats

    @classmethod
    def unknown(
        cls,
        names: tuple[str, ...],
        finetuned: tuple[str, ...],
        has_alignment: bool,
        rank: int = RANK,
        seed: int = 0,
    ) -> Spectra:
        """Return spectra of which nothing is known yet."""
        n, m = len(names), len(finetuned)
        per_vector = {key: np.full((n, m + 1), np.nan) for key in _PER_VECTOR}
        per_model = {key: np.full((n, m), np.nan) for key in _PER_MODEL}
        permuted = {key: np.full((n, m, DRAWS), np.nan) for key in _PERMUTED}
        sorted_ = {key: np.full((n, m + 1, VALUES), np.nan) for key in _SORTED}
        return cls(
            names, finetuned, has_alignment, rank, seed,
            np.zeros(n, dtype=np.int64), np.zeros((n, m + 1), dtype=np.bool_),
            np.zeros((n, m + 1), dtype=np.int64),
            **sorted_, **per_vector, **per_model, **permuted,
        )  # fmt: skip

    @property
    def stage(self) -> str:
        """The level that everything has reached: a word of `LEVELS`."""
        return LEVELS[int(self.level[self.present].min(initial=EXACT))]

    def summed(self, group_of: npt.NDArray[np.integer[Any]], labels: tuple[str, ...]) -> Spectra:
        """Put rows together as blocks of one matrix: row i goes to group `group_of[i]`.

        What a row does not have (`present`) is left out; what is not known yet makes the group
        unknown, and a group's level is its least known row's.
        """
        n, m = len(labels), len(self.finetuned)
        out = Spectra.unknown(labels, self.finetuned, self.has_alignment, self.rank, self.seed)
        with_both = self.present[:, :1] & self.present[:, 1:]

        def add(key: str, counted: npt.NDArray[np.bool_]) -> None:
            source, target = getattr(self, key), getattr(out, key)
            wide = counted.reshape(*counted.shape, *(1,) * (source.ndim - 2))
            target[:] = 0.0
            np.add.at(target, group_of, np.where(wide, source, 0.0))
            some = np.zeros(counted.shape[1:], dtype=np.int64)[None].repeat(n, axis=0)
            np.add.at(some, group_of, counted.astype(np.int64))
            target[some == 0] = np.nan

        for key in _PER_VECTOR:
            add(key, self.present)
        for key in (*_PER_MODEL, *_PERMUTED):
            add(key, with_both)
        np.add.at(out.matrices, group_of, self.matrices)
        np.logical_or.at(out.present, group_of, self.present)
        out.level[:] = EXACT
        np.minimum.at(out.level, group_of, np.where(self.present, self.level, EXACT))
        out.level[~out.present] = NOTHING
        for group in range(n):
            rows = np.flatnonzero(group_of == group)
            for v in range(m + 1):
                if out.level[group, v] == NOTHING:
                    continue
                for key in _SORTED:
                    known = getattr(self, key)[rows, v].ravel()
                    known = np.sort(known[~np.isnan(known)])[::-1][:VALUES]
                    getattr(out, key)[group, v, : len(known)] = known
        return out

    def grouped(self, grid: Grid) -> Spectra:
        """Put the rows of each of the grid's groups together."""
        return self.summed(grid.group_of, grid.labels)

    def put(self, row: int, found: Spectra) -> None:
        """Set a row to the only one of `found`."""
        for key in ("matrices", "present", "level", *_ARRAYS):
            getattr(self, key)[row] = getattr(found, key)[0]

    def copy(self) -> Spectra:
        """Return spectra with arrays of their own."""
        keys = ("matrices", "present", "level", *_ARRAYS)
        return replace(self, **{key: getattr(self, key).copy() for key in keys})

    def save(self, path: Path) -> None:
        """Write to `path` (npz without pickles) by way of a temporary name."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        meta = {"version": SPECTRA_VERSION} | {key: getattr(self, key) for key in _META}
        arrays = {key: getattr(self, key) for key in ("matrices", "present", "level", *_ARRAYS)}
        with open(partial, "wb") as file:
            text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
            np.savez(file, meta=text, **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Spectra | None:
        """Read what `save` wrote; None when it is missing, damaged or of another version."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                meta = json.loads(data["meta"].tobytes())
                if meta.pop("version") != SPECTRA_VERSION:
                    return None
                names, finetuned = tuple(meta["names"]), tuple(meta["finetuned"])
                found = cls.unknown(
                    names, finetuned, bool(meta["has_alignment"]),
                    int(meta["rank"]), int(meta["seed"]),
                )  # fmt: skip
                for key in ("matrices", "present", "level", *_ARRAYS):
                    getattr(found, key)[...] = data[key]
                return found
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, MemoryError,
                zipfile.BadZipFile):  # fmt: skip
            return None

    def fits(self, lineup: Lineup) -> bool:
        """Whether these are the spectra of this lineup's tensors and models."""
        names = tuple(member.name for member in lineup.finetuned)
        return self.names == lineup.names and self.finetuned == names


_META = ("names", "finetuned", "has_alignment", "rank", "seed")
_SORTED = ("values", "lower", "upper")
_PER_VECTOR = ("norm2", "nuclear", "log_sum", "fourth")
_PER_MODEL = (
    "inside", "whole", "inside_expected", "inside_variance",
    "overlap", "overlap_most", "overlap_expected",
)  # fmt: skip
_PERMUTED = ("inside_permuted", "overlap_permuted")
_ARRAYS = tuple(
    f.name for f in fields(Spectra) if f.name not in (*_META, "matrices", "present", "level")
)


def spectra_path(lineup: Lineup, rank: int = RANK, seed: int = 0) -> Path:
    """Return where the spectra of this lineup's content are kept, and grow while they are made."""
    text = f"{SPECTRA_VERSION} {rank} {seed} {lineup.fingerprint}"
    key = hashlib.blake2b(text.encode(), digest_size=16)
    return cache_dir() / "spectra" / f"{key.hexdigest()}.npz"
