"""What a mask removes: entries, and of how much energy, beside what chance would remove."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.naming import module_key, parse
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.masks.outputs import Inputs, Kind, OutputEnergy, output_energy
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import STRIDE, MaskStack


@dataclass(frozen=True)
class Removed:
    """Sums over entries, of all of them and of what a mask takes away.

    Where m is the mask: `entries` of Σ(1 − m); `tau` of ‖(1 − m)·τ‖², `alignment` of ‖(1 − m)·a‖²
    with the alignment vector a, `output` of ‖X ((1 − m)·τ)ᵀ‖² with the inputs X of a Linear.
    `by_chance` is what a mask is expected to remove that takes as large a share of each tensor's
    entries at random. `output_squares` is what `output` would be of uncorrelated inputs.
    """

    entries: float = 0
    entries_removed: float = 0
    tau: float = 0
    tau_removed: float = 0
    tau_by_chance: float = 0
    alignment: float = 0
    alignment_removed: float = 0
    alignment_by_chance: float = 0
    output: float = 0
    output_removed: float = 0
    output_by_chance: float = 0
    output_squares: float = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def share(self, of: str, what: str = "removed") -> float | None:
        """Return the share removed of entries, tau, alignment or output; None of nothing."""
        total = getattr(self, of)
        return getattr(self, f"{of}_{what}") / total if total else None

    @property
    def density(self) -> float:
        """The share of entries that is kept."""
        return 1 - self.entries_removed / self.entries if self.entries else 1.0

    def to_dict(self) -> dict[str, float | None]:
        """Return sums and shares for JSON."""
        sums = {f.name: getattr(self, f.name) for f in fields(self)}
        shares: dict[str, float | None] = {"density": self.density}
        for of in ("entries", "tau", "alignment", "output"):
            shares[f"share_of_{of}"] = self.share(of)
            if of != "entries":
                shares[f"share_of_{of}_by_chance"] = self.share(of, "by_chance")
        return {**sums, **shares}


@dataclass(frozen=True)
class Account:
    """What a mask removes of one model's task vector, tensor by tensor.

    `alignment` says whether that energy is known, `output` how the output's was found: None where
    it is not known.
    """

    tensors: Mapping[str, Removed]
    alignment: bool
    output: Kind | None

    @property
    def total(self) -> Removed:
        """Over all tensors."""
        return sum(self.tensors.values(), Removed())

    def by_chance_over_all(self) -> dict[str, float | None]:
        """Return shares as a mask is expected to take that chooses as many entries of all tensors.

        The measure for masks of whole tensors, within which chance has no choice.
        """
        total = self.total
        share = total.share("entries") or 0.0
        output = OutputEnergy(total.output, 0.0, total.output_squares).by_chance(share)
        return {
            "entries": share,
            "tau": share if total.tau else None,
            "alignment": share if total.alignment else None,
            "output": output / total.output if total.output else None,
        }

    def by_layer(self) -> dict[int, Removed]:
        """By layer, -1 outside the blocks."""
        return self._grouped(_layer, int)

    def by_module(self) -> dict[str, Removed]:
        """By module."""
        return self._grouped(lambda name: parse(name).row, module_key)

    def _grouped(
        self, key: Callable[[str], Any], order: Callable[[Any], Any]
    ) -> dict[Any, Removed]:
        found: dict[Any, Removed] = {}
        for name, removed in self.tensors.items():
            found[key(name)] = found.get(key(name), Removed()) + removed
        return {k: found[k] for k in sorted(found, key=order)}

    def to_dict(self, by_tensor: bool = True) -> dict[str, Any]:
        """Return all of it for JSON, or all but what is told of each tensor."""
        return {
            "knows": {"alignment": self.alignment, "output": self.output},
            "total": self.total.to_dict(),
            "by_chance_over_all": self.by_chance_over_all(),
            "layers": {str(k): v.to_dict() for k, v in self.by_layer().items()},
            "modules": {k: v.to_dict() for k, v in self.by_module().items()},
            "tensors": {
                name: {
                    "layer": _layer(name), "module": parse(name).row, **removed.to_dict()
                }
                for name, removed in (self.tensors.items() if by_tensor else ())
            },
        }  # fmt: skip


def _layer(name: str) -> int:
    layer = parse(name).layer
    return -1 if layer is None else layer


def take_account(
    stack: MaskStack,
    vector: TaskVector,
    lineup: Lineup,
    reader: TensorReader,
    control: Control,
    *,
    inputs: Inputs | None = None,
) -> Account:
    """Read a task vector, and the alignment vector where there is one, and add up what is removed.

    With `inputs` also of what it adds to the outputs of Linears, before any rescaling. Sums are
    float64 over pieces of fixed size, so they do not depend on threads. Tensors that the model
    shares with the reference, as an adapter does most, have no entries in it.
    """
    control.stage("Adding up", len(vector.names))

    def one(name: str) -> Removed:
        found = _one(name, stack, vector, _alignment(lineup, name), reader, control, inputs)
        control.advance(1)
        return found

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="account") as pool:
        futures = [pool.submit(one, name) for name in vector.names]
        try:
            found = [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
    return Account(
        dict(zip(vector.names, found, strict=True)), lineup.has_alignment,
        inputs.kind if inputs is not None else None,
    )  # fmt: skip


def _alignment(lineup: Lineup, name: str) -> tuple[Source, Source] | None:
    """Return the aligned and the base model's tensor, None where alignment changed nothing."""
    if not lineup.has_alignment or lineup.base is None:
        return None
    aligned, base = lineup.source(name, lineup.reference), lineup.source(name, lineup.base)
    if aligned is None or base is None or aligned.same_bytes_as(base):
        return None
    return aligned, base


def _one(
    name: str,
    stack: MaskStack,
    vector: TaskVector,
    alignment: tuple[Source, Source] | None,
    reader: TensorReader,
    control: Control,
    inputs: Inputs | None,
) -> Removed:
    numel = math.prod(vector.shape(name))
    mask = stack.of(name, vector.shape(name))
    gone = 0.0
    sums = np.zeros((2, 2))  # tau, alignment; all, removed
    for low, high in pairwise([*range(0, numel, STRIDE), numel]):
        control.check()
        away = _away(mask, low, high)
        gone += float(away.sum()) if isinstance(away, np.ndarray) else away * (high - low)
        tau = vector.read(name, low, high)
        sums[0] += _energies(tau, away)
        if alignment is not None:
            a = reader.read(alignment[0], low, high)
            a -= reader.read(alignment[1], low, high)
            sums[1] += _energies(a, away)
    share = gone / numel if numel else 0.0
    (tau_all, tau_gone), (a_all, a_gone) = sums.tolist()
    output = OutputEnergy()
    if inputs is not None:
        output = output_energy(name, vector, mask, inputs, control)
    return Removed(
        numel, gone, tau_all, tau_gone, share * tau_all, a_all, a_gone, share * a_all,
        output.total, output.removed, output.by_chance(share), output.squares,
    )  # fmt: skip


def _away(mask: Any, low: int, high: int) -> npt.NDArray[np.float64] | float:
    if isinstance(mask, bool):
        return 0.0 if mask else 1.0
    away: npt.NDArray[np.float64] = 1 - mask.shares(low, high).astype(np.float64)
    return away


def _energies(
    values: npt.NDArray[np.float32], away: npt.NDArray[np.float64] | float
) -> tuple[float, float]:
    """Return Σ v² and Σ ((1 − m)·v)², in float64."""
    squares = values.astype(np.float64) ** 2
    return float(squares.sum()), float((squares * away**2).sum())
