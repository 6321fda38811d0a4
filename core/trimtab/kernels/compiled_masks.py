"""Masks of packed bits and of soft values, compiled."""

from __future__ import annotations

import numpy as np

from trimtab.kernels.compiled import loop

#: the lowest bit of a byte is the first of eight entries
_MASKS = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0xFFFFFFFF, 0
).astype(np.uint32)


@loop
def take_packed(values, other, bits):
    """Where a bit is not set take the other value; values and other are uint32 bits of float32."""
    whole = values.size // 8
    for b in range(whole):
        masks = _MASKS[bits[b]]
        part = values[8 * b : 8 * b + 8]
        rest = other[8 * b : 8 * b + 8]
        for j in range(8):
            part[j] = (part[j] & masks[j]) | (rest[j] & ~masks[j])
    for i in range(8 * whole, values.size):
        mask = _MASKS[bits[whole], i - 8 * whole]
        values[i] = (values[i] & mask) | (other[i] & ~mask)


@loop
def blend(values, other, shares):
    """values = other + shares · (values − other); at 0 and 1 the very bits of one of them."""
    for i in range(values.size):
        share = shares[i]
        apart = values[i] - other[i]
        part = share * apart
        mixed = other[i] + part
        values[i] = (
            other[i]
            if share == np.float32(0.0)
            else (values[i] if share == np.float32(1.0) else mixed)
        )
