"""Computes everything an inspection shows in one pass over the lineup's bytes."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.inspection.result import RESULT_VERSION, Inspection
from trimtab.paths import cache_dir

#: elements per step: long enough for threads to seldom wait for each other
CHUNK = 1 << 20
#: elements summed in float32 before the sum goes on in float64
BLOCK = 1 << 13
#: elements per unit of work handed to a thread
UNIT = 1 << 22
_KEPT_RESULTS = 100


@dataclass
class _Sums:
    """Partial sums of one unit of work."""

    gram: np.ndarray
    norm2: float
    conflicts: np.ndarray
    zeros: np.ndarray
    non_finite: np.ndarray


@dataclass(frozen=True)
class _Unit:
    row: int
    low: int
    high: int


def cache_path(lineup: Lineup) -> Path:
    """Return where the inspection of this lineup's content is kept."""
    key = hashlib.blake2b(f"{RESULT_VERSION} {lineup.fingerprint}".encode(), digest_size=16)
    return cache_dir() / "inspections" / f"{key.hexdigest()}.npz"


def inspect_cached(
    lineup: Lineup, control: Control, threads: int | None = None
) -> tuple[Path, bool]:
    """Return the path of the lineup's inspection and whether it was in the cache already."""
    path = cache_path(lineup)
    found = Inspection.load(path)
    names = tuple(m.name for m in lineup.finetuned)
    if found is not None and found.names == lineup.names and found.finetuned == names:
        path.touch()
        return path, True
    result = inspect(lineup, control, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save(path)
    kept = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[_KEPT_RESULTS:]:
        old.unlink(missing_ok=True)
    return path, False


def bytes_to_read(lineup: Lineup) -> int:
    """Return how many bytes an inspection of `lineup` reads."""
    return sum(_row_bytes(lineup, row) for row in range(len(lineup.names)))


def _row_bytes(lineup: Lineup, row: int) -> int:
    index = lineup.reference.checkpoint.index
    if not index.dtype_of(row).mergeable:
        return 0
    sources = lineup.sources[lineup.names[row]]
    plain = {(s.checkpoint.path, s.row): s for s in sources if s is not None}
    return sum(
        int(s.checkpoint.index.stop[s.row] - s.checkpoint.index.start[s.row])
        for s in plain.values()
    )


def inspect(lineup: Lineup, control: Control, threads: int | None = None) -> Inspection:
    """Read every tensor of the lineup once and return the sums described in `Inspection`.

    Arithmetic is float32 within a block of 8,192 entries and float64 across blocks; the result
    does not depend on the number of threads.
    """
    m = len(lineup.finetuned)
    index = lineup.reference.checkpoint.index
    n = len(lineup.names)
    gram = np.zeros((n, m + 1, m + 1))
    norm2 = np.zeros(n)
    conflicts = np.zeros((n, m), dtype=np.int64)
    zeros = np.zeros((n, m), dtype=np.int64)
    non_finite = np.zeros((n, m + 2), dtype=np.int64)
    units = list(_units(lineup))
    control.stage("Inspecting", len({unit.row for unit in units}), bytes_to_read(lineup))
    for row in range(n):
        if not index.dtype_of(row).mergeable:
            gram[row] = np.nan
        elif not lineup.has_alignment or lineup.sources[lineup.names[row]][0] is None:
            gram[row, 0, :] = gram[row, :, 0] = np.nan
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TensorReader() as reader:
            work = _worker(lineup, reader, control)
            for unit, sums in _in_order(work, units, threads or os.cpu_count() or 1):
                gram[unit.row] += sums.gram
                norm2[unit.row] += sums.norm2
                conflicts[unit.row] += sums.conflicts
                zeros[unit.row] += sums.zeros
                non_finite[unit.row] += sums.non_finite
    finally:
        torch.set_num_threads(before)
    return Inspection(
        names=lineup.names,
        finetuned=tuple(member.name for member in lineup.finetuned),
        has_alignment=lineup.has_alignment,
        gram=gram,
        norm2=norm2,
        numel=index.numel.copy(),
        conflicts=conflicts,
        zeros=zeros,
        non_finite=non_finite,
    )


def _units(lineup: Lineup) -> Iterator[_Unit]:
    """Cut the reference's tensors, in on-disk order, into units of work."""
    index = lineup.reference.checkpoint.index
    for row in np.lexsort((index.start, index.file)):
        if not index.dtype_of(int(row)).mergeable:
            continue
        numel = int(index.numel[row])
        for low in range(0, numel, UNIT):
            yield _Unit(int(row), low, min(low + UNIT, numel))


def _in_order(
    work: Callable[[_Unit], _Sums], units: Sequence[_Unit], threads: int
) -> Iterator[tuple[_Unit, _Sums]]:
    """Run `work` on a few units at a time and give the results in the order of the units."""
    with ThreadPoolExecutor(threads, thread_name_prefix="inspect") as pool:
        coming = iter(units)
        pending = deque((unit, pool.submit(work, unit)) for unit in islice(coming, 2 * threads))
        try:
            while pending:
                unit, future = pending.popleft()
                result = future.result()
                for following in islice(coming, 1):
                    pending.append((following, pool.submit(work, following)))
                yield unit, result
        finally:
            for _, future in pending:
                future.cancel()


def _worker(lineup: Lineup, reader: TensorReader, control: Control) -> Callable[[_Unit], _Sums]:
    m = len(lineup.finetuned)
    members = lineup.members
    n_first = len(members) - m
    reference_column = members.index(lineup.reference)

    def work(unit: _Unit) -> _Sums:
        name = lineup.names[unit.row]
        sources = lineup.sources[name]
        reference = sources[reference_column]
        assert reference is not None
        base = sources[0] if lineup.has_alignment else None
        finetuned = sources[n_first:]
        sums = _Sums(
            np.zeros((m + 1, m + 1)),
            0.0,
            np.zeros(m, dtype=np.int64),
            np.zeros(m, dtype=np.int64),
            np.zeros(m + 2, dtype=np.int64),
        )
        edges = [*range(unit.low, unit.high, CHUNK), unit.high]
        # rows: a, each tau, and the reference itself
        vectors = torch.empty((m + 2, min(CHUNK, unit.high - unit.low)), dtype=torch.float32)
        signs = torch.empty_like(vectors[:-1])
        for low, high in pairwise(edges):
            control.check()
            _add_chunk(sums, reader, reference, base, finetuned, low, high, vectors)
            _count_signs(sums, vectors[:-1, : high - low], signs[:, : high - low], base is not None)
        numel = int(lineup.reference.checkpoint.index.numel[unit.row])
        size = _row_bytes(lineup, unit.row) * (unit.high - unit.low) // numel
        control.advance(int(unit.high == numel), size)
        return sums

    return work


def _add_chunk(
    sums: _Sums,
    reader: TensorReader,
    reference: Source,
    base: Source | None,
    finetuned: Sequence[Source | None],
    low: int,
    high: int,
    vectors: Tensor,
) -> None:
    size = high - low
    v, own = vectors[:-1, :size], vectors[-1, :size]
    reader.read(reference, low, high, out=own)
    if base is None:
        v[0].zero_()
    else:
        torch.sub(own, reader.read(base, low, high, out=v[0]), out=v[0])
    for tau, source in zip(v[1:], finetuned, strict=True):
        if source is None or source.same_bytes_as(reference):
            tau.zero_()
        else:
            reader.read(source, low, high, out=tau).sub_(own)
    products = _inner_products(vectors[:, :size])
    if not np.isfinite(products).all():
        for column, source in enumerate((base, reference, *finetuned)):
            if source is not None and (column < 2 or not source.same_bytes_as(reference)):
                finite = torch.isfinite(reader.read(source, low, high))
                sums.non_finite[column] += size - int(finite.sum())
        wide = vectors[:, :size].to(torch.float64)  # large finite values may overflow float32
        products = torch.mm(wide, wide.T).numpy()
    gram = products[:-1, :-1]
    if base is None:
        sums.gram[1:, 1:] += gram[1:, 1:]
    else:
        sums.gram += gram
    sums.norm2 += float(products[-1, -1])


def _inner_products(rows: Tensor) -> np.ndarray:
    """Return all inner products of float32 rows, [k, n] -> float64 [k, k]."""
    whole = rows.shape[1] // BLOCK * BLOCK
    rest = rows[:, whole:]
    products = torch.mm(rest, rest.T).to(torch.float64)
    if whole:
        blocks = rows[:, :whole].unflatten(1, (-1, BLOCK)).transpose(0, 1)
        products += torch.bmm(blocks, blocks.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    return products.numpy()


def _count_signs(sums: _Sums, v: Tensor, signs: Tensor, with_alignment: bool) -> None:
    """Count zeros and sign conflicts through products of sign matrices.

    With s in {-1, 0, 1}, <s_i, s_i> counts the entries that are not zero, and
    <s_a^2, s_i^2> - <s_a, s_i> is twice the number of opposite signs. A chunk is short enough
    for these float32 sums to be exact.
    """
    torch.sign(v, out=signs)
    if sums.non_finite.any():
        sums.zeros -= v[1:].isnan().sum(dim=1).numpy()  # NaN is no zero and has no sign
        signs.nan_to_num_(nan=0.0)
    agreement = torch.mm(signs, signs.T)
    sums.zeros += v.shape[1] - agreement.diagonal()[1:].to(torch.int64).numpy()
    if with_alignment:
        nonzero = signs.square_()
        both = torch.mv(nonzero[1:], nonzero[0])
        sums.conflicts += ((both - agreement[1:, 0]) / 2).to(torch.int64).numpy()
