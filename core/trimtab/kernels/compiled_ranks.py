"""Counting by magnitude and keeping what is above a cut, compiled by numba."""

from __future__ import annotations

import numpy as np

from trimtab.kernels.compiled import BLOCK, MAGNITUDE, bits_of, loop, single_of


@loop
def _bin(bits):
    rest = np.uint32((bits & np.uint32(0x7FFF)) != np.uint32(0))
    return ((bits >> np.uint32(15)) << np.uint32(1)) | rest


@loop
def _bins(values, out):
    for i in range(out.size):
        out[i] = _bin(bits_of(values[i]) & MAGNITUDE)


@loop
def _bins_of_change(reference, model, out):
    for i in range(out.size):
        change = single_of(model[i]) - single_of(reference[i])
        out[i] = _bin(bits_of(change) & MAGNITUDE)


@loop
def _not_zero(bins, found):
    """List the bins but the first; every one is written and only the place moves."""
    count = 0
    for i in range(bins.size):
        found[count] = bins[i]
        count += np.int64(bins[i] != np.uint32(0))
    return count


@loop
def _tally(bins, found, counts):
    """Count bins, uint32 [n]; `found` is room for n + 1.

    Half of a fine-tuned model's changes may be zero, and one counter would wait for itself.
    """
    count = _not_zero(bins, found)
    for i in range(count):
        counts[found[i]] += 1
    counts[0] += bins.size - count


@loop
def count_high(values, counts):
    """Count |values| by their upper 16 bits of 31, and apart where the lower are all zero.

    Bin 2 * upper has those whose lower bits are zero, bin 2 * upper + 1 the others; ints [131072].
    """
    bins = np.empty(BLOCK, dtype=np.uint32)
    found = np.empty(BLOCK + 1, dtype=np.uint32)
    for low in range(0, values.size, BLOCK):
        part = values[low : min(low + BLOCK, values.size)]
        _bins(part, bins[: part.size])
        _tally(bins[: part.size], found, counts)


@loop
def count_change(reference, model, counts):
    """`count_high` of model - reference, each float32 [n] or uint16 [n], the bits of bfloat16."""
    bins = np.empty(BLOCK, dtype=np.uint32)
    found = np.empty(BLOCK + 1, dtype=np.uint32)
    for low in range(0, model.size, BLOCK):
        high = min(low + BLOCK, model.size)
        _bins_of_change(reference[low:high], model[low:high], bins[: high - low])
        _tally(bins[: high - low], found, counts)


@loop
def _matching(values, high, found):
    """List the lower 15 bits of the |values| whose upper bits are `high`; returns how many.

    Every value is written and only the place moves: a branch could not be foreseen.
    """
    count = 0
    for i in range(values.size):
        bits = bits_of(values[i]) & MAGNITUDE
        found[count] = np.uint16(bits & np.uint32(0x7FFF))
        count += np.int64(bits >> np.uint32(15) == high)
    return count


@loop
def count_low(values, high, counts):
    """Add the lower 15 bits of the |values| whose upper bits are `high` to int64 [32768]."""
    found = np.empty(BLOCK + 1, dtype=np.uint16)
    for low in range(0, values.size, BLOCK):
        count = _matching(values[low : min(low + BLOCK, values.size)], high, found)
        for i in range(count):
            counts[found[i]] += 1


@loop
def _drop(values, least):
    """Zero the values whose |bits| are below `least`."""
    for i in range(values.size):
        bits = bits_of(values[i]) & MAGNITUDE
        values[i] = values[i] if bits >= least else np.float32(0.0)


@loop
def _count_at(values, key):
    equal = 0
    for i in range(values.size):
        equal += bits_of(values[i]) & MAGNITUDE == key
    return equal


@loop
def drop_below(values, key, first, room):
    """Zero all but the largest: |values| above `key`, and of those at it the first ones.

    `first` counts the entries at `key` that earlier calls have seen, `room` says how many of the
    whole tensor's are kept. Returns the new count.
    """
    equal = _count_at(values, key)
    if first >= room:
        _drop(values, key + np.uint32(1))
        return first + equal
    _drop(values, key)
    if first + equal <= room:
        return first + equal
    seen = first
    for i in range(values.size):
        if bits_of(values[i]) & MAGNITUDE == key:
            if seen >= room:
                values[i] = np.float32(0.0)
            seen += 1
    return first + equal


@loop
def _drop_over(values, most):
    """Zero the values whose |bits| are above `most`."""
    for i in range(values.size):
        bits = bits_of(values[i]) & MAGNITUDE
        values[i] = values[i] if bits <= most else np.float32(0.0)


@loop
def drop_above(values, key, first, room):
    """Zero what `drop_below` keeps, and keep what it zeroes; returns the same."""
    equal = _count_at(values, key)
    _drop_over(values, key)
    if first >= room or not equal:
        return first + equal
    seen = first
    for i in range(values.size):
        if bits_of(values[i]) & MAGNITUDE == key:
            if seen < room:
                values[i] = np.float32(0.0)
            seen += 1
    return first + equal
