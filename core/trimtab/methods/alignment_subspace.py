"""Keep of a task vector only what lies in the alignment subspace, or only what does not."""

from __future__ import annotations

from typing import Annotated

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.alignment import added_to_reference, each_changed, rank_of
from trimtab.methods.registry import Param, merge_method


@merge_method(
    title="Alignment subspace (paper)",
    formula="θ = θ_a + Σᵢ rᵢ P τᵢ, or θ_a + Σᵢ rᵢ (I − P) τᵢ;  P = U_k U_kᵀ of a, "
    "k = ⌊f · min(m, n)⌋",
    reference="Ponkshe et al. 2025, arXiv 2505.14185",
    scope="tensor",
    backend="any",
    needs_base=True,
)
def alignment_subspace(
    x: Piece,
    *,
    keep: Annotated[
        str,
        Param(
            "Keep",
            "Which part of each task vector stays.",
            choices={"outside": "What is outside", "inside": "What is inside"},
        ),
    ] = "outside",
    share: Annotated[
        float, Param("Share of directions", "How many of a's singular directions span it.")
    ] = 0.25,
) -> Array:
    """Take the part of each task vector inside, or outside, of the alignment subspace.

    The subspace is spanned by the ⌊share · min(m, n)⌋ leading left singular vectors, one at least,
    of a = θ_a − θ_b. The paper's finding is that usefulness and harm go together: what is lost on
    one side is lost on the other, so look at both. Ponkshe et al. 2025.
    """

    def change(ops: Ops, alignment: Array, delta: Array) -> Array:
        u, s, _ = ops.svd(alignment)
        k = min(max(int(share * len(s)), 1), rank_of(s, alignment.shape))
        image = u[:, :k] @ (u[:, :k].T @ delta)
        return image if keep == "inside" else delta - image

    return added_to_reference(x, each_changed(x, change))
