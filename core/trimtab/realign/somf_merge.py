"""SOMF's arithmetic in torch: Concrete masks, merges through which gradients reach every task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from trimtab.realign.somf_options import DARE_DROPS, TIES_KEEPS, Merge
from trimtab.realign.somf_units import Units

# u and 1 - u are both at least this in the logistic noise: its logarithms stay finite
_EDGE = 2.0**-24


def seeded(*key: object) -> torch.Generator:
    """Return a CPU generator that is a function of `key` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def logistic(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return log u − log(1 − u), u ~ U(0, 1): float32 of `shape`, on the CPU."""
    u = torch.rand(tuple(shape), generator=generator).clamp_(_EDGE, 1 - _EDGE)
    return u.log() - (1 - u).log()


def concrete(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return a relaxed Bernoulli sample σ((x + noise) / τ), of the logits' shape.

    Maddison et al. 2017, "The Concrete Distribution", appendix B; `noise` is logistic.
    """
    return torch.sigmoid((logits + noise) / temperature)


def masked(delta: torch.Tensor, mask: torch.Tensor, units: Units, rescale: bool) -> torch.Tensor:
    """Return m ⊙ δ, divided by the tensor's mean(m) when `rescale`: SOMF's δ̃, of δ's shape.

    `mask` has a value a unit.
    """
    wide = mask / mask.mean() if rescale else mask
    return (delta.reshape(units.view) * wide).reshape(units.shape)


def keep_largest(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return where the max(1, ⌊share · n⌋) largest magnitudes are, bool; of equals the first."""
    flat = values.detach().abs().reshape(-1)
    keep = torch.zeros_like(flat, dtype=torch.bool)
    order = torch.sort(flat, descending=True, stable=True).indices
    keep[order[: max(1, int(share * flat.numel()))]] = True
    return keep.reshape(values.shape)


def merge_changes(
    changes: Sequence[torch.Tensor],
    merge: Merge,
    scale: float,
    dropped: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the merged change of one tensor from each task's masked change δ̃ᵢ.

    single: λ δ̃₁; task_arithmetic: λ Σ δ̃ᵢ (Ilharco et al. 2023); dare: λ Σ bᵢ δ̃ᵢ / (1 − p)
    (Yu et al. 2024, eq. 3), `dropped(i)` saying where bᵢ = 0; ties: of the trimmed δ̃ᵢ, λ times
    the sum of those that agree with the sign of their sum (Yadav et al. 2023, algorithm 1).
    Which entries survive is no function of the logits to differentiate; through those that do,
    the gradient reaches every task. TIES trims tensor by tensor, as a merge by a recipe does.
    """
    if merge == "single":
        (only,) = changes
        return scale * only
    if merge == "dare":
        assert dropped is not None
        survive = 1 - DARE_DROPS
        changes = [delta.masked_fill(dropped(i), 0.0) / survive for i, delta in enumerate(changes)]
    if merge == "ties":
        trimmed = [delta * keep_largest(delta, TIES_KEEPS) for delta in changes]
        elected = torch.stack([delta.detach() for delta in trimmed]).sum(0) >= 0
        changes = [delta * ((delta.detach() > 0) == elected) for delta in trimmed]
    total = changes[0]
    for delta in changes[1:]:
        total = total + delta
    return scale * total
