"""Widens what is stored to float32 and rounds float32 to what is stored, once, to nearest even."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
#: f(values float32 [n], code, out uint8 [bytes]) -> whether all that was written is finite
Store = Callable[[Floats, str, Bytes], bool]

#: f(stored bytes uint8, code, out float32 [n])
Widen = Callable[[Bytes, str, Floats], None]

_NUMPY: dict[str, Any] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def widen(raw: Bytes, code: str, out: Floats) -> None:
    """Fill `out`, float32 [n], from stored bytes of F64, F32, F16 or BF16."""
    if code == "BF16":
        bits = out.view(np.uint32)
        bits[:] = raw.view(np.uint16)
        bits <<= 16
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold is Inf, and refused as such
            out[:] = raw.view(_NUMPY[code])


def store(values: Floats, code: str, out: Bytes) -> bool:
    """Write float32 values as F64, F32, F16 or BF16; returns whether all of them are finite."""
    if code != "BF16":
        stored = out.view(_NUMPY[code])
        with np.errstate(over="ignore"):
            stored[:] = values
        return bool(np.isfinite(stored).all())
    bits = values.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(
        16
    )
    out.view(np.uint16)[:] = rounded
    finite = bool(np.isfinite(values).all())
    return finite and bool(((rounded & 0x7F80) != 0x7F80).all())


def stored_is_finite(raw: Bytes, code: str) -> bool:
    """Whether stored F64, F32, F16 or BF16 values hold neither NaN nor Inf."""
    if code == "BF16":
        return bool(((raw.view(np.uint16) & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(raw.view(_NUMPY[code])).all())


@dataclass(frozen=True)
class Conversion:
    """How stored values become float32 and back, and how what is not finite is found."""

    widen: Widen
    store: Store
    is_finite: Callable[[Bytes, str], bool]


def plain_conversion() -> Conversion:
    """Conversion by numpy alone."""
    return Conversion(widen, store, stored_is_finite)


def compiled_conversion() -> Conversion:
    """Conversion by compiled loops where they are faster; imports numba."""
    from trimtab.kernels import compiled

    def quick_widen(raw: Bytes, code: str, out: Floats) -> None:
        if code == "BF16":
            compiled.widen_bf16(raw.view(np.uint16), out)
        else:
            widen(raw, code, out)

    def quick_store(values: Floats, code: str, out: Bytes) -> bool:
        if code == "BF16":
            return bool(compiled.round_bf16(values, out.view(np.uint16)))
        if code == "F32":
            out.view(np.float32)[:] = values
            return bool(compiled.all_finite(values))
        return store(values, code, out)

    def quick_is_finite(raw: Bytes, code: str) -> bool:
        if code == "BF16":
            return bool(compiled.all_finite_bf16(raw.view(np.uint16)))
        if code == "F32":
            return bool(compiled.all_finite(raw.view(np.float32)))
        return stored_is_finite(raw, code)

    return Conversion(quick_widen, quick_store, quick_is_finite)
