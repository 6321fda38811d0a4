"""Model Stock: towards the centre of the fine-tuned models, by how much they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from trimtab.kernels.piece import Array, Outline, Pass, Piece
from trimtab.methods.forms import changes_pass, combined
from trimtab.methods.registry import Floats, Param, Scope, merge_method


def _ratio(cosine: Any, count: int) -> Any:
    return count * cosine / (1 + (count - 1) * cosine)


def _form(
    gram: Floats | None, weights: Sequence[float], *, filter_wise: bool
) -> tuple[float, Floats] | None:
    if filter_wise:
        return None
    assert gram is not None
    count = len(weights)
    norms = np.sqrt(np.diag(gram)[1:])
    cosines = [
        np.clip(gram[1 + i, 1 + j] / (norms[i] * norms[j] or 1.0), -1.0, 1.0)
        for i in range(count)
        for j in range(i + 1, count)
    ]
    cosine = float(np.mean(cosines))
    # where opposite changes make the estimate infinite the reference stays
    singular = abs(1 + (count - 1) * cosine) < 1e-6
    ratio = 0.0 if singular else _ratio(cosine, count)
    return 1.0, np.full(count, ratio / count)


def _passes(outline: Outline, *, filter_wise: bool) -> Sequence[Pass]:
    return () if filter_wise else changes_pass(outline)


def _scope(*, filter_wise: bool) -> Scope:
    return "row" if filter_wise else "element"


@merge_method(
    title="Model Stock",
    formula="θ = t θ̄ + (1−t) θ_ref, t = N cos Ω / (1 + (N−1) cos Ω), Ω = mean angle between the τᵢ",
    reference="Jang et al. 2024, arXiv 2403.19522",
    scope=_scope,
    takes=(2, None),
    weighted=False,
    passes=_passes,
    form=_form,
    backend="any",
)
def model_stock(
    x: Piece,
    *,
    filter_wise: Annotated[
        bool, Param("Row by row", "An angle for each row instead of one for the tensor.")
    ] = False,
) -> Array:
    """Move from the reference towards the models' mean, the more the better they agree.

    Where the changes point in all directions there is nothing to follow and the reference stays.
    Jang et al. 2024, equation 6.
    """
    form = _form(None if filter_wise else x.facts[0], x.weights, filter_wise=filter_wise)
    if form is not None:
        return combined(x, *form)
    deltas = [x.ops.double(delta).reshape(-1, x.width) for delta in x.deltas()]
    norms = [(d * d).sum(-1, keepdims=True) ** 0.5 for d in deltas]
    total, pairs = None, 0
    for i, left in enumerate(deltas):
        for j in range(i + 1, len(deltas)):
            dot = (left * deltas[j]).sum(-1, keepdims=True)
            product = norms[i] * norms[j]
            cosine = (dot / x.ops.where(product > 0, product, product + 1)).clip(-1.0, 1.0)
            total, pairs = (cosine if total is None else total + cosine), pairs + 1
    assert total is not None
    cosine, count = total / pairs, len(deltas)
    singular = abs(1 + (count - 1) * cosine) < 1e-6
    ratio = _ratio(x.ops.where(singular, cosine * 0, cosine), count)
    moved = sum(deltas[1:], deltas[0]) * (ratio / count)
    merged = x.ops.single(moved.reshape(x.reference.shape))
    x.ops.add(merged, x.reference)
    return merged
