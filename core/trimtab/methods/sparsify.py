"""Which entries of a task vector survive: the largest, a band, a random choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trimtab.errors import UserError
from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.ranks import rank_passes


class Sparsifier(Protocol):
    """Zeroes entries of task vectors, after the passes it asks for."""

    def passes(self, outline: Outline) -> list[Pass]:
        """Return what must be measured first; the facts come first in `Piece.facts`."""

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Zero what does not survive of one model's task vector, in place."""


def _kept(density: float, numel: int) -> int:
    return max(1, int(density * numel))


@dataclass(frozen=True)
class Everything:
    """Nothing is dropped."""

    def passes(self, outline: Outline) -> list[Pass]:
        """Nothing is measured."""
        return []

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Leave it as it is."""


@dataclass(frozen=True)
class Largest:
    """The k = max(1, ⌊density · n⌋) entries of largest magnitude; none at density 0."""

    density: Sequence[float]

    def _cut_models(self) -> list[int]:
        return [i for i, density in enumerate(self.density) if 0 < density < 1]

    def passes(self, outline: Outline) -> list[Pass]:
        """Two, which find the k-th largest magnitude of each model."""
        wanted = [(i, _kept(self.density[i], outline.numel)) for i in self._cut_models()]
        rows = self._cut_models()
        return rank_passes(None, rows, lambda nonzero: wanted) if wanted else []

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Zero all but the largest."""
        density = self.density[model]
        if density <= 0:
            x.ops.scale(delta, 0.0)
        elif density < 1:
            x.facts[1][self._cut_models().index(model)].keep(x, delta, model)


@dataclass(frozen=True)
class Band:
    """⌊density · n⌋ entries below the ⌊gamma · n⌋ of largest magnitude.

    Where that many are not left, fewer of the largest are dropped.
    """

    density: Sequence[float]
    gamma: Sequence[float]

    def _requests(self, numel: int) -> tuple[list[tuple[int, int]], dict[int, tuple[int, int]]]:
        """Return the cuts to find, and of each model which of them bound its band (-1: none)."""
        wanted: list[tuple[int, int]] = []
        bounds: dict[int, tuple[int, int]] = {}
        for i, (density, gamma) in enumerate(zip(self.density, self.gamma, strict=True)):
            if density >= 1:
                continue
            kept = int(density * numel)
            dropped = min(int(gamma * numel), numel - kept)
            upper = lower = -1
            if kept:
                if dropped:
                    upper = len(wanted)
                    wanted.append((i, dropped))
                lower = len(wanted)
                wanted.append((i, dropped + kept))
            bounds[i] = upper, lower
        return wanted, bounds

    def passes(self, outline: Outline) -> list[Pass]:
        """Two, which find both ends of each model's band."""
        wanted, _ = self._requests(outline.numel)
        rows = list(dict.fromkeys(row for row, _ in wanted))
        return rank_passes(None, rows, lambda nonzero: wanted) if wanted else []

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Zero what is outside of the band."""
        bounds = self._requests(x.numel)[1].get(model)
        if bounds is None:
            return
        upper, lower = bounds
        if lower < 0:
            x.ops.scale(delta, 0.0)
            return
        # the lower end first: once the upper is zero, zeros could no longer be told apart
        x.facts[1][lower].keep(x, delta, (model, "lower"))
        if upper >= 0:
            x.facts[1][upper].drop(x, delta, (model, "upper"))


@dataclass(frozen=True)
class Random:
    """Each entry with probability density; divided by it when `rescale`."""

    density: Sequence[float]
    rescale: bool

    def passes(self, outline: Outline) -> list[Pass]:
        """Nothing is measured."""
        return []

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Drop at random."""
        density = self.density[model]
        if density >= 1:
            return
        if density <= 0:
            x.ops.scale(delta, 0.0)
            return
        x.ops.drop_random(delta, density, x.keys[model], x.start)
        if self.rescale:
            x.ops.scale(delta, 1.0 / density)


@dataclass(frozen=True)
class RandomByRank:
    """Each entry with a probability from density − ε for the smallest of its row to density + ε.

    What is kept is divided by its own probability when `rescale`.
    """

    density: Sequence[float]
    epsilon: Sequence[float]
    rescale: bool

    def passes(self, outline: Outline) -> list[Pass]:
        """Nothing is measured; refuses an ε that leaves the range of probabilities."""
        for density, epsilon in zip(self.density, self.epsilon, strict=True):
            if 0 < density < 1 and not (density - epsilon >= 0 and density + epsilon <= 1):
                raise UserError(
                    "epsilon_too_large",
                    f"ε = {epsilon:g} does not go with density {density:g}.",
                    "density − ε and density + ε are probabilities, from 0 to 1.",
                    "Use a smaller ε.",
                )
        return []

    def apply(self, x: Piece, model: int, delta: Array) -> None:
        """Drop at random, the small ones rather."""
        density, epsilon = self.density[model], self.epsilon[model]
        if density >= 1:
            return
        if density <= 0:
            x.ops.scale(delta, 0.0)
            return
        low, step = density - epsilon, 2 * epsilon / max(x.width - 1, 1)
        x.ops.drop_by_rank(delta, x.width, low, step, x.keys[model], x.start, self.rescale)
