"""Packed bits: entry i of a flat tensor is bit i % 8 of byte i // 8, as numpy's order "little"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]

_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def n_bytes(size: int) -> int:
    """Return how many bytes `size` bits take."""
    return -(-size // 8)


def pack(kept: npt.NDArray[np.bool_]) -> Bits:
    """Return bool [n] as packed bits, uint8 [ceil(n / 8)]; bits after the last are 0."""
    return np.packbits(kept, bitorder="little")


def unpack(bits: Bits, size: int) -> npt.NDArray[np.bool_]:
    """Return the first `size` of packed bits as bool [size]."""
    return np.unpackbits(bits, count=size, bitorder="little").view(np.bool_)


def constant(size: int, kept: bool) -> Bits:
    """Return `size` bits that are all alike, uint8 [ceil(size / 8)]."""
    return clear_tail(np.full(n_bytes(size), 255 if kept else 0, dtype=np.uint8), size)


def clear_tail(bits: Bits, size: int) -> Bits:
    """Set the bits after the first `size` to 0, in place, and return the same array."""
    if size % 8:
        bits[-1] &= (1 << size % 8) - 1
    return bits


def count(bits: Bits) -> int:
    """Return how many bits are set in uint8 [n]."""
    return int(_ONES[bits].sum(dtype=np.int64))


def shifted(bits: Bits, first: int, size: int) -> Bits:
    """Return bits [first, first + size) of packed bits as bits from 0 on; `first` is below 8."""
    if first == 0:
        return clear_tail(bits[: n_bytes(size)].copy(), size)
    wide = np.zeros(n_bytes(size) + 1, dtype=np.uint8)
    wide[: min(bits.size, wide.size)] = bits[: wide.size]
    joined: Bits = (wide[:-1] >> np.uint8(first)) | (wide[1:] << np.uint8(8 - first))
    return clear_tail(joined, size)
