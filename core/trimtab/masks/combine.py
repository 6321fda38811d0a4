"""Writes what a stack of masks comes to as one mask file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.bits import Bits, Halves
from trimtab.masks.file import MaskFile, MaskWriter
from trimtab.masks.stack import MaskStack, TensorMask


def common_shapes(files: tuple[MaskFile, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that these files mask, in their order.

    Raises `UserError` with `mask_does_not_fit` where two of them differ.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        for name in file.names:
            shape = file.shape(name)
            assert shape is not None
            if found.setdefault(name, shape) != shape:
                raise UserError(
                    "mask_does_not_fit",
                    f"The masks differ in the shape of {name}.",
                    f"{file.path.name} has {list(shape)}, one before it {list(found[name])}.",
                    "Combine masks that were made for the same models.",
                )
    return found


def write_stack(
    stack: MaskStack, shapes: Mapping[str, tuple[int, ...]], writer: MaskWriter, control: Control
) -> None:
    """Write the stack's mask of tensors of these names and shapes; soft values as float16."""
    control.stage("Combining", len(shapes))
    for name, shape in shapes.items():
        mask = stack.of(name, shape)
        if isinstance(mask, bool):
            writer.constant(name, shape, mask)
        elif mask.soft:
            writer.soft(name, shape, _soft(mask, control))
        else:
            writer.bits(name, shape, _bits(mask, control))
        control.advance(1)


def _soft(mask: TensorMask, control: Control) -> Iterator[Halves]:
    for low, high in mask.pieces():
        control.check()
        yield mask.shares(low, high).astype(np.float16)


def _bits(mask: TensorMask, control: Control) -> Iterator[Bits]:
    for low, high in mask.pieces():
        control.check()
        yield mask.bits(low, high)
