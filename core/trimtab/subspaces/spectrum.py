"""Singular values of a matrix: exact by its Gram matrix, or the largest by a random sketch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.subspaces.matrices import (
    Floats,
    Matrix,
    gram,
    squared_norm,
    times,
    transposed_times,
)

#: probability that a sketch's stated bounds do not hold, per matrix
FAILURE = 1e-6

_EPS64 = float(np.finfo(np.float64).eps)
# what float32 products may be off by, in parts of the matrix's Frobenius norm
_SINGLE_ERROR = 2e-6
# start vectors and power of Dixon's bound on what a sketch has left over
_STARTS = 8
_POWER = 5


@dataclass(frozen=True)
class Spectrum:
    """The largest singular values of a matrix [m, n], how sure they are, and where they lie.

    - `values` float64 [k], descending; the true ones lie in [`lower`, `upper`], float64 [k]: for
      certain up to rounding where `exact`, else with probability 1 − `FAILURE`
    - `basis` float64 [m, r], r ≤ k: orthonormal left singular vectors of values that are not zero
    - `norm2`: ‖M‖²_F = Σσ², summed in float64
    - `nuclear`, `log_sum`, `fourth`: Σσ, Σσ ln σ and Σσ⁴ over all singular values; nan where only
      the largest are known
    """

    values: Floats
    lower: Floats
    upper: Floats
    basis: Floats
    norm2: float
    nuclear: float
    log_sum: float
    fourth: float
    exact: bool

    @property
    def rank(self) -> int:
        """How many left singular vectors there are."""
        return int(self.basis.shape[1])


def stable_rank(norm2: float, largest: float) -> float:
    """Return ‖M‖²_F / σ₁², nan for a zero matrix (Rudelson and Vershynin 2007)."""
    return norm2 / largest**2 if largest > 0 else float("nan")


def effective_rank(nuclear: float, log_sum: float) -> float:
    """Return exp H(p) with p = σ/Σσ, of `nuclear` = Σσ and `log_sum` = Σσ ln σ.

    Roy and Vetterli 2007, definition 1. nan for a zero matrix and where the sums are not known.
    """
    return float(np.exp(np.log(nuclear) - log_sum / nuclear)) if nuclear > 0 else float("nan")


def exact_spectrum(matrix: Matrix, k: int) -> Spectrum:
    """Return all that `Spectrum` knows, by the eigenvalues of the smaller Gram matrix.

    Memory: four float64 arrays [d, d] with d = min(m, n). Singular values below about 1e-8 σ₁ are
    lost in rounding; `lower` and `upper` say so, and those below the numerical rank count as zero.
    """
    m, n = matrix.shape
    products = gram(matrix)
    norm2 = float(np.trace(products))
    squares, vectors = np.linalg.eigh(products)
    squares, vectors = np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
    rounding = 4.0 * np.sqrt(max(m, n)) * _EPS64 * norm2
    squares = np.where(squares > rounding, squares, 0.0)
    values = np.sqrt(squares)
    k = min(k, len(values))
    rank = int(np.count_nonzero(values[:k]))
    basis = vectors[:, :rank]
    if n <= m and rank:
        basis = np.linalg.qr(_times_exactly(matrix, basis / values[:rank])).Q
    some = values[values > 0]
    return Spectrum(
        values=values[:k],
        lower=np.sqrt(np.maximum(squares[:k] - rounding, 0.0)),
        upper=np.sqrt(squares[:k] + rounding),
        basis=basis if rank else np.zeros((m, 0)),
        norm2=norm2,
        nuclear=float(some.sum()),
        log_sum=float((some * np.log(some)).sum()),
        fourth=float((squares * squares).sum()),
        exact=True,
    )


def _times_exactly(matrix: Matrix, right: Floats) -> Floats:
    out = np.empty((matrix.shape[0], right.shape[1]))
    for low, rows in matrix.blocks():
        out[low : low + len(rows)] = rows.astype(np.float64) @ right
    return out


def top_spectrum(
    matrix: Matrix, k: int, seed: int | tuple[int, ...], oversampling: int = 10, power: int = 2
) -> Spectrum:
    """Return the k largest singular values by a randomised sketch, with bounds.

    Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1, in float32 products: with orthonormal
    Q [m, k + oversampling] and B = QᵀM, the values are those of B. What is left, R = M − QB, is
    orthogonal to it: MᵀM = BᵀB + RᵀR. So σᵢ(B) ≤ σᵢ(M), σᵢ(M)² ≤ σᵢ(B)² + ‖R‖², and, as the
    excesses add up to at most ‖R‖²_F and values descend, iσᵢ(M)² ≤ Σ_{j≤i} σⱼ(B)² + ‖R‖²_F.
    ‖R‖_F is known; ‖R‖ is bounded by `residual_bound`. Same seed, same bits.
    """
    m, n = matrix.shape
    columns = k + oversampling
    if columns >= min(m, n):
        return exact_spectrum(matrix, k)
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    norm2 = squared_norm(matrix)
    if norm2 == 0.0:
        nothing = np.zeros(k)
        return Spectrum(nothing, nothing, nothing, np.zeros((m, 0)), 0.0, 0.0, 0.0, 0.0, True)
    basis = np.linalg.qr(times(matrix, draw.standard_normal((n, columns)))).Q
    for _ in range(power):
        other = np.linalg.qr(transposed_times(matrix, basis)).Q
        basis = np.linalg.qr(times(matrix, other)).Q
    sketch = transposed_times(matrix, basis)
    turn, values, _ = np.linalg.svd(sketch.T, full_matrices=False)
    squares = values * values
    slack = _SINGLE_ERROR * np.sqrt(norm2)
    left = max(norm2 - float(squares.sum()), 0.0)
    most = min(left, residual_bound(matrix, basis, draw))
    order = np.arange(1, k + 1)
    upper2 = np.minimum(squares[:k] + most, (np.cumsum(squares[:k]) + left) / order)
    rank = int(np.count_nonzero(values[:k] > slack))
    return Spectrum(
        values=values[:k],
        lower=np.maximum(values[:k] - slack, 0.0),
        upper=np.sqrt(upper2) + slack,
        basis=(basis @ turn[:, :k])[:, :rank],
        norm2=norm2,
        nuclear=float("nan"),
        log_sum=float("nan"),
        fourth=float("nan"),
        exact=False,
    )


def residual_bound(matrix: Matrix, basis: Floats, draw: np.random.Generator) -> float:
    """Return what ‖R‖² of R = (I − QQᵀ)M exceeds with probability at most `FAILURE`.

    For a random unit vector x in n dimensions and A = RᵀR, λ₁(A)^q > θ xᵀA^q x has a probability
    of at most 0.8 √(n/θ) (Dixon 1983, theorem 1); of several x the largest is taken. `basis` is
    Q [m, l].
    """
    n = matrix.shape[1]
    x = draw.standard_normal((n, _STARTS))
    x /= np.linalg.norm(x, axis=0)
    # log ‖·‖ is kept apart: powers of small numbers would vanish
    logs = np.zeros(_STARTS)
    for step in range(_POWER):
        if step % 2 == 0:
            x = times(matrix, x)
            x -= basis @ (basis.T @ x)
        else:
            x = transposed_times(matrix, x - basis @ (basis.T @ x))
        lengths = np.linalg.norm(x, axis=0)
        if not lengths.all():
            return 0.0
        x /= lengths
        logs += np.log(lengths)
    theta = n * (0.8 / FAILURE ** (1 / _STARTS)) ** 2
    return float(np.exp((np.log(theta) + 2.0 * logs.max()) / _POWER))
