"""Factors a matrix into two thin ones by singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# up to this many rows or columns the exact decomposition is quick enough
_EXACT = 512
# what is drawn beyond the rank, and how often the spectrum is sharpened (Halko et al. 2011,
# sections 4.3 and 4.5: 5 to 10, and 1 to 2 for spectra that decay slowly)
_OVERSAMPLING = 10
_ITERATIONS = 2
_BLOCK = 1024


@dataclass(frozen=True)
class Factors:
    """A matrix [out, in] as B @ A: `b` is [out, rank], `a` [rank, in], float32, of equal norms."""

    b: Floats
    a: Floats
    exact: bool


def decompose(matrix: Floats, rank: int, energy: float | None, seed: int) -> Factors:
    """Return the best factors of rank at most `rank` of `matrix`, [out, in].

    With `energy` the rank is the smallest that keeps this share of the squared Frobenius norm.
    Small matrices are decomposed exactly; others by the randomised algorithm of Halko, Martinsson
    and Tropp 2011 (algorithms 4.4 and 5.1), with a Gaussian test matrix drawn from `seed`.
    """
    rank = min(rank, *matrix.shape)
    exact = min(matrix.shape) <= max(_EXACT, rank + _OVERSAMPLING)
    if exact:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    else:
        u, s, vt = _randomised(matrix, rank + _OVERSAMPLING, seed)
    if energy is not None:
        kept = np.cumsum(np.square(s[:rank], dtype=np.float64))
        wanted = energy * squared_norm(matrix)
        # what rounding takes from the whole must not cost a rank
        rank = min(rank, int(np.searchsorted(kept, wanted * (1 - 1e-6))) + 1)
    root = np.sqrt(s[:rank])
    return Factors(u[:, :rank] * root, root[:, None] * vt[:rank], exact)


def _randomised(matrix: Floats, columns: int, seed: int) -> tuple[Floats, Floats, Floats]:
    draw = np.random.Generator(np.random.Philox(seed))
    test = draw.standard_normal((matrix.shape[1], columns), dtype=np.float32)
    basis = np.linalg.qr(matrix @ test).Q
    for _ in range(_ITERATIONS):
        other = np.linalg.qr(matrix.T @ basis).Q
        basis = np.linalg.qr(matrix @ other).Q
    u, s, vt = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vt


def squared_norm(matrix: Floats) -> float:
    """Return the squared Frobenius norm, summed in float64 a few rows at a time."""
    return float(
        sum(
            np.square(matrix[first : first + _BLOCK], dtype=np.float64).sum()
            for first in range(0, len(matrix), _BLOCK)
        )
    )


def squared_error(matrix: Floats, b: Floats, a: Floats) -> float:
    """Return the squared Frobenius norm of `matrix` - `b` @ `a`, a few rows at a time."""
    return float(
        sum(
            squared_norm(matrix[first : first + _BLOCK] - b[first : first + _BLOCK] @ a)
            for first in range(0, len(matrix), _BLOCK)
        )
    )
