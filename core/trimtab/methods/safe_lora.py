"""Safe LoRA as published: push task vectors towards the alignment vector where they leave it."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Piece
from trimtab.methods.alignment import (
    added_to_reference,
    cosine,
    each_changed,
    published_projection,
)
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="Safe LoRA (paper)",
    formula="θ = θ_a + Σᵢ rᵢ Δᵢ;  Δᵢ = C τᵢ where cos(C τᵢ, τᵢ) ≤ c, else τᵢ;  C = a aᵀ / ‖a‖_F",
    reference="Hsu et al. 2024, arXiv 2405.16833",
    scope="tensor",
    backend="any",
    needs_base=True,
)
def safe_lora(
    x: Piece,
    *,
    threshold: Annotated[
        float, Param("Cosine", "Task vectors with a smaller cosine to their image are replaced.")
    ] = 0.5,
) -> Array:
    """Replace a task vector by its image under a aᵀ/‖a‖, where the two are not alike.

    a = θ_a − θ_b is the alignment vector. The matrix is published under the name of a projector
    and is none: its square is not itself, and the change grows with the size of a. On the change
    of the weight, which for LoRA is the product of its factors, as theirs. Their other mode, which
    takes a number of layers by rank, is not here: use a threshold between two of them. Hsu et al.
    2024.
    """

    def change(ops: object, alignment: Array, delta: Array) -> Array:
        image = published_projection(alignment, delta)
        return image if cosine(image, delta) <= threshold else delta

    return added_to_reference(x, each_changed(x, change))
