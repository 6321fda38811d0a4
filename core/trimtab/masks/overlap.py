"""How much of a task vector lies in the directions of alignment, before and after masks."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.inspection.spectra_scan import directions
from trimtab.kernels.threads import one_thread_each
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack
from trimtab.subspaces.matrices import Held, Matrix, Streamed, is_finite
from trimtab.subspaces.overlap import by_chance, captured, captured_by_chance
from trimtab.subspaces.spectrum import exact_spectrum, top_spectrum

Singles = npt.NDArray[np.float32]
#: random subspaces that show what chance gives
DRAWS = 20
# a matrix of more bytes in float32 is read anew for each pass over it
_HELD = 256 << 20
# up to this smaller side singular vectors are exact: they cost no more than a sketch
_EXACT = 256


@dataclass(frozen=True)
class Inside:
    """Sums over the matrices of a tensor, of the task vector τ and of m ⊙ τ.

    `whole` is ‖τ‖² and `inside` ‖U_kU_kᵀτ‖², with the k leading left singular vectors U_k of the
    alignment vector; `kept_whole` and `kept_inside` the same of m ⊙ τ. `chance` has the share that
    each of `DRAWS` random subspaces of that size holds of τ, as energy.
    """

    whole: float
    inside: float
    kept_whole: float
    kept_inside: float
    chance: tuple[float, ...]


def find_overlap(
    stack: MaskStack,
    vector: TaskVector,
    lineup: Lineup,
    reader: TensorReader,
    control: Control,
    *,
    rank: int = 16,
    seed: int = 0,
) -> dict[str, Inside]:
    """Return for each tensor of matrices what alignment's directions hold of the task vector.

    k is `rank`, but at most an eighth of a matrix's smaller side. Larger matrices' directions are
    found by a randomised sketch; same seed, same bits, whatever the threads. A mask's rescaling is
    left out: within a tensor it changes no share. Tensors that alignment did not change, or with
    entries that are no numbers, are left out.
    """
    rows = {name: shape for name in vector.names if (shape := _stacked(vector.shape(name)))}
    control.stage("Projecting", len(rows))

    def one(name: str) -> Inside | None:
        found = _one(name, rows[name], stack, vector, lineup, reader, control, rank, seed)
        control.advance(1)
        return found

    with (
        one_thread_each(),
        ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="overlap") as pool,
    ):
        futures = {name: pool.submit(one, name) for name in rows}
        try:
            found = {name: future.result() for name, future in futures.items()}
        finally:
            for future in futures.values():
                future.cancel()
    return {name: inside for name, inside in found.items() if inside is not None}


def told(found: Mapping[str, Inside]) -> dict[str, Any]:
    """Return it ready for JSON."""
    return {name: asdict(inside) for name, inside in found.items()}


def _stacked(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (matrices, rows, columns), None for what is no matrix."""
    if len(shape) not in (2, 3) or min(shape) < 1 or min(shape[-2:]) < 2:
        return None
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _one(
    name: str,
    stacked: tuple[int, int, int],
    stack: MaskStack,
    vector: TaskVector,
    lineup: Lineup,
    reader: TensorReader,
    control: Control,
    rank: int,
    seed: int,
) -> Inside | None:
    if not lineup.has_alignment or lineup.base is None:
        return None
    aligned, base = lineup.source(name, lineup.reference), lineup.source(name, lineup.base)
    if aligned is None or base is None or aligned.same_bytes_as(base):
        return None
    count, m, n = stacked
    mask = stack.of(name, vector.shape(name))
    sums, chance = np.zeros(4), np.zeros(DRAWS)
    for number in range(count):
        control.check()
        first = number * m * n

        def alignment(low: int, high: int, first: int = first) -> Singles:
            control.check()
            values = reader.read(aligned, first + low * n, first + high * n)
            values -= reader.read(base, first + low * n, first + high * n)
            return values.reshape(high - low, n)

        def change(low: int, high: int, first: int = first) -> Singles:
            control.check()
            return vector.read(name, first + low * n, first + high * n).reshape(high - low, n)

        def kept(low: int, high: int, first: int = first) -> Singles:
            values = change(low, high, first)
            if isinstance(mask, bool):
                return values if mask else np.zeros_like(values)
            values *= mask.shares(first + low * n, first + high * n).reshape(values.shape)
            return values

        a, tau, masked = (_matrix((m, n), read) for read in (alignment, change, kept))
        if not (is_finite(a) and is_finite(tau)):
            return None
        k = directions(rank, (m, n))
        place = (seed, zlib.crc32(name.encode()), number)
        exact = min(m, n) <= _EXACT
        spectrum = exact_spectrum(a, k) if exact else top_spectrum(a, k, place, 8, 2)
        basis = spectrum.basis[:, :k]
        sums += [_norm2(tau), captured(basis, tau), _norm2(masked), captured(basis, masked)]
        chance += captured_by_chance(by_chance(basis, DRAWS, (*place, 1)), tau)
    whole, inside, kept_whole, kept_inside = sums.tolist()
    return Inside(whole, inside, kept_whole, kept_inside, tuple(chance.tolist()))


def _matrix(shape: tuple[int, int], read: Callable[[int, int], Singles]) -> Matrix:
    m, n = shape
    if 4 * m * n <= _HELD:
        return Held(read(0, m))
    return Streamed(shape, read, max(1, _HELD // (8 * n)))


def _norm2(matrix: Matrix) -> float:
    return sum(float(np.square(rows, dtype=np.float64).sum()) for _, rows in matrix.blocks())
