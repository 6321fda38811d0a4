"""What several task vectors are made into in one go, block by block in the nearest cache."""

from __future__ import annotations

import numpy as np

from trimtab.kernels.compiled import (
    BLOCK,
    _dot_block,
    add,
    agree,
    divide_where,
    loop,
    scale,
    single_of,
)

_ROOM = 2048


@loop
def _fill(stored, out):
    for i in range(out.size):
        out[i] = single_of(stored[i])


@loop
def _change(stored, reference, out):
    for i in range(out.size):
        out[i] = single_of(stored[i]) - reference[i]


@loop
def gram(reference, models, first, out):
    """Fill the upper triangle of `out`, float64 [1 + m, 1 + m], with inner products.

    Those of [reference, models[0] - reference, ...] from row `first` on, the same bits as `dot`
    makes. float32 [n] each, or uint16 [n] with the bits of bfloat16; `models` is a tuple.
    """
    count = 1 + len(models)
    room = np.empty((count, BLOCK), dtype=np.float32)
    out[:] = 0.0
    for low in range(0, reference.size, BLOCK):
        high = min(low + BLOCK, reference.size)
        size = high - low
        _fill(reference[low:high], room[0, :size])
        for k in range(len(models)):
            _change(models[k][low:high], room[0, :size], room[k + 1, :size])
        for i in range(first, count):
            for j in range(i, count):
                out[i, j] += _dot_block(room[i, :size], room[j, :size])


@loop
def _vote(deltas, low, high, total):
    total[:] = deltas[0][low:high]
    for k in range(1, len(deltas)):
        add(total, deltas[k][low:high])


@loop
def elect(reference, deltas, factors, shares, normalize, last, plain_vote):
    """Make deltas[0] the reference + last * the deltas times factors that agree in sign.

    float32 [n] each, `deltas` a tuple, all of it overwritten; `factors` and `shares` float32 [m].
    With `normalize` each entry is divided by the sum of the shares that count in it. The sign is
    that of the deltas' sum, with `plain_vote` without the factors.
    """
    room = np.empty((3, _ROOM), dtype=np.float32)
    for low in range(0, reference.size, _ROOM):
        high = min(low + _ROOM, reference.size)
        total, mixed, divisor = (
            room[0, : high - low],
            room[1, : high - low],
            room[2, : high - low],
        )
        if plain_vote:
            _vote(deltas, low, high, total)
        for k in range(len(deltas)):
            scale(deltas[k][low:high], factors[k])
        if not plain_vote:
            _vote(deltas, low, high, total)
        mixed[:] = np.float32(0.0)
        divisor[:] = np.float32(0.0)
        for k in range(len(deltas)):
            agree(total, deltas[k][low:high], shares[k], mixed, divisor)
        if normalize:
            divide_where(mixed, divisor)
        scale(mixed, last)
        add(mixed, reference[low:high])
        deltas[0][low:high] = mixed
