"""Adds up what the pieces of one tensor tell: by compiled loops, or by torch without numba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.kernels.whole import MEASURED, make_ops

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
#: float32, or uint16 with the bits of bfloat16
Rows = npt.NDArray[Any]


@dataclass
class Sums:
    """Partial sums over the vectors reference, a, tau_1 .. tau_m of one tensor.

    `gram` float64 [m + 2, m + 2] holds inner products in its upper triangle (a's are zero where
    there is no base), `zeros` and `conflicts` int64 [m] count as in `Inspection`, `non_finite`
    int64 [m + 2] the NaN and Inf of reference, base and fine-tuned models.
    """

    gram: Floats
    zeros: Counts
    conflicts: Counts
    non_finite: Counts

    @classmethod
    def of(cls, m: int) -> Sums:
        """Return the sums over nothing, for `m` fine-tuned models."""
        return cls(
            np.zeros((m + 2, m + 2)),
            np.zeros(m, dtype=np.int64),
            np.zeros(m, dtype=np.int64),
            np.zeros(m + 2, dtype=np.int64),
        )


class Measure(Protocol):
    """Adds elements to sums."""

    #: whether bfloat16 may be given as it is stored
    takes_stored: bool

    def __call__(self, sums: Sums, rows: Rows, size: int, present: npt.NDArray[np.bool_]) -> None:
        """Add the first `size` elements of `rows` [m + 2, >= size] to `sums`.

        The rows are reference, base and fine-tuned models; those that are not `present`, bool
        [m + 2], are not looked at, and the task vector of such a model is zero.
        """


def make_measure(backend: str) -> Measure:
    """Return what adds up on a backend, "numba" or "torch"; its inner products are its `Ops`'s."""
    return CompiledMeasure() if backend == "numba" else TorchMeasure()


class CompiledMeasure:
    """`Measure` in one compiled loop that lets other threads run."""

    takes_stored = True

    def __init__(self) -> None:
        from trimtab.kernels.compiled_inspect import measure

        self._measure = measure

    def __call__(self, sums: Sums, rows: Rows, size: int, present: npt.NDArray[np.bool_]) -> None:
        """Add elements to sums."""
        self._measure(
            rows, size, MEASURED, present, bool(present[1]),
            sums.gram, sums.zeros, sums.conflicts, sums.non_finite,
        )  # fmt: skip


class TorchMeasure:
    """`Measure` in operations on whole pieces."""

    takes_stored = False

    def __init__(self) -> None:
        self._ops = make_ops("torch")

    def __call__(self, sums: Sums, rows: Rows, size: int, present: npt.NDArray[np.bool_]) -> None:
        """Add elements to sums."""
        for low in range(0, size, MEASURED):
            self._piece(sums, rows[:, low : min(low + MEASURED, size)], present)

    def _piece(self, sums: Sums, rows: Rows, present: npt.NDArray[np.bool_]) -> None:
        import torch

        with np.errstate(invalid="ignore", over="ignore"):
            own = rows[0].copy()
            vectors = np.zeros_like(rows)
            vectors[0] = own
            vectors[1] = own - rows[1] if present[1] else 0.0
            for row in np.flatnonzero(present[2:]) + 2:
                np.subtract(rows[row], own, out=vectors[row])
        sums.zeros += np.count_nonzero(vectors[2:] == 0, axis=1)
        a = vectors[1]
        for i, tau in enumerate(vectors[2:]):
            opposite = ((a < 0) & (tau > 0)) | ((a > 0) & (tau < 0))
            sums.conflicts[i] += np.count_nonzero(opposite)
        arrays = [torch.from_numpy(vector) for vector in vectors]
        products = np.zeros_like(sums.gram)
        for i, left in enumerate(arrays):
            for j in range(i, len(arrays)):
                products[i, j] = self._ops.dot(left, arrays[j])
        sums.gram += products
        if not np.isfinite(products).all():
            for row in np.flatnonzero(present):
                sums.non_finite[row] += np.count_nonzero(~np.isfinite(rows[row]))
