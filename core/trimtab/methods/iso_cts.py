"""Iso-CTS: Iso-C, with room for directions that one task alone has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from trimtab.kernels.piece import Array, Ops, Piece
from trimtab.methods.matrices import by_matrix, polar
from trimtab.methods.registry import Param, merge_method
from trimtab.methods.task_vectors import Scale


def _merge(ops: Ops, deltas: Sequence[Array], common_fraction: float) -> Array:
    u, s, vt = ops.svd(sum(deltas[1:], deltas[0]))
    full = min(deltas[0].shape)
    count = len(deltas)
    own = min(round((full - int(common_fraction * full)) / count), full // count)
    common = full - own * count
    us, ss, vts = [u[:, :common]], [s[:common]], [vt[:common]]
    for delta in deltas:
        rest = delta - us[0] @ (us[0].T @ delta)
        u, s, vt = ops.svd(rest)
        us.append(u[:, :own])
        ss.append(s[:own])
        vts.append(vt[:own])
    strength = ops.concatenate(ss, 0).mean()
    u, vt = ops.concatenate(us, 1), ops.concatenate(vts, 0)
    return (polar(ops, u) @ polar(ops, vt)) * strength


@merge_method(
    title="Iso-CTS",
    formula="τ = λ σ̄ [U_c U₁ … U_N]⊥ [V_c V₁ … V_N]⊥ᵀ, U_c of Σᵢ τᵢ, Uᵢ of τᵢ − U_c U_cᵀ τᵢ",
    reference="Marczak et al. 2025, arXiv 2502.04959",
    scope="tensor",
    backend="any",
)
def iso_cts(
    x: Piece,
    *,
    common_fraction: Annotated[
        float, Param("Common share", "Share of the directions that come from the sum.", 0.0, 1.0)
    ] = 0.8,
    scale: Scale = 1.0,
) -> Array:
    """Like Iso-C, with the weakest directions of the sum replaced by the tasks' own.

    What the tasks have besides the common subspace is divided evenly among them. Of tensors that
    are no matrices the mean of the changes is taken. Marczak et al. 2025, algorithm 1.
    """
    return by_matrix(x, lambda ops, deltas: _merge(ops, deltas, common_fraction), scale)
