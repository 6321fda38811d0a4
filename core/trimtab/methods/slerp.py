"""SLERP: go along the arc from the reference to the model instead of along the chord."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.forms import absolute, combined, gram_pass, slerp_factors
from trimtab.methods.registry import Floats, Param, merge_method


def _form(gram: Floats | None, weights: Sequence[float], *, t: float) -> tuple[float, Floats]:
    assert gram is not None
    norm2, dot = float(absolute(gram)[0, 0]), float(gram[0, 0] + gram[0, 1])
    own, other = slerp_factors(t, math.sqrt(gram[0, 0]), math.sqrt(max(norm2, 0.0)), dot, 0.9995)
    return own + other, np.array([other])


@merge_method(
    title="SLERP",
    formula="θ = sin((1−t)Ω)/sin Ω · θ_ref + sin(tΩ)/sin Ω · θ₁, cos Ω = ⟨θ_ref, θ₁⟩ / "
    "(|θ_ref| |θ₁|)",
    reference="Shoemake 1985, doi 10.1145/325334.325242",
    scope="element",
    part="member",
    takes=(1, 1),
    weighted=False,
    passes=gram_pass,
    form=_form,
    backend="any",
)
def slerp(
    x: Piece,
    *,
    t: Annotated[float, Param("t, how far", "0 is the reference, 1 the model.", -1.0, 2.0)] = 0.5,
) -> Array:
    """Interpolate between the reference and one model along the arc between them.

    Each tensor is one vector. Where the two point the same way (|cos Ω| > 0.9995) the arc is the
    chord. Shoemake 1985, section 3.3.
    """
    return combined(x, *_form(x.facts[0], x.weights, t=t))
