"""The random numbers of masks: functions of seed, tensor and place, the same on every machine."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from trimtab.kernels.piece import Ops
from trimtab.kernels.whole import default_backend, make_ops

Words = npt.NDArray[np.uint32]
#: what stands for a model's name in the key of a mask's random numbers
LABEL = "mask"


@cache
def _ops() -> Ops:
    return make_ops(default_backend())


def random_words(key: int, start: int, count: int) -> Words:
    """Return the words of flat indices [start, start + count), uint32, of Philox4x32-10.

    Valid in this thread until it is called again.
    """
    return _ops().random_words(key, start, count)


def limit_of(p: float) -> np.uint32:
    """Return the largest word that counts as chosen with probability p, 0 < p < 1."""
    return np.uint32(min(math.ceil(p * 2**32), 2**32) - 1)
