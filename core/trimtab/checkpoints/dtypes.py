"""The element types a safetensors file can hold, with their width and what arithmetic may do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """An element type: its safetensors code, width in bits, and whether it can be merged."""

    code: str
    bits: int
    label: str
    mergeable: bool

    def nbytes(self, numel: int) -> int:
        """Return the bytes that `numel` elements take, rounded up to a whole byte."""
        return (numel * self.bits + 7) // 8


_ALL = (
    DType("F64", 64, "fp64", True),
    DType("F32", 32, "fp32", True),
    DType("F16", 16, "fp16", True),
    DType("BF16", 16, "bf16", True),
    DType("F8_E4M3", 8, "fp8", False),
    DType("F8_E5M2", 8, "fp8", False),
    DType("F8_E8M0", 8, "fp8 scale", False),
    DType("F8_E4M3FNUZ", 8, "fp8", False),
    DType("F8_E5M2FNUZ", 8, "fp8", False),
    DType("F6_E2M3", 6, "fp6", False),
    DType("F6_E3M2", 6, "fp6", False),
    DType("F4", 4, "fp4", False),
    DType("C64", 64, "complex64", False),
    DType("I64", 64, "int64", False),
    DType("I32", 32, "int32", False),
    DType("I16", 16, "int16", False),
    DType("I8", 8, "int8", False),
    DType("U64", 64, "uint64", False),
    DType("U32", 32, "uint32", False),
    DType("U16", 16, "uint16", False),
    DType("U8", 8, "uint8", False),
    DType("BOOL", 8, "bool", False),
)

DTYPES: tuple[DType, ...] = _ALL
DTYPE_ID: dict[str, int] = {dtype.code: i for i, dtype in enumerate(_ALL)}
BY_CODE: dict[str, DType] = {dtype.code: dtype for dtype in _ALL}

#: names that recipes use for the output, and the safetensors code of each
OUTPUT_DTYPES: dict[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
TORCH_NAMES: dict[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
