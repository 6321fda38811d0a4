"""Antidote's arithmetic: which entries of a row score highest, and what removing them takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Variant = Literal["delta-revert", "weight-zeroing", "lora-space"]
VARIANTS: tuple[Variant, ...] = ("delta-revert", "weight-zeroing", "lora-space")
#: entries that are ranked at once
_RANKED = 1 << 22


def pruned_in_row(inputs: int, alpha: float) -> int:
    """Return how many of a row's entries are pruned: in − ⌊in · (1 − α)⌋, as the authors count.

    The floor takes from what is kept: for any α above 0 at least one entry of every row is pruned.
    """
    return inputs - int(inputs * (1 - alpha))


def highest(scores: Floats, alpha: float) -> Bools:
    """Return where the highest scores of each row are, bool [out, in].

    Of equal scores the last in the row count as the higher ones, as in an ascending stable sort of
    which the first ⌊in · (1 − α)⌋ are kept.
    """
    rows, inputs = scores.shape
    kept = inputs - pruned_in_row(inputs, alpha)
    found = np.zeros(scores.shape, dtype=np.bool_)
    step = max(1, _RANKED // max(inputs, 1))
    for low in range(0, rows, step):
        part = scores[low : low + step]
        order = np.argsort(part, axis=1, kind="stable")[:, kept:]
        np.put_along_axis(found[low : low + step], order, True, axis=1)
    return found


def wanda(weight: Floats, norms: Floats, transposed: bool = False) -> Floats:
    """Return |W| · ‖X_j‖, float32 of the weight's shape; `norms` is float32 [in].

    Sun et al. 2023, "A Simple and Effective Pruning Approach", equation 1; on Δ in place of W it
    is delta-Wanda. `transposed` weights are stored [in, out].
    """
    scores: Floats = np.abs(weight) * (norms[:, None] if transposed else norms[None, :])
    return scores


def matched_at_random(energy: Floats, target: float, seed: int, name: str) -> Bools:
    """Return random entries whose energy adds up to `target`: the control of a mask.

    `energy` holds each entry's own, of any shape. Entries are taken in a random order until the
    next one would lead further from the target than it is; the last one taken is the tolerance.
    """
    flat = energy.reshape(-1)
    digest = hashlib.blake2b(f"antidote {seed} {name}".encode(), digest_size=16).digest()
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    order = random.permutation(flat.size)
    sums = np.cumsum(flat[order], dtype=np.float64)
    count = int(np.searchsorted(sums, target, "left"))
    if count < flat.size:
        before = sums[count - 1] if count else 0.0
        count += int(sums[count] - target < target - before)
    found = np.zeros(flat.size, dtype=np.bool_)
    found[order[:count]] = True
    return found.reshape(energy.shape)


@dataclass(frozen=True)
class Removed:
    """What was taken from one tensor, and what the control took.

    `energy` and `output` are (removed, all): sums of squares of the entries, and of the entries
    times the norms of their inputs, which is the energy of what they add to the outputs as long as
    inputs are uncorrelated.
    """

    entries: int
    pruned: int
    energy: tuple[float, float]
    output: tuple[float, float]
    control_pruned: int
    control_energy: float
    control_output: float

    def to_dict(self) -> dict[str, Any]:
        """Return counts and shares, ready for JSON."""

        def share(part: float, whole: float) -> float:
            return part / whole if whole else 0.0

        return {
            "entries": self.entries,
            "pruned": self.pruned,
            "sparsity": share(self.pruned, self.entries),
            "energy": share(*self.energy),
            "output_energy": share(*self.output),
            "control": {
                "pruned": self.control_pruned,
                "sparsity": share(self.control_pruned, self.entries),
                "energy": share(self.control_energy, self.energy[1]),
                "output_energy": share(self.control_output, self.output[1]),
            },
        }


def added_up(parts: list[Removed]) -> Removed:
    """Return the sum over tensors."""
    return Removed(
        sum(p.entries for p in parts),
        sum(p.pruned for p in parts),
        (sum(p.energy[0] for p in parts), sum(p.energy[1] for p in parts)),
        (sum(p.output[0] for p in parts), sum(p.output[1] for p in parts)),
        sum(p.control_pruned for p in parts),
        sum(p.control_energy for p in parts),
        sum(p.control_output for p in parts),
    )


def removed(values: Floats, scores: Floats, pruned: Bools, control: Bools) -> Removed:
    """Return what removing `pruned` takes of `values`, beside what the control takes.

    `scores` are |values| times the norms of their inputs.
    """
    energy = np.square(values, dtype=np.float64)
    output = np.square(scores, dtype=np.float64)
    return Removed(
        values.size,
        int(pruned.sum()),
        (float(energy[pruned].sum()), float(energy.sum())),
        (float(output[pruned].sum()), float(output.sum())),
        int(control.sum()),
        float(energy[control].sum()),
        float(output[control].sum()),
    )
