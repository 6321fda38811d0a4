"""Known defects of mergekit, in float64: what the formula becomes with each of them in it.

A difference counts as mergekit's when the formula gives what Trimtab wrote, and the formula with
one of these defects gives what mergekit wrote. `listed` are those that Trimtab's design names; the
others were found by this comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

import parity_formulas
from parity_formulas import F64, Given, Shared


@dataclass(frozen=True)
class Arguments:
    """What makes up one tensor: see `parity_formulas.merged`."""

    method: str
    tensor: str
    base: F64 | None
    others: Sequence[Given]
    shared: Shared
    base_own: Mapping[str, Any]

    def merged(self, others: Sequence[Given] | None = None) -> F64:
        """Return what the formula makes of it, of all or of some of the models."""
        chosen = self.others if others is None else others
        with np.errstate(invalid="ignore", divide="ignore"):
            return parity_formulas.merged(
                self.method, self.tensor, self.base, chosen, self.shared, self.base_own
            )


@dataclass(frozen=True)
class Defect:
    """A defect: what it is, and the formula with it, given mergekit's own result and document."""

    text: str
    listed: bool
    remade: Callable[[Arguments, F64, Mapping[str, Any]], F64]


def _uneven(given: Arguments, theirs: F64, document: Mapping[str, Any]) -> F64:
    return given.merged(given.others[: len(document["slices"][0]["sources"])])


def _small_norms(given: Arguments, theirs: F64, document: Mapping[str, Any]) -> F64:
    assert given.base is not None
    models = [values for _, values, _ in given.others]
    moved = [values - given.base for values in models]
    cosine = np.mean([
        np.sum(a * b) / max(np.sqrt(np.sum(a * a) * np.sum(b * b)), 1e-6)
        for a, b in combinations(moved, 2)
    ])  # fmt: skip
    t = len(models) * cosine / (1 + (len(models) - 1) * cosine)
    return np.asarray(t * np.mean(models, axis=0) + (1 - t) * given.base)


def _small_energies(given: Arguments, theirs: F64, document: Mapping[str, Any]) -> F64:
    assert given.base is not None
    moved = np.stack([values - given.base for _, values, _ in given.others])
    energy = (moved * moved).reshape(len(moved), -1).mean(axis=1)
    if energy.sum() < 1e-6:
        energy = np.ones_like(energy)
    weights = (energy / energy.sum()).reshape(-1, *[1] * given.base.ndim)
    weights = weights * (np.sign(moved) == np.where(moved.sum(axis=0) >= 0, 1, -1))
    return np.asarray(
        given.base + (weights * moved).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-6)
    )


def _rounded_divergence(given: Arguments, theirs: F64, document: Mapping[str, Any]) -> F64:
    assert given.base is not None
    importance, threshold = parity_formulas.arcee_importance(given.base, given.others[0][1])
    near = np.abs(importance - threshold) <= 0.02 * threshold
    # so near the threshold either is possible, and nothing else
    either = (theirs == given.base) | (theirs == given.others[0][1])
    return np.where(near & either, theirs, given.merged())


_DEFECTS = {
    ("linear", "uneven slices"): Defect(
        "tensors after the layers are made from as many models as the first slice has",
        True,
        _uneven,
    ),
    ("model_stock", "faint"): Defect(
        "the product of two norms counts as at least 1e-6: cosines of small task vectors come out "
        "too small",
        False,
        _small_norms,
    ),
    ("sce", "faint"): Defect(
        "weights are equal where the mean squares of task vectors sum to less than 1e-6",
        False,
        _small_energies,
    ),
    ("arcee_fusion", "default"): Defect(
        "the KL divergence, a small difference of large sums, is off by a percent in float32: "
        "entries cross the threshold, though none that is 2 % away from it",
        False,
        _rounded_divergence,
    ),
}

#: what mergekit says when it fails by a defect of its own -> what that is
CRASHES = {
    "validate_layer_type": "config.json lists layer_types; mergekit changes the number of layers "
    "alone, and transformers refuses to read that"
}  # fmt: skip


def defect_of(method: str, label: str) -> Defect | None:
    """Return the defect that a case runs into, None for most."""
    return _DEFECTS.get((method, label))
