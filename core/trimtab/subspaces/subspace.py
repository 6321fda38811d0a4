"""A subspace of a weight's outputs, and the operator that its publication writes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.subspaces.matrices import Floats

Array = npt.NDArray[Any]
_EPS = float(np.finfo(np.float64).eps)


class Subspace(Protocol):
    """What every definition gives for one weight [out, in].

    `basis` float64 [out, k] has orthonormal columns that span what the operator reaches: overlaps
    and energies are measured with it. `apply` is the operator itself. Where `is_projector` is
    false the two differ, and applying twice is not applying once.
    """

    @property
    def basis(self) -> Floats:
        """Orthonormal columns, float64 [out, k]."""

    @property
    def is_projector(self) -> bool:
        """Whether the operator is the orthogonal projector on the span of `basis`."""

    def apply(self, matrix: Array) -> Floats:
        """Return the operator times `matrix` [out, n], float64 [out, n]."""


@dataclass(frozen=True)
class Projector:
    """The orthogonal projector UUᵀ on the span of `basis` U."""

    basis: Floats
    is_projector: bool = True

    def apply(self, matrix: Array) -> Floats:
        """Return U(Uᵀ matrix)."""
        inside: Floats = self.basis @ (self.basis.T @ matrix.astype(np.float64))
        return inside


@dataclass(frozen=True)
class ScaledOuter:
    """The operator VVᵀ/‖V‖_F: symmetric, but it scales each direction by σ²/‖V‖_F."""

    vectors: Floats
    basis: Floats
    is_projector: bool = False

    def apply(self, matrix: Array) -> Floats:
        """Return V(Vᵀ matrix)/‖V‖_F, zero for V = 0."""
        length = float(np.linalg.norm(self.vectors))
        if length == 0.0:
            return np.zeros(matrix.shape)
        inside: Floats = self.vectors @ (self.vectors.T @ matrix.astype(np.float64)) / length
        return inside


@dataclass(frozen=True)
class Product:
    """The operator (I − AAᵀ)BBᵀ: a projector only where the two commute."""

    away: Floats
    onto: Floats
    basis: Floats
    is_projector: bool = False

    def apply(self, matrix: Array) -> Floats:
        """Return (I − AAᵀ)BBᵀ matrix."""
        inside: Floats = self.onto @ (self.onto.T @ matrix.astype(np.float64))
        rest: Floats = inside - self.away @ (self.away.T @ inside)
        return rest


def leading(gram: Floats, k: int) -> Floats:
    """Return the k leading eigenvectors of a Gram matrix [d, d], float64 [d, r], r ≤ k.

    Those of eigenvalues that are zero within rounding are left out: they are arbitrary.
    """
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.count_nonzero(values[:k] > len(values) * _EPS * max(values[0], 0.0)))
    return vectors[:, : min(k, rank)]


def span(vectors: Floats) -> Floats:
    """Return an orthonormal basis of the columns' span, float64 [d, r], r their rank."""
    if not vectors.shape[1]:
        return vectors
    u, s, _ = np.linalg.svd(vectors, full_matrices=False)
    rank = np.count_nonzero(s > max(vectors.shape) * _EPS * s[0]) if s[0] > 0 else 0
    return u[:, :rank]
