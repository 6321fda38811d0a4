"""All that an inspection asks of a few vectors, in one go over them, compiled by numba.

The inner products are those of `compiled.dot`, bit for bit: the same blocks, summed by the same
loop and added up in the same order.
"""

from __future__ import annotations

import numpy as np

from trimtab.kernels.compiled import BLOCK, _dot_block, bits_of, loop, single_of

_EXPONENT = np.uint32(0x7F800000)


@loop
def _fill(stored, out):
    for i in range(out.size):
        out[i] = single_of(stored[i])


@loop
def _not_finite(values):
    count = np.int32(0)
    for i in range(values.size):
        count = np.int32(count + ((bits_of(values[i]) & _EXPONENT) == _EXPONENT))
    return count


@loop
def _alignment(stored, reference, out):
    for i in range(out.size):
        out[i] = reference[i] - single_of(stored[i])


@loop
def _task_vector(stored, reference, out):
    # 32 bits are enough to count in a block, and go into twice as many lanes
    zeros = np.int32(0)
    for i in range(out.size):
        tau = single_of(stored[i]) - reference[i]
        out[i] = tau
        zeros = np.int32(zeros + (tau == np.float32(0.0)))
    return zeros


@loop
def _opposite_signs(left, right):
    # by comparisons, not by the sign of a product: that vanishes where both are tiny
    count = np.int32(0)
    zero = np.float32(0.0)
    for i in range(left.size):
        opposite = ((left[i] < zero) & (right[i] > zero)) | ((left[i] > zero) & (right[i] < zero))
        count = np.int32(count + opposite)
    return count


@loop
def measure(stored, size, step, present, with_base, gram, zeros, conflicts, non_finite):
    """Add what the first `size` elements of each row tell to the sums.

    `stored` is float32 [k, >= size], or uint16 with the bits of bfloat16: reference, base and
    fine-tuned models; rows that are not `present`, bool [k], are not looked at. With the vectors
    reference, a = reference - base and tau_i = model_i - reference, the upper triangle of `gram`,
    float64 [k, k], takes their inner products, summed over pieces of `step` elements; row and
    column 1 only `with_base`. `zeros` int64 [k - 2] counts where tau_i is zero, `conflicts` int64
    [k - 2] where its sign is against a's, `non_finite` int64 [k] each row's NaN and Inf. The task
    vector of a model that is not present is zero.
    """
    n_rows = stored.shape[0]
    room = np.zeros((n_rows, BLOCK), dtype=np.float32)
    piece = np.empty((n_rows, n_rows), dtype=np.float64)
    for begin in range(0, size, step):
        end = min(begin + step, size)
        piece[:] = 0.0
        for low in range(begin, end, BLOCK):
            n = min(low + BLOCK, end) - low
            reference, base = room[0, :n], room[1, :n]
            _fill(stored[0, low : low + n], reference)
            if with_base:
                _alignment(stored[1, low : low + n], reference, base)
            for row in range(2, n_rows):
                if not present[row]:  # its task vector is zero, in `room` from the beginning
                    zeros[row - 2] += n
                    continue
                tau = room[row, :n]
                zeros[row - 2] += _task_vector(stored[row, low : low + n], reference, tau)
                if with_base:
                    conflicts[row - 2] += _opposite_signs(base, tau)
            clean = True
            for i in range(n_rows):
                if i == 1 and not with_base:
                    continue
                for j in range(i, n_rows):
                    if j == 1 and not with_base:
                        continue
                    product = _dot_block(room[i, :n], room[j, :n])
                    piece[i, j] += product
                    clean = clean and np.isfinite(product)
            if not clean:
                for row in range(n_rows):
                    if present[row]:
                        values = np.empty(n, dtype=np.float32)
                        _fill(stored[row, low : low + n], values)
                        non_finite[row] += _not_finite(values)
        gram += piece
