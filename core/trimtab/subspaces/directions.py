"""The leading directions of a Linear's outputs, of few by decomposing, of many by iterating."""

from __future__ import annotations

import numpy as np

from trimtab.activations.second_moments import Moments
from trimtab.subspaces.matrices import Floats
from trimtab.subspaces.subspace import leading

#: outputs up to here are decomposed whole; of more the leading directions are iterated for
EXACT = 1024
_OVERSAMPLING = 16
_ROUNDS = 8
_EPS = float(np.finfo(np.float64).eps)


def directions(
    moments: Moments, k: int, *, centre: bool = False, seed: int | tuple[int, ...] = 0
) -> Floats:
    """Return the k leading directions of the outputs, float64 [out, r], r ≤ k; same seed same bits.

    Up to `EXACT` outputs by a whole decomposition. For more by subspace iteration (Halko,
    Martinsson and Tropp 2011, algorithm 4.4, with 8 rounds and 16 directions to spare): what such
    a basis holds is measured, so that the energies told are true of it, if not the largest there
    are. Directions of energy zero are left out.
    """
    d = moments.outputs
    if d <= EXACT:
        gram = moments.times(np.eye(d), centre=centre)
        return leading(gram, k)
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    width = min(k + _OVERSAMPLING, d)
    basis = np.linalg.qr(draw.standard_normal((d, width))).Q
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(moments.times(basis, centre=centre)).Q
    small = moments.inside(basis, centre=centre)
    values, turn = np.linalg.eigh((small + small.T) / 2)
    values, turn = values[::-1], turn[:, ::-1]
    rank = int(np.count_nonzero(values[:k] > d * _EPS * max(float(values[0]), 0.0)))
    found: Floats = basis @ turn[:, : min(k, rank)]
    return found
