"""Second moments of a Linear's outputs, without ever forming what is larger than its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over tokens at one Linear y = Wx + b, in float64.

    `gram` [n, n] is Σ z zᵀ and `total` [n] is Σ z over `count` tokens, where z are the inputs x if
    there is a `weight` [out, in] (with a `bias` [out], if any), else the outputs y themselves.
    """

    gram: Floats
    total: Floats
    count: int
    weight: Floats | None = None
    bias: Floats | None = None

    def __add__(self, other: Moments) -> Moments:
        """Add up what was seen of the same Linear on other tokens."""
        gram, total = self.gram + other.gram, self.total + other.total
        return replace(self, gram=gram, total=total, count=self.count + other.count)

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        return len(self.total) if self.weight is None else len(self.weight)

    def output_sum(self) -> Floats:
        """Return Σ y, float64 [out]."""
        if self.weight is None:
            return self.total
        found: Floats = self.weight @ self.total
        return found if self.bias is None else found + self.count * self.bias

    def times(self, right: Floats, *, centre: bool = False) -> Floats:
        """Return (Σ y yᵀ) right, float64 [out, l]; with `centre` of y less its mean."""
        if self.weight is None:
            found: Floats = self.gram @ right
        else:
            found = self.weight @ (self.gram @ (self.weight.T @ right))
            if self.bias is not None:
                plain = self.weight @ self.total
                found += np.outer(plain, self.bias @ right)
                found += np.outer(self.bias, (plain + self.count * self.bias) @ right)
        if centre and self.count:
            total = self.output_sum()
            found = found - np.outer(total, total @ right) / self.count
        return found

    def energy(self, *, centre: bool = False) -> float:
        """Return Σ |y|²; with `centre` of y less its mean."""
        if self.weight is None:
            found = float(np.trace(self.gram))
        else:
            found = float(((self.weight @ self.gram) * self.weight).sum())
            if self.bias is not None:
                plain = self.weight @ self.total
                found += float(self.bias @ (2.0 * plain + self.count * self.bias))
        if centre and self.count:
            total = self.output_sum()
            found -= float(total @ total) / self.count
        return max(found, 0.0)

    def inside(self, basis: Floats, *, centre: bool = False) -> Floats:
        """Return Uᵀ(Σ y yᵀ)U of an orthonormal basis U [out, k], float64 [k, k]."""
        found: Floats = basis.T @ self.times(basis, centre=centre)
        return found

    def of_outputs(self) -> Moments:
        """Return the same as sums of the outputs: [out, out]."""
        gram = self.times(np.eye(self.outputs))
        return Moments((gram + gram.T) / 2, self.output_sum(), self.count)


def summed(parts: list[Moments]) -> Moments:
    """Add up what was seen of one Linear on several parts of the tokens, at least one."""
    return reduce(add, parts)
