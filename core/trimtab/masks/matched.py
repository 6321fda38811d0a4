"""Random masks that remove as much as a given one: the control that a mask must be better than."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.kernels.piece import random_key
from trimtab.masks.builders import STRIDE, packed
from trimtab.masks.chance import LABEL, Words, random_words
from trimtab.masks.file import MaskWriter
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack, TensorMask

Floats = npt.NDArray[np.float64]
Match = Literal["energy", "entries"]
Over = Literal["tensor", "model"]
_BINS = 1 << 16


@dataclass(frozen=True)
class Matched:
    """How near a control comes, in one tensor or over all: what the mask removes, and it.

    For "energy" that is ‖τ − m·τ‖², for "entries" Σ(1 − m); `total` is that of all entries.
    """

    name: str
    total: float
    wanted: float
    removed: float

    @property
    def error(self) -> float:
        """|removed − wanted| / wanted; 0 where nothing was to be removed."""
        return abs(self.removed - self.wanted) / self.wanted if self.wanted else 0.0


def write_control(
    stack: MaskStack,
    vector: TaskVector,
    writer: MaskWriter,
    control: Control,
    *,
    match: Match = "energy",
    over: Over = "tensor",
    seed: int = 0,
) -> tuple[Matched, ...]:
    """Write a random mask that removes as much as the stack's; return how near it comes.

    Each entry has a random word, a function of seed, tensor and place; those with the smallest go,
    up to the word at which the sum of what is removed comes nearest to the mask's. So it is a
    Bernoulli mask whose probability is tuned by the data, and it is off by less than the largest
    entry, or those few that share a word. The sum is matched in each tensor, or over the whole
    model with one probability for all of it. Tensors outside the task vector are kept. Raises
    `UserError` with `control_is_the_mask` where each tensor is removed or kept as a whole: matched
    tensor by tensor, chance has no choice.
    """
    masks = {name: stack.of(name, vector.shape(name)) for name in vector.names}
    if over == "tensor" and all(isinstance(mask, bool) for mask in masks.values()):
        raise UserError(
            "control_is_the_mask",
            "A control matched in each tensor would be the mask itself.",
            "The mask keeps or removes each tensor as a whole.",
            "Match over the whole model instead.",
        )
    control.stage("Matching", len(masks))
    found = []
    groups = [tuple(masks)] if over == "model" else [(name,) for name in masks]
    for group in groups:
        one = _Group(group, masks, vector, match, seed, control)
        if over == "tensor" and isinstance(settled := masks[group[0]], bool):
            writer.constant(group[0], vector.shape(group[0]), settled)
        else:
            word, matched = one.border("all tensors" if over == "model" else group[0])
            found.append(matched)
            for name in group:
                writer.bits(name, vector.shape(name), packed(one.kept(name, word)))
        control.advance(len(group))
    return tuple(found)


@dataclass(frozen=True)
class _Group:
    """Tensors among whose entries chance chooses with one probability."""

    names: Sequence[str]
    masks: Mapping[str, TensorMask | bool]
    vector: TaskVector
    match: Match
    seed: int
    control: Control

    def _words(self, name: str) -> Iterator[tuple[int, int, Words]]:
        numel, key = math.prod(self.vector.shape(name)), random_key(self.seed, name, LABEL)
        for low, high in pairwise([*range(0, numel, STRIDE), numel]):
            self.control.check()
            yield low, high, random_words(key, low, high - low)

    def _weighed(self) -> Iterator[tuple[Words, Floats, Floats]]:
        """Yield words, the weight of removing an entry, and what the mask removes of it."""
        for name in self.names:
            mask = self.masks[name]
            for low, high, words in self._words(name):
                if self.match == "energy":
                    weights = self.vector.read(name, low, high).astype(np.float64) ** 2
                else:
                    weights = np.ones(high - low)
                if isinstance(mask, bool):
                    removed = np.zeros_like(weights) if mask else weights
                else:
                    # the stack may ask for random words of its own
                    words = words.copy()
                    away = 1 - mask.shares(low, high).astype(np.float64)
                    removed = weights * (away**2 if self.match == "energy" else away)
                yield words, weights, removed

    def border(self, name: str) -> tuple[int, Matched]:
        """Return the word below which entries are removed, and what that makes."""
        high, wanted = np.zeros(_BINS), 0.0
        for words, weights, removed in self._weighed():
            high += np.bincount(words >> 16, weights, minlength=_BINS)
            wanted += float(removed.sum())
        sums = np.concatenate([[0.0], np.cumsum(high)])
        # the bin in which the sum passes what is wanted
        top = min(int(np.searchsorted(sums, wanted, side="right")) - 1, _BINS - 1)
        low = np.zeros(_BINS)
        for words, weights, _ in self._weighed():
            here = words >> 16 == top
            low += np.bincount(words[here] & 0xFFFF, weights[here], minlength=_BINS)
        fine = sums[top] + np.concatenate([[0.0], np.cumsum(low)])
        nearest = int(np.argmin(np.abs(fine - wanted)))
        matched = Matched(name, float(sums[-1]), wanted, float(fine[nearest]))
        return (top << 16) + nearest, matched

    def kept(self, name: str, word: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield which entries' words are not below `word`, which may be 2³²."""
        for _, _, words in self._words(name):
            yield words.astype(np.uint64) >= word
