"""Which entries of a tensor share one logit: each entry, a row, an attention head, or all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.naming import parse

Granularity = Literal["parameter", "row", "head", "module"]
GRANULARITIES: tuple[Granularity, ...] = ("parameter", "row", "head", "module")


@dataclass(frozen=True)
class Units:
    """How the logits of one tensor lie over its entries.

    The tensor `shape`, seen as `view`, is broadcast from logits of shape `logits`: an axis of
    `logits` is that of `view`, or 1. All units of a tensor have the same number of entries, so the
    mean over units is the mean over entries.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    logits: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many logits there are."""
        return math.prod(self.logits)

    @property
    def entries(self) -> int:
        """How many entries share one logit."""
        return math.prod(self.shape) // max(self.count, 1)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of the units as one value an entry: [*logits] -> [*shape]."""
        wide = np.broadcast_to(values.reshape(self.logits), self.view)
        return np.array(wide).reshape(self.shape)


def units_of(
    name: str, shape: tuple[int, ...], granularity: Granularity, config: Mapping[str, Any]
) -> Units:
    """Return the units of the tensor `name` of a model with this config.json.

    A row is an output of a matrix [out, in], or an entry of a vector. With "head" a unit is an
    attention head of q, k, v (rows) and o (columns); all else, and what does not divide into
    heads, has rows. "parameter" is the paper's; the others are ours.
    """
    if granularity == "module" or not shape:
        return Units(shape, shape, (1,) * len(shape))
    if granularity == "parameter":
        return Units(shape, shape, shape)
    if granularity == "head" and len(shape) in (1, 2):
        module = parse(name).module
        heads = _heads(module, config)
        axis = 1 if module == "o" and len(shape) == 2 else 0
        if heads and shape[axis] % heads == 0 and (module != "o" or len(shape) == 2):
            view = (*shape[:axis], heads, shape[axis] // heads, *shape[axis + 1 :])
            return Units(shape, view, tuple(heads if i == axis else 1 for i in range(len(view))))
    return Units(shape, shape, (shape[0],) + (1,) * (len(shape) - 1))


def _heads(module: str, config: Mapping[str, Any]) -> int:
    text = config.get("text_config") or config
    count = text.get("num_attention_heads") or text.get("n_head") or 0
    if module in ("k", "v"):
        count = text.get("num_key_value_heads") or count
    return int(count) if module in ("q", "k", "v", "o") else 0
