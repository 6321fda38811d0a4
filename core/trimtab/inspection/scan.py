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

from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.inspection.result import RESULT_VERSION, Inspection
from trimtab.inspection.sums import Measure, Rows, Sums, make_measure
from trimtab.kernels.rounding import compiled_conversion, plain_conversion
from trimtab.kernels.threads import one_thread_each
from trimtab.kernels.whole import default_backend
from trimtab.paths import cache_dir

#: elements read of each model at a time, so few that they lie in the processor's cache when they
#: are computed on; whole pieces of `kernels.whole.MEASURED`
CHUNK = 1 << 18
#: elements per unit of work handed to a thread; sums are over units as a merge cuts them
UNIT = 1 << 22
_KEPT_RESULTS = 100


@dataclass(frozen=True)
class _Unit:
    row: int
    low: int
    high: int


def cache_path(lineup: Lineup) -> Path:
    """Return where the inspection of this lineup's content is kept."""
    # the last bits of its sums are those of the backend
    text = f"{RESULT_VERSION} {default_backend()} {UNIT} {lineup.fingerprint}"
    key = hashlib.blake2b(text.encode(), digest_size=16)
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


def inspect(
    lineup: Lineup, control: Control, threads: int | None = None, backend: str | None = None
) -> Inspection:
    """Read every tensor of the lineup once and return the sums described in `Inspection`.

    Differences are float32 and sums float64. The result does not depend on the number of threads;
    its inner products are the bits of a merge on the same backend, "numba" or "torch".
    """
    backend = backend or default_backend()
    index = lineup.reference.checkpoint.index
    n, m = len(lineup.names), len(lineup.finetuned)
    products = np.zeros((n, m + 2, m + 2))
    zeros = np.zeros((n, m), dtype=np.int64)
    conflicts = np.zeros_like(zeros)
    non_finite = np.zeros((n, m + 2), dtype=np.int64)
    units = list(_units(lineup))
    control.stage("Inspecting", len({unit.row for unit in units}), bytes_to_read(lineup))
    measure = make_measure(backend)
    conversion = compiled_conversion() if backend == "numba" else plain_conversion()
    with one_thread_each(), TensorReader(widen=conversion.widen) as reader:
        work = _Worker(lineup, reader, measure, control)
        for unit, sums in _in_order(work, units, threads or os.cpu_count() or 1):
            products[unit.row] += sums.gram
            zeros[unit.row] += sums.zeros
            conflicts[unit.row] += sums.conflicts
            non_finite[unit.row] += sums.non_finite
    products += np.triu(products, 1).swapaxes(1, 2)
    for row, name in enumerate(lineup.names):
        if not lineup.has_alignment or lineup.sources[name][0] is None:
            products[row, 1, :] = products[row, :, 1] = np.nan
        if not index.dtype_of(row).mergeable:
            products[row, :, 1:] = np.nan
    return Inspection(
        names=lineup.names,
        finetuned=tuple(member.name for member in lineup.finetuned),
        has_alignment=lineup.has_alignment,
        gram=products[:, 1:, 1:].copy(),
        ref_dots=products[:, 0, 1:].copy(),
        norm2=products[:, 0, 0].copy(),
        numel=index.numel.copy(),
        conflicts=conflicts,
        zeros=zeros,
        # as members come: base, reference, fine-tuned models
        non_finite=non_finite[:, [1, 0, *range(2, m + 2)]],
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
    work: Callable[[_Unit], Sums], units: Sequence[_Unit], threads: int
) -> Iterator[tuple[_Unit, Sums]]:
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


class _Worker:
    """Reads and measures units; called from several threads."""

    def __init__(self, lineup: Lineup, reader: TensorReader, measure: Measure, control: Control):
        self._lineup = lineup
        self._reader = reader
        self._measure = measure
        self._control = control
        self._reference = lineup.members.index(lineup.reference)
        self._first = len(lineup.members) - len(lineup.finetuned)

    def _sources(self, row: int) -> list[Source | None]:
        """Return reference, base and fine-tuned models' sources, None where a vector is zero."""
        sources = self._lineup.sources[self._lineup.names[row]]
        reference = sources[self._reference]
        assert reference is not None
        base = sources[0] if self._lineup.has_alignment else None
        finetuned = [
            None if source is None or source.same_bytes_as(reference) else source
            for source in sources[self._first :]
        ]
        return [reference, base, *finetuned]

    def __call__(self, unit: _Unit) -> Sums:
        sources = self._sources(unit.row)
        present = np.array([source is not None for source in sources])
        stored = self._measure.takes_stored and all(map(_is_plain_bf16, filter(None, sources)))
        sums = Sums.of(len(sources) - 2)
        size = min(CHUNK, unit.high - unit.low)
        rows: Rows = np.empty((len(sources), size), dtype=np.uint16 if stored else np.float32)
        for given in filter(None, sources):
            self._reader.will_read(given.checkpoint, given.row, unit.low, unit.high)
        for low, high in pairwise([*range(unit.low, unit.high, CHUNK), unit.high]):
            self._control.check()
            for out, source in zip(rows, sources, strict=True):
                if source is None:
                    continue
                if stored:
                    raw = out[: high - low].view(np.uint8)
                    self._reader.read_raw(source.checkpoint, source.row, low, high, raw)
                else:
                    self._reader.read(source, low, high, out[: high - low])
            self._measure(sums, rows, high - low, present)
        numel = int(self._lineup.reference.checkpoint.index.numel[unit.row])
        n_bytes = _row_bytes(self._lineup, unit.row) * (unit.high - unit.low) // numel
        self._control.advance(int(unit.high == numel), n_bytes)
        return sums


def _is_plain_bf16(source: Source) -> bool:
    plain = source.change is None and source.rows is None
    return plain and source.checkpoint.index.dtype_of(source.row).code == "BF16"
