"""Random masks, compiled: numbers that depend on seed, tensor, model and place alone."""

from __future__ import annotations

import numpy as np

from trimtab.kernels.compiled import MAGNITUDE, bits_of, loop


@loop
def _mix(counter, low, high, out):
    """Philox4x32-10 (Salmon et al. 2011, section 4.3) at counters (counter + i, 0, 0).

    `counter` is 64-bit and a multiple of 1024, `out` uint32 [4, 1024]: the four words.
    """
    top = np.uint32(counter >> np.uint64(32))
    base = np.uint32(counter)
    a, b, c, d = out[0], out[1], out[2], out[3]
    for i in range(1024):
        x0 = np.uint32(base + np.uint32(i))
        x1 = top
        x2 = np.uint32(0)
        x3 = np.uint32(0)
        k0 = low
        k1 = high
        for _ in range(10):
            p0 = np.uint64(0xD2511F53) * np.uint64(x0)
            p1 = np.uint64(0xCD9E8D57) * np.uint64(x2)
            y0 = np.uint32(p1 >> np.uint64(32)) ^ x1 ^ k0
            y2 = np.uint32(p0 >> np.uint64(32)) ^ x3 ^ k1
            x1 = np.uint32(p1)
            x3 = np.uint32(p0)
            x0 = y0
            x2 = y2
            k0 = np.uint32(k0 + np.uint32(0x9E3779B9))
            k1 = np.uint32(k1 + np.uint32(0xBB67AE85))
        a[i] = x0
        b[i] = x1
        c[i] = x2
        d[i] = x3


@loop
def random_words(key_low, key_high, start, out):
    """Fill uint32 [n] with the random words of the flat indices start, start + 1, ...

    Index i has word (i >> 10) & 3 of counter ((i >> 12) << 10) | (i & 1023): whole runs of 1024
    indices share a word, so that the loop over them is a vector's.
    """
    words = np.empty((4, 1024), dtype=np.uint32)
    position = start
    stop = start + out.size
    while position < stop:
        group = position >> 12
        _mix(np.uint64(group) << np.uint64(10), key_low, key_high, words)
        flat = words.reshape(4096)
        begin = position - (group << 12)
        end = min(4096, stop - (group << 12))
        low = position - start
        out[low : low + end - begin] = flat[begin:end]
        position = (group + 1) << 12


@loop
def drop_random(values, words, limit):
    """Zero the values whose random word is not below `limit`, a float64 of 0 to 2^32."""
    for i in range(values.size):
        values[i] = values[i] if np.float64(words[i]) < limit else np.float32(0.0)


@loop
def _smaller(keys, key):
    count = np.uint32(0)
    for i in range(keys.size):
        count += np.uint32(keys[i] < key)
    return count


@loop
def _equal(keys, key):
    count = np.uint32(0)
    for i in range(keys.size):
        count += np.uint32(keys[i] == key)
    return count


@loop
def _largest_key(row, keys):
    top = np.uint32(0)
    for i in range(row.size):
        keys[i] = bits_of(row[i]) & MAGNITUDE
        top = max(top, keys[i])
    return top


@loop
def _uncertain(row, keys, chance, always, never, found):
    """Zero what is dropped at any rank, and list the entries whose rank decides.

    A word below `always` is kept and one from `never` on is dropped, whatever the rank; and of a
    zero, kept or dropped, a zero is left.
    """
    for i in range(row.size):
        row[i] = row[i] if np.int64(chance[i]) < never else np.float32(0.0)
    count = 0
    for i in range(row.size):
        found[count] = np.uint32(i)
        word = np.int64(chance[i])
        count += np.int64((word >= always) & (word < never) & (keys[i] != np.uint32(0)))
    return count


@loop
def _count_places(keys, shift, bottom, even, odd):
    """Count the keys in and below each bin; two tallies, or each would wait for the last."""
    even[:] = np.uint32(0)
    odd[:] = np.uint32(0)
    for i in range(0, keys.size - 1, 2):
        even[max(keys[i] >> shift, bottom) - bottom + np.uint32(1)] += np.uint32(1)
        odd[max(keys[i + 1] >> shift, bottom) - bottom + np.uint32(1)] += np.uint32(1)
    if keys.size & 1:
        even[max(keys[-1] >> shift, bottom) - bottom + np.uint32(1)] += np.uint32(1)
    total = np.uint32(0)
    for i in range(even.size):
        total += even[i] + odd[i]
        even[i] = total


