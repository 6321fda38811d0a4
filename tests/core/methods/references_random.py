"""Philox4x32-10 and the random masks, written from Salmon et al. 2011 in numpy alone."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(counter: npt.ArrayLike, key: tuple[int, int], rounds: int = 10) -> Words:
    """The four output words for counters of shape (..., 4); key is (low, high)."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = key
    for _ in range(rounds):
        first = c0 * np.uint64(0xD2511F53)
        second = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (second >> HALF) ^ c1 ^ np.uint64(k0),
            second & LOW,
            (first >> HALF) ^ c3 ^ np.uint64(k1),
            first & LOW,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def model_key(seed: int, tensor: str, label: str) -> int:
    """The 64-bit key of one model's mask on one tensor."""
    digest = hashlib.blake2b(f"{seed}\0{tensor}\0{label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def words(n: int, key: int, first: int = 0) -> Words:
    """The random 32-bit word of each flat index from `first` to `first + n`."""
    index = np.arange(first, first + n, dtype=np.uint64)
    block = ((index >> np.uint64(12)) << np.uint64(10)) | (index & np.uint64(1023))
    lane = ((index >> np.uint64(10)) & np.uint64(3)).astype(np.intp)
    zero = np.zeros_like(block)
    counter = np.stack([block & LOW, block >> HALF, zero, zero], axis=-1)
    out = philox4x32(counter, (key & 0xFFFFFFFF, key >> 32))
    return np.take_along_axis(out, lane[:, None], axis=1)[:, 0]


def bernoulli(
    probability: float | npt.NDArray[np.float64], n: int, key: int
) -> npt.NDArray[np.bool_]:
    """Which of n entries are kept, each with its own probability."""
    return words(n, key).astype(np.float64) < np.asarray(probability) * 2.0**32
