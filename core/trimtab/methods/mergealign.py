"""MergeAlign: put the domain's task vector and the alignment vector together, from the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Measured, Outline, Pass, Piece
from trimtab.methods.forms import combined, slerp_factors
from trimtab.methods.registry import Floats, Param, merge_method


def _coefficients(ratios: Floats, *, path: str = "line") -> Floats | None:
    return ratios if path == "line" else None


def _form(
    gram: Floats | None, weights: Sequence[float], *, path: str
) -> tuple[float, Floats] | None:
    return (1.0, np.asarray(weights, dtype=np.float64)) if path == "line" else None


def _passes(outline: Outline, *, path: str) -> Sequence[Pass]:
    return () if path == "line" else (Pass(_measure, _settle),)


def _measure(x: Piece) -> Measured:
    alignment, domain = _from_base(x)
    dot = x.ops.dot
    products = [dot(alignment, alignment), dot(domain, domain), dot(alignment, domain)]
    return [np.array(products, dtype=np.float64)]


def _settle(units: list[Measured], facts: Sequence[Any]) -> Floats:
    total: Floats = np.sum([unit[0] for unit in units], axis=0)
    return total


def _from_base(x: Piece) -> tuple[Array, Array]:
    """Return the alignment vector and the model's change from the base."""
    alignment = x.alignment()
    (domain,) = x.deltas()
    x.ops.add(domain, alignment)
    return alignment, domain


@merge_method(
    title="MergeAlign (paper)",
    formula="θ = θ_b + (1 − r) a + r (θ₁ − θ_b), or along the arc between the two",
    reference="Thakkar et al. 2024, arXiv 2411.06824",
    scope="element",
    takes=(1, 1),
    passes=_passes,
    coefficients=_coefficients,
    form=_form,
    backend="any",
    needs_base=True,
)
def mergealign(
    x: Piece,
    *,
    path: Annotated[
        str,
        Param(
            "Path",
            "How to go from the alignment vector to the domain's.",
            choices={"line": "Straight", "arc": "Along the arc (SLERP)"},
        ),
    ] = "line",
) -> Array:
    """Interpolate between the alignment vector and the domain model's change, from the base on.

    a = θ_a − θ_b; r is the model's ratio: 0 is the aligned model, 1 the domain model. On the
    straight way the base cancels, and it is task arithmetic with that ratio. Along the arc both
    are turned into each other, each tensor as one vector. Thakkar et al. 2024.
    """
    ratio = x.weights[0]
    if path == "line":
        return combined(x, 1.0, [ratio])
    aligned, domain, dot = (float(v) for v in x.facts[0])
    if not aligned or not domain:
        return combined(x, 1.0, [ratio])  # there is no arc from nothing
    first, second = slerp_factors(ratio, aligned**0.5, domain**0.5, dot, 0.9995)
    # θ_b + f₁ a + f₂ (a + τ) = θ_a + (f₁ + f₂ − 1) a + f₂ τ
    ops = x.ops
    alignment = x.alignment()
    (total,) = x.deltas()
    ops.scale(total, second)
    ops.add_scaled(total, alignment, first + second - 1)
    ops.add(total, x.reference)
    return total
