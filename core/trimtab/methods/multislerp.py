"""Multi-SLERP: the weighted barycentre of several models on a sphere, in one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.errors import UserError
from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import absolute, combined, gram_pass
from trimtab.methods.registry import Floats, Param, merge_method


def _barycentre(gram: Floats, weights: Floats, eps: float) -> Floats:
    """Return the c [m] of Σ cᵢ vᵢ, from the inner products of the vectors v [m, m]."""
    norms = np.sqrt(np.clip(np.diag(gram), 0.0, None))
    to_unit = 1.0 / (norms + eps)
    mean = weights * to_unit
    length = float(np.sqrt(max(float(mean @ gram @ mean), 0.0)))
    if length < eps:
        return weights  # directions that cancel out have no mean: the chord's is what is left
    mean = mean / length
    # tangents tᵢ = uᵢ − ⟨uᵢ, mean⟩ mean, and their weighted sum
    dots = (gram @ mean) * to_unit
    tangent = weights * to_unit - float(weights @ dots) * mean
    angle = float(np.sqrt(max(float(tangent @ gram @ tangent), 0.0))) + eps
    point = mean * np.cos(angle) + tangent * (np.sin(angle) / angle)
    result: Floats = point * float(norms @ weights)
    return result


def _form(
    gram: Floats | None,
    weights: Sequence[float],
    *,
    normalize_weights: bool,
    eps: float,
    origin: str,
) -> tuple[float, Floats]:
    assert gram is not None
    if len(weights) == 1:
        return 1.0, np.ones(1)
    if origin == "reference" and not any(weights):
        return 1.0, np.zeros(len(weights))
    shares = np.asarray(weights, dtype=np.float64)
    if normalize_weights:
        total = float(shares.sum())
        if abs(total) < 1e-8:
            raise UserError(
                "ratios_cancel",
                "The ratios of Multi-SLERP add up to zero.",
                "They are divided by their sum.",
                "Give at least one model a ratio above zero.",
            )
        shares = shares / total
    if origin == "reference":
        return 1.0, _barycentre(gram[1:, 1:], shares, eps)
    factors = _barycentre(absolute(gram), shares, eps)
    return float(factors.sum()), factors


@merge_method(
    title="Multi-SLERP",
    formula="θ = θ_o + (Σᵢ wᵢ|vᵢ|) exp_m(Σᵢ wᵢ log_m uᵢ), uᵢ = vᵢ/|vᵢ|, m = Σᵢ wᵢuᵢ normalised",
    reference="Goddard 2025, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    scope="element",
    passes=gram_pass,
    form=_form,
    backend="any",
)
def multislerp(
    x: Piece,
    *,
    normalize_weights: Annotated[
        bool, Param("Normalise ratios", "Divide the ratios by their sum.")
    ] = True,
    eps: Annotated[
        float, Param("ε", "Keeps divisions by lengths of zero finite.", 0.0, 0.1)
    ] = 1e-8,
    origin: Annotated[
        str,
        Param(
            "Centre of the sphere",
            "The reference (task vectors are interpolated) or zero (the models themselves).",
            choices={"reference": "The reference", "zero": "Zero"},
        ),
    ] = "reference",
) -> Array:
    """Take the weighted barycentre of the models on a sphere around the reference.

    Directions are projected to the plane that touches the sphere at their mean, averaged there and
    projected back; the length is the mean of the lengths. The tangents are ⟨·⟩-projections, as
    published. Goddard 2025.
    """
    form = _form(x.facts[0], x.weights, normalize_weights=normalize_weights, eps=eps, origin=origin)
    return combined(x, *form)
