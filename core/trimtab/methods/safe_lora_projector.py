"""Safe LoRA with a true projector: keep of a task vector what lies where alignment moved."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.alignment import Energy, added_to_reference, cosine, each_changed, leading
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="Safe LoRA, true projector (ours)",
    formula="θ = θ_a + Σᵢ rᵢ Δᵢ;  Δᵢ = P τᵢ where cos(P τᵢ, τᵢ) ≤ c, else τᵢ;  P = U_k U_kᵀ of a",
    reference="after Hsu et al. 2024, arXiv 2405.16833",
    scope="tensor",
    backend="any",
    needs_base=True,
)
def safe_lora_projector(
    x: Piece,
    *,
    threshold: Annotated[
        float, Param("Cosine", "Task vectors with a smaller cosine to their image are replaced.")
    ] = 0.5,
    energy: Energy = 0.9,
) -> Array:
    """Project a task vector onto the leading directions of alignment, where it leaves them.

    U_k are the leading left singular vectors of a = θ_a − θ_b that hold the share `energy` of its
    energy. Unlike the published matrix this is a projector: applied twice it changes nothing more,
    and the size of a does not count. cos(P τ, τ)² is the share of τ's energy in the subspace.
    """

    def change(ops: Ops, alignment: Array, delta: Array) -> Array:
        u = leading(ops, alignment, energy)
        image = u @ (u.T @ delta)
        return image if cosine(image, delta) <= threshold else delta

    return added_to_reference(x, each_changed(x, change))
