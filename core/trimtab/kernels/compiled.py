"""The primitives as loops compiled by numba: one pass each over arrays that lie in the cache.

Every function works on contiguous one-dimensional arrays and releases the interpreter's lock. Sums
that decide coefficients are float64 over blocks of `BLOCK` elements, so that they do not depend on
how a tensor is cut, as long as the cuts fall on multiples of it. No fast-math but in these sums'
order: a product is never fused with the sum that follows, which would round differently elsewhere.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 4096
_ROOM = 2048  # float32 that lie in the nearest cache
MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITE = np.uint32(0x7F800000)
#: magnitudes from here on are no finite bfloat16: they round to Inf, or are not finite themselves
_TOO_LARGE = np.uint32(0x7F7F8000)


def _load_quickly() -> None:
    """Have numba load what it knows of numpy without SciPy's linear algebra.

    It imports that only to see whether it is there, which takes longer than many a merge of small
    models; where a loop calls it, which none of ours does, numba imports it then.
    """
    with suppress(ImportError, AttributeError):  # another numba may keep it elsewhere
        linalg: Any = import_module("numba.np.linalg")
        found = linalg.ensure_blas
        if "scipy" in sys.modules:  # numba has looked for it itself
            linalg.ensure_blas = lambda: None
        try:
            import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = found


_load_quickly()


@intrinsic
def bits_of(context: Any, value: Any) -> Any:
    """The bits of a float32 as uint32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def float_of(context: Any, bits: Any) -> Any:
    """The float32 that has these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def single_of(context: Any, value: Any) -> Any:
    """The float32 that is meant: a float32 itself, or the one of bfloat16's bits as uint16."""

    def widened(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(bits, ir.Constant(bits.type, 16)), ir.FloatType())

    def itself(_context: Any, _builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return types.float32(value), widened if value == types.uint16 else itself


def loop(function: Any) -> Any:
    """Compile a loop whose arithmetic is done in the order written."""
    return njit(function, nogil=True, cache=True, error_model="numpy", boundscheck=False)


def reduction(function: Any) -> Any:
    """Compile a sum whose order is left to the compiler."""
    # the order of a sum inside one block is the compiler's, the same at every run
    return njit(
        function, nogil=True, cache=True, error_model="numpy", boundscheck=False,
        fastmath={"reassoc", "contract"},
    )  # fmt: skip


@loop
def widen_bf16(stored, out):
    """uint16 [n], the bits of bfloat16 -> float32 [n]."""
    for i in range(out.size):
        out[i] = float_of(np.uint32(stored[i]) << np.uint32(16))


@loop
def round_bf16(values, out):
    """float32 [n] -> bits of bfloat16 [n], to nearest even; returns if all of them are finite."""
    largest = np.uint32(0)
    for i in range(values.size):
        bits = bits_of(values[i])
        largest = max(largest, bits & MAGNITUDE)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        out[i] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    return largest < _TOO_LARGE


@loop
def all_finite(values):
    """Whether float32 [n] holds neither NaN nor Inf."""
    largest = np.uint32(0)
    for i in range(values.size):
        largest = max(largest, bits_of(values[i]) & MAGNITUDE)
    return largest < _INFINITE


@loop
def all_finite_bf16(stored):
    """Whether uint16 [n], the bits of bfloat16, holds neither NaN nor Inf."""
    largest = np.uint16(0)
    for i in range(stored.size):
        largest = max(largest, stored[i] & np.uint16(0x7FFF))
    return largest < np.uint16(0x7F80)


@loop
def subtract(values, other):
    """values -= other, float32 [n] both."""
    for i in range(values.size):
        values[i] = values[i] - other[i]


@loop
def scale(values, factor):
    """values *= factor."""
    for i in range(values.size):
        values[i] = values[i] * factor


@loop
def add(values, other):
    """values += other."""
    for i in range(values.size):
        values[i] = values[i] + other[i]


@loop
def add_scaled(values, other, factor):
    """values += factor * other."""
    for i in range(values.size):
        values[i] = values[i] + factor * other[i]


@loop
def _combine_one(reference, model, first, factor, out):
    for i in range(out.size):
        own = single_of(reference[i])
        # from zero on, as where several are summed: -0 becomes 0
        total = np.float32(0.0) + factor * (single_of(model[i]) - own)
        out[i] = first * own + total


@loop
def _combine_two(reference, left, right, first, factor, other, out):
    for i in range(out.size):
        own = single_of(reference[i])
        total = np.float32(0.0) + factor * (single_of(left[i]) - own)
        total = total + other * (single_of(right[i]) - own)
        out[i] = first * own + total


@loop
def _add_change(total, reference, model, factor):
    for i in range(total.size):
        own = single_of(reference[i])
        total[i] = total[i] + factor * (single_of(model[i]) - own)


@loop
def _add_reference(total, reference, first):
    for i in range(total.size):
        total[i] = first * single_of(reference[i]) + total[i]


@loop
def combine_bf16(reference, models, first, factors, out):
    """out = first * reference + sum_i factors[i] * (models[i] - reference) on bfloat16 bits.

    uint16 [n] each, `models` a tuple; arithmetic in float32, rounded once. Returns if all of the
    result is finite.
    """
    room = np.empty(_ROOM, dtype=np.float32)
    finite = True
    for low in range(0, out.size, _ROOM):
        high = min(low + _ROOM, out.size)
        own, left, right = reference[low:high], models[0][low:high], models[-1][low:high]
        total = room[: high - low]
        # one or two at once: most merges have no more, and what is summed stays in registers
        if len(models) == 1:
            _combine_one(own, left, first, factors[0], total)
        elif len(models) == 2:
            _combine_two(own, left, right, first, factors[0], factors[1], total)
        else:
            total[:] = np.float32(0.0)
            for k in range(len(models)):
                _add_change(total, own, models[k][low:high], factors[k])
            _add_reference(total, own, first)
        finite = round_bf16(total, out[low:high]) and finite
    return finite


@reduction
def _dot_block(left, right):
    total = 0.0
    for i in range(left.size):
        total += np.float64(left[i]) * np.float64(right[i])
    return total


@loop
def dot(left, right):
    """The inner product of float32 [n] and [n] in float64, block by block."""
    total = 0.0
    for low in range(0, left.size, BLOCK):
        high = min(low + BLOCK, left.size)
        total += _dot_block(left[low:high], right[low:high])
    return total


@reduction
def _absolute_block(values):
    total = 0.0
    for i in range(values.size):
        total += np.float64(abs(values[i]))
    return total


@loop
def absolute_sum(values):
    """The sum of |values| in float64, block by block."""
    total = 0.0
    for low in range(0, values.size, BLOCK):
        total += _absolute_block(values[low : min(low + BLOCK, values.size)])
    return total


@loop
def agree(total, value, weight, mixed, divisor):
    """Add `value` to `mixed`, and `weight` to `divisor`, where its sign is that of `total`.

    The sign of a zero total is plus, and a zero value has no sign (Yadav et al. 2023, section 3).
    """
    for i in range(total.size):
        same = (
            value[i] > np.float32(0.0)
            if total[i] >= np.float32(0.0)
            else value[i] < np.float32(0.0)
        )
        mixed[i] = mixed[i] + (value[i] if same else np.float32(0.0))
        divisor[i] = divisor[i] + (weight if same else np.float32(0.0))


@loop
def divide_where(values, divisor):
    """values /= divisor where that is not zero."""
    for i in range(values.size):
        d = divisor[i] if divisor[i] != np.float32(0.0) else np.float32(1.0)
        values[i] = values[i] / d


@loop
def add_square_apart(total, row, mean):
    """total += (row - mean)^2."""
    for i in range(total.size):
        apart = row[i] - mean[i]
        total[i] = total[i] + apart * apart


@loop
def keep_where(values, chosen):
    """Zero the values where `chosen`, float32 [n], is zero."""
    for i in range(values.size):
        values[i] = values[i] if chosen[i] != np.float32(0.0) else np.float32(0.0)


@loop
def pack_nonzero(values, bits):
    """Set one bit a value that is not zero, uint8 [ceil(n / 8)], the first in the highest bit."""
    whole = values.size // 8
    for b in range(whole):
        part = values[8 * b : 8 * b + 8]
        byte = np.uint32(0)
        for j in range(8):
            byte = (byte << np.uint32(1)) | np.uint32(part[j] != np.float32(0.0))
        bits[b] = np.uint8(byte)
    if whole < bits.size:
        byte = np.uint32(0)
        for i in range(8 * whole, values.size):
            byte |= np.uint32(values[i] != np.float32(0.0)) << np.uint32(7 - (i - 8 * whole))
        bits[whole] = np.uint8(byte)


_MASKS = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), 0xFFFFFFFF, 0
).astype(np.uint32)


@loop
def keep_packed(values, bits):
    """Zero the values whose bit, as `pack_nonzero` sets it, is not set; uint32 bits of float32."""
    whole = values.size // 8
    for b in range(whole):
        masks = _MASKS[bits[b]]
        part = values[8 * b : 8 * b + 8]
        for j in range(8):
            part[j] = part[j] & masks[j]
    for i in range(8 * whole, values.size):
        values[i] = values[i] & _MASKS[bits[whole], i - 8 * whole]
