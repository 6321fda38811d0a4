"""NuSLERP: the arc between two models, on whole tensors, rows or columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.forms import absolute, combined, gram_pass, slerp_factors
from trimtab.methods.registry import Floats, Param, Scope, merge_method

# nearer to 1 than this a cosine in float64 tells no angle
_COLINEAR = 1.0 - 5e-13


def _share(weights: Sequence[float]) -> float:
    total = sum(weights)
    return 0.5 if abs(total) < 1e-6 else weights[1] / total


def _form(
    gram: Floats | None, weights: Sequence[float], *, flatten: bool, row_wise: bool, origin: str
) -> tuple[float, Floats] | None:
    if not flatten:
        return None
    assert gram is not None
    dots = gram[1:, 1:] if origin == "reference" else absolute(gram)
    own, other = (math.sqrt(max(float(dots[i, i]), 0.0)) for i in (0, 1))
    shares = slerp_factors(_share(weights), own, other, float(dots[0, 1]), _COLINEAR)
    factors = np.array(shares, dtype=np.float64)
    return (1.0 if origin == "reference" else float(factors.sum())), factors


def _passes(outline: Outline, *, flatten: bool, **parameters: Any) -> Sequence[Pass]:
    return gram_pass(outline) if flatten else ()


def _scope(*, flatten: bool, row_wise: bool, **parameters: Any) -> Scope:
    if flatten:
        return "element"
    return "tensor" if row_wise else "row"


def _along(x: Piece, axis: int, t: float) -> Array:
    """Interpolate each vector along an axis of the models."""
    ops = x.ops
    a, b = (ops.double(model) for model in x.models)

    def length(v: Array) -> Array:
        found = (v * v).sum(axis, keepdims=True) ** 0.5
        return ops.where(found > 1e-7, found, found * 0 + 1e-7)

    cosine = (a / length(a) * (b / length(b))).sum(axis, keepdims=True).clip(-1.0, 1.0)
    colinear = abs(cosine) > _COLINEAR
    omega = ops.arccos(ops.where(colinear, cosine * 0, cosine))
    sine = ops.sin(omega)
    arc = (ops.sin(omega * (1 - t)) / sine) * a + (ops.sin(omega * t) / sine) * b
    return ops.single(ops.where(colinear, (1 - t) * a + t * b, arc))


@merge_method(
    title="NuSLERP",
    formula="θ = θ_o + slerp(v₁, v₂; t), t = w₂/(w₁+w₂), vᵢ = θᵢ − θ_o",
    reference="Shoemake 1985, doi 10.1145/325334.325242; weights as in mergekit's nuslerp",
    scope=_scope,
    takes=(2, 2),
    passes=_passes,
    form=_form,
    backend="any",
)
def nuslerp(
    x: Piece,
    *,
    flatten: Annotated[
        bool, Param("Whole tensors", "One angle a tensor; off, one for each row or column.")
    ] = True,
    row_wise: Annotated[
        bool,
        Param("Along the first axis", "With whole tensors off: vectors run along the first axis."),
    ] = False,
    origin: Annotated[
        str,
        Param(
            "Vectors from",
            "The reference (task vectors are interpolated) or zero (the models themselves).",
            choices={"reference": "The reference", "zero": "Zero"},
        ),
    ] = "reference",
) -> Array:
    """Interpolate between two models along the arc, by their share of the ratios.

    `row_wise` is the published name of the option; it takes vectors along the first axis. Exactly
    colinear vectors are interpolated linearly.
    """
    t = _share(x.weights)
    form = _form(
        x.facts[0] if flatten else None,
        x.weights,
        flatten=flatten,
        row_wise=row_wise,
        origin=origin,
    )
    if form is not None:
        return combined(x, *form)
    if origin == "reference":
        x.deltas()
    if row_wise:
        merged = _along(x, 0, t) if x.shape else _along_flat(x, 1, t)
    else:
        merged = _along_flat(x, x.width, t)
    if origin == "reference":
        x.ops.add(merged, x.reference)
    return merged


def _along_flat(x: Piece, width: int, t: float) -> Array:
    """Interpolate each row of `width` elements of a flat piece."""
    shape = x.models[0].shape
    x.models = [model.reshape(-1, width) for model in x.models]
    return _along(x, -1, t).reshape(shape)
