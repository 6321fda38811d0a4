"""How much of what a change adds to the outputs of a model a mask takes away, on given inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.activations.covariance import Covariances
from trimtab.activations.norms import ActNorms, Mode
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.builders import STRIDE
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import TensorMask

Wide = npt.NDArray[np.float64]
#: with Σ x xᵀ, or with its diagonal alone, as if a Linear's inputs were uncorrelated
Kind = Literal["exact", "diagonal"]


class Inputs(Protocol):
    """What goes into each Linear on a calibration set, up to a factor of its own for each."""

    kind: Kind
    transposed: frozenset[str]

    def of(self, name: str) -> Wide | None:
        """Return Σ x xᵀ, float64 [in, in], or its diagonal [in]; None for what is no Linear."""


class NormInputs:
    """The diagonal alone: squares of input strengths, taken by `mode`."""

    kind: Kind = "diagonal"

    def __init__(self, norms: ActNorms, mode: Mode):
        self.transposed = norms.transposed
        self._squares = {
            name: norms.norm(name, mode).astype(np.float64) ** 2 for name in norms.names
        }

    def of(self, name: str) -> Wide | None:
        """Return the squares, float64 [in]."""
        return self._squares.get(name)


class MomentInputs:
    """Σ x xᵀ as it lies in a file, read one Linear at a time."""

    kind: Kind = "exact"

    def __init__(self, found: Covariances, transposed: frozenset[str], reader: TensorReader):
        self._found, self._reader = found, reader
        self._names = frozenset(found.names)
        self.transposed = transposed

    def of(self, name: str) -> Wide | None:
        """Return Σ x xᵀ, float64 [in, in]."""
        if name not in self._names:
            return None
        return self._found.read(self._reader, name).astype(np.float64)


@dataclass(frozen=True)
class OutputEnergy:
    """Energies of what a tensor of the task vector adds to its outputs, over all inputs.

    `total` is ‖X τᵀ‖², `removed` ‖X ((1 − m) ⊙ τ)ᵀ‖². `squares` is Σ_ij τ_ij² Σ x_j², which
    `total` would be if inputs were uncorrelated.
    """

    total: float = 0.0
    removed: float = 0.0
    squares: float = 0.0

    def by_chance(self, share: float) -> float:
        """Return what is expected to be removed by taking each entry with probability `share`.

        E ‖X (b ⊙ τ)ᵀ‖² = p² ‖X τᵀ‖² + p (1 − p) Σ_ij τ_ij² Σ x_j² of independent b with mean p:
        what is removed at random is correlated with itself alone.
        """
        return share * share * self.total + share * (1 - share) * self.squares


def output_energy(
    name: str, vector: TaskVector, mask: TensorMask | bool, inputs: Inputs, control: Control
) -> OutputEnergy:
    """Return the output energies of one tensor, in float64; zeros for what is no Linear.

    With moments C = Σ x xᵀ, ‖X Dᵀ‖² = tr(D C Dᵀ), D of rows [out, in], a few rows at a time; a
    tensor that is stored [in, out] is read whole. Raises `UserError` with `inputs_do_not_fit`.
    """
    found, shape = inputs.of(name), vector.shape(name)
    if found is None or len(shape) != 2:
        return OutputEnergy()
    turned = name in inputs.transposed
    width = shape[0] if turned else shape[1]
    if found.shape[0] != width:
        raise UserError(
            "inputs_do_not_fit",
            f"The strengths of the inputs do not fit {name}.",
            f"There are {found.shape[0]}, and it has {width} inputs.",
            "Compute them anew for these models.",
        )
    squares = found if found.ndim == 1 else found.diagonal()
    total = removed = alone = 0.0
    for change, away in _rows(name, vector, mask, turned):
        control.check()
        alone += float((change * change @ squares).sum())
        if found.ndim == 1:
            removed += float(((change * away) ** 2 @ squares).sum())
            continue
        total += float(((change @ found) * change).sum())
        if not isinstance(away, np.ndarray):
            continue
        change *= away
        removed += float(((change @ found) * change).sum())
    if found.ndim == 1:
        total = alone
    elif isinstance(mask, bool):
        removed = 0.0 if mask else total
    return OutputEnergy(total, removed, alone)


def _rows(
    name: str, vector: TaskVector, mask: TensorMask | bool, turned: bool
) -> Iterator[tuple[Wide, Wide | float]]:
    """Yield rows [n, in] of the change, and of what is removed of each entry, or of all."""
    rows, columns = vector.shape(name)
    # whole bytes of packed bits, where it is cut at all
    step = rows if turned else max(STRIDE // max(columns, 1) // 8 * 8, 8)
    for first, last in pairwise([*range(0, rows, step), rows]):
        low, high = first * columns, last * columns
        change = vector.read(name, low, high).astype(np.float64).reshape(last - first, columns)
        away: Wide | float = float(not mask) if isinstance(mask, bool) else 0.0
        if isinstance(mask, TensorMask):
            away = 1 - mask.shares(low, high).astype(np.float64).reshape(change.shape)
            away = away.T if turned else away
        yield change.T.copy() if turned else change, away
