"""Second moments at every Linear by groups of examples, handed on a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import linear

from trimtab.activations.blocks import Site
from trimtab.activations.second_moments import Floats, Moments
from trimtab.activations.statistics import Which
from trimtab.activations.stream import Watch
from trimtab.activations.tokens import Batch

#: weight [out, in] and bias [out] of a Linear, float64
Layer = tuple[Floats, Floats | None]


@dataclass
class _Sums:
    gram: torch.Tensor
    total: torch.Tensor
    count: list[int]


class MomentWatch(Watch):
    """Adds up Σ z zᵀ and Σ z for each group of examples, in float64.

    z are a Linear's inputs, or its outputs where those are fewer. `group_of` says which of the
    groups 0 to `groups` − 1 each example of the set is in. When a block is done, `take(site,
    moments by group)` hears of each of its Linears, and then the sums are forgotten. What a block
    takes is groups · n² · 8 bytes for each different z of n numbers.
    """

    def __init__(
        self,
        group_of: Sequence[int],
        groups: int,
        which: Which,
        layer: Callable[[Site], Layer],
        take: Callable[[Site, list[Moments]], None],
    ):
        self._group_of = np.array(group_of)
        self._groups = groups
        self._which = which
        self._layer = layer
        self._take = take
        self._sums: dict[Site, _Sums] = {}
        self._leaders: dict[Site, Site] = {}
        self._shown: tuple[Site, torch.Tensor] | None = None
        self._layers: dict[Site, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """Add a batch's inputs or outputs; inputs that several Linears share count once."""
        if _by_outputs(site):
            self._add(site, self._outputs(site, inputs.float()), batch)
            return
        if self._shown is not None and self._shown[1] is inputs:
            self._leaders[site] = self._shown[0]
            return
        self._shown = (site, inputs)
        self._leaders[site] = site
        self._add(site, inputs.float(), batch)

    def _outputs(self, site: Site, inputs: torch.Tensor) -> torch.Tensor:
        if site not in self._layers:
            weight, bias = self._layer(site)
            self._layers[site] = (
                torch.from_numpy(weight).float().to(inputs.device),
                None if bias is None else torch.from_numpy(bias).float().to(inputs.device),
            )
        return linear(inputs, *self._layers[site])

    def _add(self, site: Site, z: torch.Tensor, batch: Batch) -> None:
        n, groups = z.shape[-1], self._groups
        if site not in self._sums:
            gram = torch.zeros((groups, n, n), dtype=torch.float64, device=z.device)
            total = torch.zeros((groups, n), dtype=torch.float64, device=z.device)
            self._sums[site] = _Sums(gram, total, [0] * groups)
        sums, of = self._sums[site], self._group_of[list(batch.places)]
        for group in np.unique(of).tolist():
            rows = torch.from_numpy(np.flatnonzero(of == group))
            part = z[rows.to(z.device)]
            if self._which == "answers":
                part = part[batch.answer[rows].to(z.device)]
            else:
                part = part.flatten(0, 1)
            sums.gram[group] += (part.T @ part).double()
            sums.total[group] += part.double().sum(0)
            sums.count[group] += len(part)

    def done(self, block: int) -> None:
        """Hand on what the block has shown, Linear by Linear, and forget it."""
        for site in self._leaders | {site: site for site in self._sums}:
            sums = self._sums[self._leaders.get(site, site)]
            weight, bias = (None, None) if _by_outputs(site) else self._layer(site)
            moments = [
                Moments(
                    sums.gram[g].cpu().numpy(), sums.total[g].cpu().numpy(), sums.count[g],
                    weight, bias,
                )
                for g in range(self._groups)
            ]  # fmt: skip
            self._take(site, moments)
        for kept in (self._sums, self._leaders, self._layers):
            kept.clear()
        self._shown = None


def _by_outputs(site: Site) -> bool:
    rows, columns = site.shape[::-1] if site.transposed else site.shape
    return rows < columns
