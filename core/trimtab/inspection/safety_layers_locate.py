"""Finds the range of blocks that refusals hang on, by scaling their weights (Li et al.)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimtab.inspection.safety_layers import Interval

REFERENCE = "Li et al. 2025, arXiv 2408.17003, section 3.3"
#: how far from 1 the factor is moved at a time, and how many times at most
_STEP = 0.05
_FARTHEST = 10
#: the spread of refusals at which a factor does, as a share of the queries: 15 of the paper's 721
_SPREAD = 15 / 721
#: how far bounds are tried on either side
_REACH = 4
#: degrees that can be seen in a plot
_NOTICED = 1.0
#: parts of the highest gap at which it begins, and by which it still must rise
_ONSET = 0.1
_RISE = 0.05

Range = tuple[int, int]
#: how many of the queries are refused when the weights of blocks [first, last] are scaled by it
Count = Callable[[int, int, float], int]


@dataclass(frozen=True)
class Located:
    """A range of blocks, first and last included and counted from 0, and how it was found.

    `baseline` queries of `queries` are refused by the model as it is. `upper` and `lower` hold
    the refusals for each bound tried, `tries` the refusals of the sweeps that chose `alpha`.
    """

    initial: Range
    alpha: float
    baseline: int
    queries: int
    upper: Mapping[int, int]
    lower: Mapping[int, int]
    tries: Mapping[float, Sequence[int]] = field(default_factory=dict)

    @property
    def located(self) -> Range | None:
        """The range found; None where scaling made no difference to what is refused."""
        counts = [*self.upper.values(), *self.lower.values()]
        if set(counts) == {self.baseline}:
            return None
        return _best(self.lower, self.baseline), _best(self.upper, self.baseline)

    def to_dict(self) -> dict[str, object]:
        """Return it ready for JSON."""
        return {
            "initial": list(self.initial),
            "located": None if self.located is None else list(self.located),
            "alpha": self.alpha,
            "baseline": self.baseline,
            "queries": self.queries,
            "upper": {str(bound): n for bound, n in self.upper.items()},
            "lower": {str(bound): n for bound, n in self.lower.items()},
            "tries": {f"{alpha:.2f}": list(counts) for alpha, counts in self.tries.items()},
        }


def initial_range(gap: Interval) -> Range | None:
    """Return the blocks from where the gap begins to its first plateau; None without a gap.

    The paper reads both off the plot. Ours: it begins at the first block with a tenth of the
    highest gap, and the plateau at the first block with half of it after which it rises by less
    than a twentieth of it. There is no gap where no block's is surely more than a degree.
    """
    if float(gap.low.max(initial=0.0)) <= _NOTICED:
        return None
    values = gap.value
    highest = float(values.max())
    first = int(np.flatnonzero(values >= _ONSET * highest)[0])
    for block in range(first, len(values) - 1):
        if values[block] >= highest / 2 and values[block + 1] - values[block] < _RISE * highest:
            return first, block
    return first, len(values) - 1


def locate(
    count: Count, initial: Range, blocks: int, queries: int, alpha: float | None = None
) -> Located:
    """Move the upper, then the lower bound of a range to where refusals move the furthest.

    To where the most queries are refused if scaling makes the model refuse more, as factors above
    1 do in the paper's models, and to where the fewest are if it makes it refuse less. Without
    `alpha` the factor is moved away from 1 in steps of 0.05, up and down in turn, until the
    refusals over the lower bounds differ: until their standard deviation reaches 15 of 721
    queries, or the factor 1.5. Bounds are tried up to 4 blocks from the initial ones, and further
    while a bound beside the best one has not been tried.
    """
    known: dict[tuple[int, int, float], int] = {}

    def refused(first: int, last: int, factor: float) -> int:
        key = (first, last, factor)
        if key not in known:
            known[key] = count(*key)
        return known[key]

    first, last = initial
    baseline = count(0, -1, 1.0)
    tries: dict[float, Sequence[int]] = {}
    factor = alpha or 1.0
    if alpha is None:
        bounds = range(max(0, first - _REACH), min(last, first + _REACH) + 1)
        for factor in _factors():
            tries[factor] = [refused(bound, last, factor) for bound in bounds]
            if float(np.std(tries[factor])) >= _SPREAD * queries:
                break
    upper = _sweep(lambda b: refused(first, b, factor), last, range(first, blocks), baseline)
    best = _best(upper, baseline)
    lower = _sweep(lambda b: refused(b, best, factor), first, range(best + 1), baseline)
    return Located(initial, factor, baseline, queries, upper, lower, tries)


def _factors() -> list[float]:
    steps = range(1, _FARTHEST + 1)
    return [round(1 + sign * step * _STEP, 2) for step in steps for sign in (1, -1)]


def _sweep(
    count: Callable[[int], int], start: int, allowed: range, baseline: int
) -> dict[int, int]:
    near = range(start - _REACH, start + _REACH + 1)
    found = {bound: count(bound) for bound in near if bound in allowed}
    while True:
        best = _best(found, baseline)
        more = [b for b in (best - 1, best + 1) if b in allowed and b not in found]
        if not more:
            return dict(sorted(found.items()))
        found |= {bound: count(bound) for bound in more}


def _best(counts: Mapping[int, int], baseline: int) -> int:
    """Return the bound where refusals have moved the furthest; the first of equals."""
    more = sum(counts.values()) >= baseline * len(counts)
    sign = 1 if more else -1
    return max(sorted(counts), key=lambda bound: sign * counts[bound])
