"""Finds the spectra of a lineup, coarse ones of all tensors first, and keeps what it has found."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.inspection.spectra import (
    COARSE,
    DRAWS,
    EXACT,
    FINE,
    RANK,
    VALUES,
    Floats,
    Spectra,
    spectra_path,
)
from trimtab.kernels.threads import one_thread_each
from trimtab.subspaces.matrices import Held, Matrix, Singles, Streamed, is_finite
from trimtab.subspaces.overlap import (
    by_chance,
    captured,
    captured_by_chance,
    expected_share,
    overlap_sum,
)
from trimtab.subspaces.spectrum import Spectrum, exact_spectrum, top_spectrum

Level = Literal["coarse", "fine", "exact"]
#: what all threads together may hold, in bytes, where it is not said
MEMORY = 2 << 30
_NUMBER: dict[Level, int] = {"coarse": COARSE, "fine": FINE, "exact": EXACT}
_STAGE = {COARSE: "Coarse spectra", FINE: "Fine spectra", EXACT: "Exact spectra"}
# a matrix of more bytes in float32 is read anew for each pass over it
_HELD = 256 << 20
# singular values that a coarse look takes
_COARSE_VALUES = 16
# a direction space larger than this part of the smaller side would hold a good part of anything
_LARGEST_PART = 8
_SECONDS_BETWEEN = 1.0
_KEPT_RESULTS = 50


def directions(rank: int, shape: tuple[int, int]) -> int:
    """Return k for a matrix: `rank`, but at most an eighth of the smaller side, and at least 1."""
    return max(1, min(rank, min(shape) // _LARGEST_PART))


def find_spectra(
    lineup: Lineup,
    control: Control,
    level: Level = "exact",
    *,
    rank: int = RANK,
    seed: int = 0,
    memory: int = MEMORY,
    threads: int | None = None,
) -> Path:
    """Bring the spectra of a lineup to `level` and return where they are kept.

    First all tensors are looked at coarsely, then all at `level`; the file is replaced whole about
    once a second and at the end of each stage, and what it knows already is not computed again.
    Threads share `memory` bytes, as far as the largest matrix lets them. The result does not depend
    on threads, memory or interruptions: same seed, same bits. Raises `JobCancelled`, after keeping
    what is done.
    """
    path = spectra_path(lineup, rank, seed)
    found = Spectra.load(path)
    if found is None or not found.fits(lineup):
        found = Spectra.unknown(
            lineup.names, tuple(m.name for m in lineup.finetuned), lineup.has_alignment, rank, seed
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {row: shape for row in range(len(lineup.names)) if (shape := _stack(lineup, row))}
    _mark_present(found, lineup, shapes)
    keeper = _Keeper(found, path)
    keeper.keep()
    with one_thread_each(), TensorReader() as reader:
        for number in dict.fromkeys((COARSE, _NUMBER[level])):
            rows = [row for row in shapes if found.level[row, found.present[row]].min() < number]
            rows.sort(key=lambda row: _order(lineup, row, shapes[row], number))
            control.stage(_STAGE[number], len(rows), sum(_bytes(lineup, row) for row in rows))
            work = _Worker(lineup, reader, control, number, found)
            each = max((work.needs(shapes[row]) for row in rows), default=1)
            count = max(1, min(threads or os.cpu_count() or 1, memory // each))
            try:
                for row, result in _as_they_come(work, rows, count):
                    found.put(row, result)
                    keeper.keep_sometimes()
                    control.advance(1, _bytes(lineup, row))
            finally:
                keeper.keep()
    _forget_old(path)
    return path


class _Keeper:
    """Saves spectra now and then, taking a small part of the time for it."""

    def __init__(self, spectra: Spectra, path: Path):
        self._spectra = spectra
        self._path = path
        self._next = 0.0

    def keep(self) -> None:
        begun = time.monotonic()
        self._spectra.save(self._path)
        ended = time.monotonic()
        self._next = ended + max(_SECONDS_BETWEEN, 20 * (ended - begun))

    def keep_sometimes(self) -> None:
        if time.monotonic() >= self._next:
            self.keep()


def _forget_old(path: Path) -> None:
    path.touch()
    kept = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[_KEPT_RESULTS:]:
        old.unlink(missing_ok=True)


def _stack(lineup: Lineup, row: int) -> tuple[int, int, int] | None:
    """Return (matrices, rows, columns) of a tensor of floats with two or three axes."""
    index = lineup.reference.checkpoint.index
    shape = index.shapes[row]
    if not index.dtype_of(row).mergeable or len(shape) not in (2, 3) or min(shape[-2:]) < 2:
        return None
    return (shape[0] if len(shape) == 3 else 1, shape[-2], shape[-1]) if min(shape) else None


def _mark_present(found: Spectra, lineup: Lineup, shapes: dict[int, tuple[int, int, int]]) -> None:
    for row, (count, _, _) in shapes.items():
        sources = lineup.sources[lineup.names[row]]
        found.matrices[row] = count
        found.present[row, 0] = lineup.has_alignment and sources[0] is not None
        found.present[row, 1:] = True


def _bytes(lineup: Lineup, row: int) -> int:
    sources = lineup.sources[lineup.names[row]]
    plain = {(s.checkpoint.path, s.row): s for s in sources if s is not None}
    return sum(
        int(s.checkpoint.index.stop[s.row] - s.checkpoint.index.start[s.row])
        for s in plain.values()
    )


def _order(
    lineup: Lineup, row: int, shape: tuple[int, int, int], level: int
) -> tuple[int, int, int]:
    """As they lie on the disk for a coarse look; what is dear comes last for a close one."""
    index = lineup.reference.checkpoint.index
    cost = 0 if level == COARSE else shape[0] * min(shape[1:]) ** 2 * max(shape[1:])
    return cost, int(index.file[row]), int(index.start[row])


def _as_they_come(
    work: Callable[[int], Spectra], rows: Sequence[int], threads: int
) -> Iterator[tuple[int, Spectra]]:
    """Run `work` on a few rows at a time and give the results as they come."""
    with ThreadPoolExecutor(threads, thread_name_prefix="spectra") as pool:
        coming = iter(rows)
        pending: dict[Future[Spectra], int] = {}
        try:
            while True:
                for row in islice(coming, 2 * threads - len(pending)):
                    pending[pool.submit(work, row)] = row
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        finally:
            for future in pending:
                future.cancel()


class _Worker:
    """Finds the spectra of one tensor at one level; called from several threads."""

    def __init__(
        self, lineup: Lineup, reader: TensorReader, control: Control, level: int, spectra: Spectra
    ):
        self._lineup = lineup
        self._reader = reader
        self._control = control
        self._level = level
        self._spectra = spectra
        self._reference = lineup.members.index(lineup.reference)
        self._first = len(lineup.members) - len(lineup.finetuned)
        self._rank = spectra.rank

    def needs(self, stack: tuple[int, int, int]) -> int:
        """Return the bytes that one matrix of a tensor takes while it is worked on."""
        _, m, n = stack
        held = 2 * min(4 * m * n, _HELD)  # with what is taken away from it
        if self._level == EXACT:
            return held + 8 * (5 * min(m, n) ** 2 + 3 * VALUES * (m + n))
        return held + 8 * 5 * (VALUES + DRAWS * self._rank) * (m + n)

    def __call__(self, row: int) -> Spectra:
        stack = _stack(self._lineup, row)
        assert stack is not None
        count = stack[0]
        spectra = self._spectra
        found = Spectra.unknown(
            tuple(str(number) for number in range(count)), spectra.finetuned,
            spectra.has_alignment, self._rank, spectra.seed,
        )  # fmt: skip
        found.present[:] = spectra.present[row]
        found.matrices[:] = 1
        for number in range(count):
            self._one(found, row, number, stack[1:])
        return found.summed(np.zeros(count, dtype=np.int32), (self._lineup.names[row],))

    def _one(self, out: Spectra, row: int, number: int, shape: tuple[int, int]) -> None:
        """Fill row `number` of `out`: one matrix of the tensor."""
        name = self._lineup.names[row]
        sources = self._lineup.sources[name]
        reference = sources[self._reference]
        assert reference is not None
        place = (self._spectra.seed, zlib.crc32(name.encode()), number)
        k = directions(self._rank, shape)
        basis: Floats | None = None
        if out.present[number, 0]:
            base = sources[0]
            # a is the reference minus the base
            a = self._difference(reference, base, number, shape) if base is not None else None
            found = self._spectrum(a, shape, (*place, 0))
            self._note(out, number, 0, found)
            if found is not None:
                basis = found.basis[:, :k]
        for i, source in enumerate(sources[self._first :]):
            tau = None if source is None else self._difference(source, reference, number, shape)
            found = self._spectrum(tau, shape, (*place, i + 1))
            self._note(out, number, i + 1, found)
            if basis is not None and found is not None:
                self._compare(out, number, i, basis, tau, found, k, place)

    def _difference(
        self, one: Source, other: Source, number: int, shape: tuple[int, int]
    ) -> Matrix | None:
        """Return one − other in float32, None where they are the same stored tensor."""
        if one.same_bytes_as(other):
            return None
        m, n = shape
        first = number * m * n

        def read(low: int, high: int) -> Singles:
            self._control.check()
            values = self._reader.read(one, first + low * n, first + high * n)
            with np.errstate(invalid="ignore", over="ignore"):
                values -= self._reader.read(other, first + low * n, first + high * n)
            return values.reshape(high - low, n)

        if 4 * m * n <= _HELD:
            return Held(read(0, m))
        return Streamed(shape, read, max(1, _HELD // (8 * n)))

    def _spectrum(
        self, matrix: Matrix | None, shape: tuple[int, int], seed: tuple[int, ...]
    ) -> Spectrum | None:
        """Return a matrix's spectrum, None where it has entries that are no numbers."""
        self._control.check()
        if matrix is None:
            zeros = np.zeros(min(VALUES, *shape))
            none = np.zeros((shape[0], 0))
            return Spectrum(zeros, zeros, zeros, none, 0.0, 0.0, 0.0, 0.0, True)
        if not is_finite(matrix):
            return None
        wanted = max(VALUES, self._rank)
        k, beyond, power = wanted, 10, 2
        if self._level == COARSE:
            k, beyond, power = max(_COARSE_VALUES, self._rank), 8, 1
        if self._level == EXACT or k + beyond >= min(shape):
            return exact_spectrum(matrix, wanted)
        return top_spectrum(matrix, k, seed, oversampling=beyond, power=power)

    def _note(self, out: Spectra, number: int, v: int, found: Spectrum | None) -> None:
        # a small matrix is known exactly at once; NaN stays what it is at every level
        out.level[number, v] = EXACT if found is None or found.exact else self._level
        if found is None:
            return
        kept = min(VALUES, len(found.values))
        out.values[number, v, :kept] = found.values[:kept]
        out.lower[number, v, :kept] = found.lower[:kept]
        out.upper[number, v, :kept] = found.upper[:kept]
        out.norm2[number, v] = found.norm2
        out.nuclear[number, v] = found.nuclear
        out.log_sum[number, v] = found.log_sum
        out.fourth[number, v] = found.fourth

    def _compare(
        self,
        out: Spectra,
        number: int,
        i: int,
        basis: Floats,
        tau: Matrix | None,
        found: Spectrum,
        k: int,
        place: tuple[int, ...],
    ) -> None:
        """Fill energy and overlap of one task vector, and what chance makes of them."""
        d, own = basis.shape
        top = found.basis[:, :k]
        out.whole[number, i] = found.norm2
        out.inside_expected[number, i] = found.norm2 * own / d
        out.overlap_most[number, i] = min(own, top.shape[1])
        out.overlap_expected[number, i] = own * top.shape[1] / d
        if tau is None or found.norm2 == 0.0:
            for key in ("inside", "inside_variance", "overlap"):
                getattr(out, key)[number, i] = 0.0
            out.inside_permuted[number, i] = out.overlap_permuted[number, i] = 0.0
            return
        chance = expected_share(own, d, found.fourth / found.norm2**2)
        out.inside_variance[number, i] = (chance.deviation * found.norm2) ** 2
        out.inside[number, i] = captured(basis, tau)
        out.overlap[number, i] = overlap_sum(basis, top)
        # the same permutations for every model, so that models can be compared under them
        shuffled = by_chance(basis, DRAWS, (*place, 0xC0FFEE), "permutation")
        out.overlap_permuted[number, i] = [overlap_sum(other, top) for other in shuffled]
        if found.exact or self._level != COARSE:
            out.inside_permuted[number, i] = captured_by_chance(shuffled, tau)
