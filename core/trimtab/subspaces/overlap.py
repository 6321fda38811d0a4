"""How far two subspaces overlap and what a matrix has in one, beside what chance would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trimtab.subspaces.matrices import Floats, Held, Matrix, transposed_times

Chance = Literal["rotation", "permutation", "signs"]


def principal_angles(u: Floats, h: Floats) -> Floats:
    """Return the angles between two subspaces in radians, float64 [min(k_u, k_h)], ascending.

    `u` [d, k_u] and `h` [d, k_h] have orthonormal columns. cos θ are the singular values of uᵀh;
    small angles come from sin θ, whose rounding does less harm there (Björck and Golub 1973).
    """
    if u.shape[1] < h.shape[1]:
        u, h = h, u
    products = u.T @ h
    cosines = np.linalg.svd(products, compute_uv=False)
    sines = np.linalg.svd(h - u @ products, compute_uv=False)[::-1]
    small = cosines > np.sqrt(0.5)
    angles = np.arccos(np.clip(cosines, 0.0, 1.0))
    angles[small] = np.arcsin(np.clip(sines, 0.0, 1.0))[small]
    return np.sort(angles)


def overlap_sum(u: Floats, h: Floats) -> float:
    """Return ‖uᵀh‖²_F = Σ cos²θ of two orthonormal bases, [d, k_u] and [d, k_h]."""
    products = u.T @ h
    return float((products * products).sum())


def mso(u: Floats, h: Floats) -> float:
    """Return the mode subspace overlap ‖uᵀh‖²_F / min(k_u, k_h), 0 to 1 (arXiv 2505.14185).

    nan where one of them is empty.
    """
    least = min(u.shape[1], h.shape[1])
    return overlap_sum(u, h) / least if least else float("nan")


def expected_mso(k_u: int, k_h: int, d: int) -> float:
    """Return what `mso` is on average where one of the two is drawn at random: max(k_u, k_h)/d."""
    return max(k_u, k_h) / d


def captured(basis: Floats, matrix: Matrix | npt.NDArray[Any]) -> float:
    """Return ‖UUᵀM‖²_F, the squared length that M [d, n] has in the span of U [d, k]."""
    held = Held(matrix) if isinstance(matrix, np.ndarray) else matrix
    inside = transposed_times(held, basis)
    return float((inside * inside).sum())


def energy_share(basis: Floats, matrix: npt.NDArray[Any]) -> float:
    """Return ‖UUᵀM‖²_F / ‖M‖²_F, 0 to 1; nan for a zero matrix."""
    whole = float(np.square(matrix, dtype=np.float64).sum())
    return captured(basis, matrix) / whole if whole > 0 else float("nan")


@dataclass(frozen=True)
class Expectation:
    """Mean and standard deviation of an energy share under chance, exactly."""

    mean: float
    deviation: float


def expected_share(k: int, d: int, participation: float) -> Expectation:
    """Return what a random subspace of k out of d dimensions holds of a matrix M [d, n].

    The mean is k/d whatever M is. With P the random projector (Haar measure) and λ the eigenvalues
    of MMᵀ over their sum, Var tr(P MMᵀ)/tr MMᵀ = 2k(d−k)/(d²(d+2)) · (d Σλ² − 1)/(d−1): the
    diagonal of P has the moments of Beta(k/2, (d−k)/2) and a constant sum. `participation` is
    Σλ² = Σσ⁴ / (Σσ²)², between 1/d and 1.
    """
    if d < 2:
        return Expectation(k / d, 0.0)
    spread = max(d * participation - 1.0, 0.0) / (d - 1)
    return Expectation(k / d, float(np.sqrt(2.0 * k * (d - k) / (d * d * (d + 2)) * spread)))


def random_basis(d: int, k: int, draw: np.random.Generator) -> Floats:
    """Return an orthonormal basis of a random subspace (Haar measure), float64 [d, k]."""
    return np.linalg.qr(draw.standard_normal((d, k))).Q


def by_chance(
    basis: Floats, draws: int, seed: int | tuple[int, ...], chance: Chance = "rotation"
) -> list[Floats]:
    """Return what the subspace might as well have been: `draws` bases, each float64 [d, k].

    "rotation" knows no coordinates: any subspace of that size. "permutation" deals the output
    coordinates out anew. "signs" turns the signs of coordinates: what is left of an overlap then
    comes from a few large coordinates that both have, not from directions. Same seed, same bits.
    """
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    d, k = basis.shape
    found = []
    for _ in range(draws):
        if chance == "rotation":
            found.append(random_basis(d, k, draw))
        elif chance == "permutation":
            found.append(basis[draw.permutation(d)])
        else:
            found.append(basis * draw.choice(np.array([-1.0, 1.0]), d)[:, None])
    return found


def captured_by_chance(bases: list[Floats], matrix: Matrix) -> Floats:
    """Return `captured` of each basis, float64 [draws], in one pass over the matrix."""
    if not bases or not bases[0].shape[1]:
        return np.zeros(len(bases))
    inside = transposed_times(matrix, np.concatenate(bases, axis=1))
    each: Floats = (inside * inside).sum(axis=0).reshape(len(bases), -1).sum(axis=1)
    return each