@loop
def drop_by_rank(values, width, words, low, step):
    """Keep each value of a row with a probability that grows with its rank in the row.

    `values` float32 [rows * width]; p = low + step * rank, rank 0 for the smallest |value| (of
    equal ones the first). Bins of magnitude (sixteen octaves below the row's largest) bound
    an entry's rank, which nearly always decides; only where it does not is the rank counted, on
    from where it was last counted for the same |value|: many of a row's are the same.
    """
    # a row's own length decides how fine: the sum over the bins is a cost as well
    n_bins = 2048 if width >= 4096 else 1024
    shift = np.uint32(16) if width >= 4096 else np.uint32(17)
    keys = np.empty(width, dtype=np.uint32)
    found = np.empty(width + 1, dtype=np.uint32)
    ends = np.empty(n_bins + 1, dtype=np.uint32)
    odd = np.empty(n_bins + 1, dtype=np.uint32)
    # of each bin the key whose rank was counted last (no key is so large), its place and rank
    last_key = np.empty(n_bins, dtype=np.uint32)
    last_at = np.empty(n_bins, dtype=np.uint32)
    last_rank = np.empty(n_bins, dtype=np.uint32)
    unit = 4294967296.0
    always = np.int64(np.ceil(low * unit))
    never = np.int64(np.ceil((low + step * (width - 1)) * unit))
    for begin in range(0, values.size, width):
        row = values[begin : begin + width]
        chance = words[begin : begin + width]
        top = _largest_key(row, keys) >> shift
        bottom = top - min(top, np.uint32(n_bins - 1))
        _count_places(keys, shift, bottom, ends, odd)
        last_key[:] = np.uint32(0xFFFFFFFF)
        count = _uncertain(row, keys, chance, always, never, found)
        for n in range(count):
            i = found[n]
            key = keys[i]
            word = np.float64(chance[i])
            place = max(key >> shift, bottom) - bottom
            first, last = ends[place], ends[place + np.uint32(1)] - np.uint32(1)
            kept = word < (low + step * np.float64(first)) * unit
            if kept != (word < (low + step * np.float64(last)) * unit):
                if last_key[place] == key:
                    rank = last_rank[place] + _equal(keys[last_at[place] : i], key)
                else:
                    rank = _smaller(keys, key) + _equal(keys[:i], key)
                last_key[place], last_at[place], last_rank[place] = key, i, rank
                kept = word < (low + step * np.float64(rank)) * unit
            row[i] = row[i] if kept else np.float32(0.0)


@loop
def _sort_pass(keys, order, shift, counts, keys_out, order_out):
    """One pass of a stable radix sort by 8 bits; returns False when there was nothing to do."""
    counts[:] = np.uint32(0)
    for i in range(keys.size):
        counts[(keys[i] >> shift) & np.uint32(255)] += np.uint32(1)
    if counts[(keys[0] >> shift) & np.uint32(255)] == keys.size:
        return False
    total = np.uint32(0)
    for d in range(256):
        here = counts[d]
        counts[d] = total
        total += here
    for i in range(keys.size):
        digit = (keys[i] >> shift) & np.uint32(255)
        place = counts[digit]
        counts[digit] = place + np.uint32(1)
        keys_out[place] = keys[i]
        order_out[place] = order[i]
    return True


@loop
def drop_by_rank_rescaled(values, width, words, low, step):
    """`drop_by_rank`, and what is kept is divided by its own p: every rank is needed."""
    keys = np.empty(width, dtype=np.uint32)
    keys_out = np.empty(width, dtype=np.uint32)
    order = np.empty(width, dtype=np.uint32)
    order_out = np.empty(width, dtype=np.uint32)
    counts = np.empty(256, dtype=np.uint32)
    for begin in range(0, values.size, width):
        row = values[begin : begin + width]
        chance = words[begin : begin + width]
        _largest_key(row, keys)
        for i in range(width):
            order[i] = np.uint32(i)
        for shift in range(0, 32, 8):
            if _sort_pass(keys, order, np.uint32(shift), counts, keys_out, order_out):
                keys, keys_out = keys_out, keys
                order, order_out = order_out, order
        for rank in range(width):
            at = order[rank]
            p = low + step * np.float64(rank)
            kept = np.float64(chance[at]) < p * 4294967296.0
            row[at] = row[at] / np.float32(p) if kept else np.float32(0.0)
