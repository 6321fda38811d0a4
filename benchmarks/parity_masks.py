"""Random masks as Trimtab documents them, from Salmon et al. 2011, with numpy alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW, _BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
_LANES = 1024


def model_key(seed: int, tensor: str, model: str) -> int:
    """Return the 64-bit key of one model's mask in one tensor."""
    text = f"{seed}\0{tensor}\0{model}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def philox(
    counters: npt.NDArray[np.uint64], key: tuple[int, int], rounds: int = 10
) -> npt.NDArray[np.uint64]:
    """Return Philox4x32 of counters [4, n] of 32 bits each, as [4, n]."""
    a, b, c, d = counters
    for step in range(rounds):
        k0, k1 = (np.uint64((key[i] + step * _STEPS[i]) & 0xFFFFFFFF) for i in range(2))
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> _BITS) ^ b ^ k0,
            second & _LOW,
            (first >> _BITS) ^ d ^ k1,
            first & _LOW,
        )
    return np.stack([a, b, c, d])


def words(key: int, count: int) -> npt.NDArray[np.uint64]:
    """Return the random word of each flat element i.

    It is word (i >> 10) & 3 of the block at counter (i >> 12 << 10) | (i & 1023).
    """
    blocks = -(-count // (4 * _LANES))
    c = np.arange(blocks * _LANES, dtype=np.uint64)
    zero = np.zeros_like(c)
    drawn = philox(np.stack([c & _LOW, c >> _BITS, zero, zero]), (key & 0xFFFFFFFF, key >> 32))
    return drawn.reshape(4, blocks, _LANES).transpose(1, 0, 2).reshape(-1)[:count]


def kept(
    seed: int, tensor: str, model: str, p: npt.NDArray[np.float64] | float, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Return which entries of a tensor survive with probability `p`, bool of `shape`."""
    drawn = words(model_key(seed, tensor, model), int(np.prod(shape, dtype=np.int64)))
    return np.asarray(drawn.reshape(shape) < np.asarray(p, dtype=np.float64) * 2.0**32)


def known_answers() -> bool:
    """Whether Philox gives what the Random123 library publishes for it."""
    full = 0xFFFFFFFF
    vectors = (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((full,) * 4, (full, full), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    )
    return all(
        tuple(int(word) for word in philox(np.array([[c] for c in counter], np.uint64), key)[:, 0])
        == answer
        for counter, key, answer in vectors
    )
