"""Task vectors, sparsified, scaled, agreed upon and added: what a dozen methods have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Measured, Outline, Pass, Piece
from trimtab.methods.registry import Param
from trimtab.methods.sparsify import Sparsifier

SCALE = Param("λ, all changes", "Multiplies the merged change.", -2.0, 2.0)
DENSITY = Param("Density", "Share of each task vector that survives.", 0.0, 1.0, per_model=True)
GAMMA = Param("γ, outliers", "Share of the largest changes that is dropped.", 0.0, 1.0, True)
EPSILON = Param("ε", "How far the chance to survive is spread around the density.", 0.0, 0.5, True)
NORMALIZE = Param(
    "Mean of changes", "Divide each entry by the sum of the ratios of the models that count in it."
)
RESCALE_L1 = Param(
    "Make up for what is dropped",
    "Not at all, or so that each task vector keeps its sum of magnitudes (mergekit).",
    choices={"none": "No", "l1": "Sum of magnitudes (mergekit)"},
)
RESCALE = Param(
    "Make up for what is dropped",
    "By the chance to survive (paper), by the sum of magnitudes (mergekit), or not at all.",
    choices={"density": "By density (paper)", "l1": "Sum of magnitudes (mergekit)", "none": "No"},
)

Scale = Annotated[float, SCALE]
Density = Annotated[tuple[float, ...], DENSITY]
Gamma = Annotated[tuple[float, ...], GAMMA]
Epsilon = Annotated[tuple[float, ...], EPSILON]
Normalize = Annotated[bool, NORMALIZE]
Rescale = Annotated[str, RESCALE]
RescaleL1 = Annotated[str, RESCALE_L1]


def passes_for(sparsifier: Sparsifier, outline: Outline, rescale: str) -> list[Pass]:
    """Return the sparsifier's passes and, to rescale by it, one for the sums of magnitudes."""
    found = sparsifier.passes(outline)
    if rescale != "l1":
        return found

    def measure(x: Piece) -> Measured:
        sums = np.zeros((2, len(x.models)))
        for i, delta in enumerate(x.deltas()):
            sums[0, i] = x.ops.absolute_sum(delta)
            sparsifier.apply(x, i, delta)
            sums[1, i] = x.ops.absolute_sum(delta)
            if x.store is not None:
                # what survives need not be found out twice
                x.store[x.start, i] = x.ops.pack_nonzero(delta)
        return [sums]

    def settle(units: list[Measured], facts: Sequence[Any]) -> list[float]:
        before, after = np.sum([unit[0] for unit in units], axis=0)
        return [
            float(b / a) if b >= 1e-7 and a >= 1e-7 else 1.0
            for b, a in zip(before, after, strict=True)
        ]

    return [*found, Pass(measure, settle)]


def merged(
    x: Piece,
    sparsifier: Sparsifier,
    *,
    consensus: bool,
    normalize: bool,
    rescale: str,
    scale: float,
) -> Array:
    """Return θ_ref + λ Σᵢ wᵢ sᵢ mᵢ S(τᵢ), divided by Σᵢ wᵢ mᵢ when `normalize`.

    S sparsifies, sᵢ rescales; with `consensus` mᵢ is 1 where wᵢ S(τᵢ) has the sign of the sum of
    them all (Yadav et al. 2023, section 3), else it is 1 everywhere.
    """
    ops = x.ops
    deltas = x.deltas()
    makeup = x.facts[-1] if rescale == "l1" else [1.0] * len(deltas)
    for i, delta in enumerate(deltas):
        bits = x.store.get((x.start, i)) if rescale == "l1" and x.store is not None else None
        if bits is not None:
            ops.keep_packed(delta, bits)
        else:
            sparsifier.apply(x, i, delta)
    factors = [weight * factor for weight, factor in zip(x.weights, makeup, strict=True)]
    # one model always agrees with itself
    if consensus and (len(deltas) > 1 or normalize):
        return ops.elect(x.reference, deltas, factors, x.weights, normalize, scale)
    for delta, own in zip(deltas, factors, strict=True):
        if own != 1:
            ops.scale(delta, own)
    mixed = deltas[0]
    for delta in deltas[1:]:
        ops.add(mixed, delta)
    whole = float(sum(x.weights))
    if normalize and abs(whole) >= 1e-8:
        ops.scale(mixed, 1.0 / whole)
    if scale != 1:
        ops.scale(mixed, scale)
    ops.add(mixed, x.reference)
    return mixed
