"""The primitives in torch's own operations: for GPUs, and where numba is not to be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.kernels.piece import Counts

_WORD = 0xFFFFFFFF
_UNIT = 4294967296.0


def _bits(values: Tensor) -> Tensor:
    """The bits of |values| as int32: they sort as the magnitudes do."""
    return values.view(torch.int32) & 0x7FFFFFFF


def random_words(key: int, start: int, count: int, device: torch.device) -> Tensor:
    """Return the random words of flat indices [start, start + count) as int64 [count].

    Philox4x32-10 (Salmon et al. 2011, section 4.3), laid out as in `compiled.random_words`.
    """
    first, last = start >> 12, (start + count + 4095) >> 12
    groups = torch.arange(first, last, dtype=torch.int64, device=device)
    counter = (groups[:, None] << 10) | torch.arange(1024, dtype=torch.int64, device=device)
    x0, x1 = counter & _WORD, (counter >> 32) & _WORD
    x2 = x3 = torch.zeros_like(counter)
    k0, k1 = key & _WORD, key >> 32
    for _ in range(10):
        p0, p1 = x0 * 0xD2511F53, x2 * 0xCD9E8D57
        x0, x2 = ((p1 >> 32) & _WORD) ^ x1 ^ k0, ((p0 >> 32) & _WORD) ^ x3 ^ k1
        x1, x3 = p1 & _WORD, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    words = torch.stack([x0, x1, x2, x3], dim=1).flatten()
    begin = start - (first << 12)
    return words[begin : begin + count]


class TorchOps:
    """`Ops` on torch tensors of one device."""

    name = "torch"

    def copy(self, values: Tensor) -> Tensor:
        return values.clone()

    def zeros_like(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values)

    def double(self, values: Tensor) -> Tensor:
        return values.double()

    def single(self, values: Tensor) -> Tensor:
        return values.float()

    def where(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        return torch.where(condition, yes, no)

    def exp(self, values: Tensor) -> Tensor:
        return torch.exp(values)

    def log(self, values: Tensor) -> Tensor:
        return torch.log(values)

    def sin(self, values: Tensor) -> Tensor:
        return torch.sin(values)

    def arccos(self, values: Tensor) -> Tensor:
        return torch.arccos(values)

    def row_max(self, rows: Tensor) -> Tensor:
        return rows.amax(dim=-1, keepdim=True)

    def svd(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, vt

    def concatenate(self, arrays: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(arrays), dim=axis)

    def subtract(self, values: Tensor, other: Tensor) -> None:
        values.sub_(other)

    def add(self, values: Tensor, other: Tensor) -> None:
        values.add_(other)

    def scale(self, values: Tensor, factor: float) -> None:
        values.mul_(factor)

    def add_scaled(self, values: Tensor, other: Tensor, factor: float) -> None:
        # not `alpha=`: a fused multiply-add would round once instead of twice
        values.add_(other * factor)

    def dot(self, left: Tensor, right: Tensor) -> float:
        return float((left.double() * right.double()).sum())

    def gram(self, reference: Tensor, models: Sequence[Tensor], changes_only: bool = False) -> Any:
        vectors = [reference, *(model - reference for model in models)]
        found = np.full((len(vectors), len(vectors)), np.nan)
        for i in range(int(changes_only), len(vectors)):
            for j in range(i, len(vectors)):
                found[i, j] = found[j, i] = self.dot(vectors[i], vectors[j])
        return found

    def absolute_sum(self, values: Tensor) -> float:
        return float(values.double().abs().sum())

    def count_high(self, values: Tensor, counts: Counts) -> None:
        bits = _bits(values)
        bins = (bits >> 15 << 1) | ((bits & 0x7FFF) != 0)
        counts += torch.bincount(bins, minlength=1 << 17).cpu().numpy()

    def count_change(self, reference: Tensor, model: Tensor, counts: Counts) -> None:
        self.count_high(model - reference, counts)

    def count_low(self, values: Tensor, high: int, counts: Counts) -> None:
        bits = _bits(values)
        chosen = bits[(bits >> 15) == high] & 0x7FFF
        counts += torch.bincount(chosen, minlength=1 << 15).cpu().numpy()

    def count_nonzero(self, values: Tensor) -> int:
        return int((values != 0).sum())

    def variance(self, rows: Sequence[Tensor]) -> Tensor:
        mean = rows[0].clone()
        for row in rows[1:]:
            mean.add_(row)
        mean.mul_(1.0 / len(rows))
        total = torch.zeros_like(mean)
        for row in rows:
            apart = row - mean
            total.add_(apart * apart)
        return total.mul_(1.0 / len(rows))

    def keep_where(self, values: Tensor, chosen: Tensor) -> None:
        values.masked_fill_(chosen == 0, 0.0)

    def drop_below(self, values: Tensor, key: int, first: int, room: int) -> int:
        bits = _bits(values)
        at = bits == key
        equal = int(at.sum())
        if first >= room:
            values.masked_fill_(bits <= key, 0.0)
        elif first + equal <= room:
            values.masked_fill_(bits < key, 0.0)
        else:
            order = torch.cumsum(at, 0) + first
            values.masked_fill_((bits < key) | (at & (order > room)), 0.0)
        return first + equal

    def drop_above(self, values: Tensor, key: int, first: int, room: int) -> int:
        bits = _bits(values)
        at = bits == key
        order = torch.cumsum(at, 0) + first
        values.masked_fill_((bits > key) | (at & (order <= room)), 0.0)
        return first + int(at.sum())

    def drop_random(self, values: Tensor, p: float, key: int, start: int) -> None:
        words = random_words(key, start, values.numel(), values.device)
        # a whole number: compared to a float, the words would be rounded to float32
        values.masked_fill_(words >= math.ceil(p * _UNIT), 0.0)

    def drop_by_rank(
        self,
        values: Tensor,
        width: int,
        low: float,
        step: float,
        key: int,
        start: int,
        rescale: bool,
    ) -> None:
        rows = values.view(-1, width)
        words = random_words(key, start, values.numel(), values.device).view(-1, width)
        order = torch.argsort(rows.abs(), dim=1, stable=True)
        p = torch.arange(width, dtype=torch.float64, device=values.device) * step + low
        by_place = torch.empty_like(rows, dtype=torch.float64)
        by_place.scatter_(1, order, p.expand_as(rows))
        if rescale:
            rows.div_(by_place.float())
        rows.masked_fill_(words >= by_place * _UNIT, 0.0)

    def agree(
        self, total: Tensor, value: Tensor, weight: float, mixed: Tensor, divisor: Tensor
    ) -> None:
        same = torch.where(total >= 0, value > 0, value < 0)
        mixed.add_(torch.where(same, value, 0.0))
        divisor.add_(torch.where(same, weight, 0.0))

    def elect(
        self,
        reference: Tensor,
        deltas: Sequence[Tensor],
        factors: Sequence[float],
        shares: Sequence[float],
        normalize: bool,
        scale: float,
        plain_vote: bool = False,
    ) -> Tensor:
        def total_of() -> Tensor:
            total = deltas[0].clone()
            for delta in deltas[1:]:
                total.add_(delta)
            return total

        total = total_of() if plain_vote else None
        for delta, factor in zip(deltas, factors, strict=True):
            self.scale(delta, factor)
        total = total_of() if total is None else total
        mixed, divisor = torch.zeros_like(total), torch.zeros_like(total)
        for delta, share in zip(deltas, shares, strict=True):
            self.agree(total, delta, share, mixed, divisor)
        if normalize:
            self.divide_where(mixed, divisor)
        return mixed.mul_(scale).add_(reference)

    def divide_where(self, values: Tensor, divisor: Tensor) -> None:
        values.div_(torch.where(divisor != 0, divisor, 1.0))

    def pack_nonzero(self, values: Tensor) -> Any:
        return np.packbits((values != 0).cpu().numpy())

    def keep_packed(self, values: Tensor, bits: Any) -> None:
        kept = torch.from_numpy(np.unpackbits(bits, count=values.numel()))
        values.masked_fill_(kept.to(values.device) == 0, 0.0)

    def take_packed(self, values: Tensor, other: Tensor, bits: Any) -> None:
        # unpacked where the work is done: an eighth of a byte goes over the bus
        packed = torch.from_numpy(bits).to(values.device)
        places = torch.arange(8, dtype=torch.uint8, device=values.device)
        kept = ((packed[:, None] >> places) & 1).view(-1)[: values.numel()]
        flat = values.view(-1)
        flat.copy_(torch.where(kept != 0, flat, other.view(-1)))

    def blend(self, values: Tensor, other: Tensor, shares: Any) -> None:
        share = torch.from_numpy(shares).to(values.device)
        flat, rest = values.view(-1), other.view(-1)
        mixed = rest + share * (flat - rest)
        flat.copy_(torch.where(share == 0, rest, torch.where(share == 1, flat, mixed)))

    def random_words(self, key: int, start: int, count: int) -> Any:
        return random_words(key, start, count, torch.device("cpu")).numpy().astype(np.uint32)
