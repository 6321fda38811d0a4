"""How sure a number is: intervals, paired tests, agreement, corrections, from their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BootstrapMethod = Literal["bca", "percentile"]

LEVEL = 0.95
RESAMPLES = 10_000
# So many random places are drawn at a time: 16 MB of int64, whatever the number of prompts.
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, both None where nothing was measured: no data is never 0.

    `n` counts what was measured, `k` the hits where it is a share of them. `method` names the
    interval, `note` says what the reader of it has to know. `bound` is the rule of three: where
    nothing was hit the true share is below it (95 %), where everything was hit above it.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    k: int | None = None
    bound: float | None = None
    note: str = ""


def no_data(method: str = "", note: str = "no data") -> Estimate:
    """Return the estimate of what was never measured."""
    return Estimate(None, None, None, 0, method, note=note)


def wilson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of the share k / n; all of [0, 1] where n is 0.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), z the normal quantile of (1 + level) / 2
    (Wilson 1927; Newcombe 1998, method 3). Raises ValueError unless 0 <= k <= n.
    """
    _check_counts(k, n)
    if n == 0:
        return 0.0, 1.0
    z2 = _z(level) ** 2
    p = k / n
    middle = p + z2 / (2 * n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
    # At the ends the formula gives 0 and 1 exactly; rounding would leave 1e-17 beside them.
    low = 0.0 if k == 0 else (middle - half) / (1 + z2 / n)
    high = 1.0 if k == n else (middle + half) / (1 + z2 / n)
    return low, high


def clopper_pearson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact interval of k / n: it covers with at least `level`, and often with more.

    The ends are the p at which P(X >= k) and P(X <= k) are (1 − level) / 2, X binomial
    (Clopper and Pearson 1934), found by bisection. Raises ValueError unless 0 <= k <= n.
    """
    _check_counts(k, n)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else _bisect(lambda p: 1 - _binomial_cdf(k - 1, n, p) >= tail)
    high = 1.0 if k == n else _bisect(lambda p: _binomial_cdf(k, n, p) <= tail)
    return low, high


def rule_of_three(n: int) -> float:
    """Return 3 / n, at most 1: the 95 % upper bound of a share of which n trials showed none.

    From (1 − p)^n = 0.05, hence p ≈ −ln(0.05) / n (Hanley and Lippman-Hand 1983).
    """
    if n < 0:
        raise ValueError(f"n must not be negative, is {n}")
    return 1.0 if n == 0 else min(1.0, 3 / n)


def rate(k: int, n: int, level: float = LEVEL) -> Estimate:
    """Return the share k / n with its Wilson interval, and the rule of three at either end."""
    low, high = wilson(k, n, level)
    if n == 0:
        return no_data("Wilson")
    bound = rule_of_three(n) if k == 0 else 1 - rule_of_three(n) if k == n else None
    return Estimate(k / n, low, high, n, "Wilson", k, bound)


def bootstrap_mean(
    values: Sequence[float] | Floats,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    method: BootstrapMethod = "bca",
) -> Estimate:
    """Return the mean of `values` with a bootstrap interval in which whole groups are drawn.

    `groups` says which prompt each value is of: answers to one prompt depend on each other, so
    prompts are resampled with all their values; without it each value is a group of its own. The
    statistic of a sample is (sum of its values) / (number of its values). "percentile" takes the
    quantiles of the resampled means; "bca" corrects them for bias and skewness (Efron 1987, eq.
    2.3 and 6.6, acceleration by the jackknife over groups). Same seed, same bits. One group gives
    no interval; where all groups agree the interval has no width, and `note` says so.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if groups is not None and len(groups) != len(numbers):
        raise ValueError(f"{len(numbers)} values but {len(groups)} groups")
    name = "bootstrap by prompt (" + ("BCa" if method == "bca" else "percentile") + ")"
    if not len(numbers):
        return no_data(name)
    sums, counts = _grouped(numbers, groups)
    n = len(numbers)
    mean = float(numbers.mean())
    if len(sums) == 1:
        return Estimate(mean, None, None, n, name, note="one prompt gives no interval")
    if np.ptp(sums / counts) <= 1e-12 * max(1.0, abs(mean)):
        note = "all prompts agree: the bootstrap sees no spread"
        return Estimate(mean, mean, mean, n, name, note=note)
    means = _resampled_means(sums, counts, seed, resamples)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(tails, means, mean, sums, counts)
    low, high = np.quantile(means, tails)
    return Estimate(mean, float(low), float(high), n, name)


@dataclass(frozen=True)
class PairedTable:
    """The 2 x 2 table of one yes-or-no question asked before and after of the same prompts."""

    both: int
    only_before: int
    only_after: int
    neither: int

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.both + self.only_before + self.only_after + self.neither

    def p_value(self, *, mid_p: bool = False) -> float | None:
        """McNemar's exact p; None without a pair."""
        return mcnemar(self.only_before, self.only_after, mid_p=mid_p) if self.n else None


def paired_table(before: Sequence[bool], after: Sequence[bool]) -> PairedTable:
    """Count the pairs; `before` and `after` are of the same prompts in the same order."""
    _check_pairs(before, after)
    pairs = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
    return PairedTable(
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
    )


def mcnemar(b: int, c: int, *, mid_p: bool = False) -> float:
    """Return McNemar's exact two-sided p for b pairs that changed one way and c the other.

    Under the hypothesis of no change b is binomial(b + c, ½): p = min(1, 2 P(X <= min(b, c)))
    (McNemar 1947). `mid_p` takes half the probability of what was seen away, 2 P(X <= m) − P(X =
    m), or 1 − P(X = m) / 2 where b = c: less conservative (Fagerland, Lydersen and Laake 2013).
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, are {b} and {c}")
    least, n = min(b, c), b + c
    seen = math.exp(_log_binomial(least, n) - n * math.log(2))
    two_sided = 2 * _binomial_cdf(least, n, 0.5)
    if not mid_p:
        return min(1.0, two_sided)
    return 1 - seen / 2 if b == c else two_sided - seen


def paired_difference(
    before: Sequence[bool],
    after: Sequence[bool],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    method: BootstrapMethod = "bca",
) -> Estimate:
    """Return share after − share before over pairs, with a bootstrap interval by prompt."""
    _check_pairs(before, after)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(
        differences, groups, seed, level=level, resamples=resamples, method=method
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number: max over j <= i of min(1, (m − j + 1) p_(j)).

    Holm 1979. None (not tested) stays None and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True)
class Confusion:
    """How often the first judge said row while the second said column."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def n(self) -> int:
        """Number of items."""
        return sum(map(sum, self.counts))


def confusion(
    first: Sequence[str], second: Sequence[str], labels: Sequence[str] | None = None
) -> Confusion:
    """Count pairs of labels; `labels` gives their order, else they are sorted.

    Raises ValueError for sequences of unequal length and for a label that `labels` lacks.
    """
    _check_pairs(first, second)
    names = tuple(labels) if labels is not None else tuple(sorted({*first, *second}))
    unknown = ({*first, *second}) - set(names)
    if unknown:
        raise ValueError(f"labels without a place: {sorted(unknown)}")
    place = {name: i for i, name in enumerate(names)}
    counts = [[0] * len(names) for _ in names]
    for a, b in zip(first, second, strict=True):
        counts[place[a]][place[b]] += 1
    return Confusion(names, tuple(map(tuple, counts)))


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its interval; None where it is undefined.

    `agreement` is the share of items on which both said the same, `expected` what chance gives.
    """

    value: float | None
    low: float | None
    high: float | None
    agreement: float | None
    expected: float | None
    n: int


def kappa(table: Confusion, level: float = LEVEL) -> Kappa:
    """Return κ = (p_o − p_e) / (1 − p_e) with its large-sample interval.

    Cohen 1960; variance by Fleiss, Cohen and Everitt 1969, eq. 13. Undefined without items, and
    where both judges gave all items one and the same label.
    """
    n = table.n
    if n == 0:
        return Kappa(None, None, None, None, None, 0)
    p = np.array(table.counts, dtype=np.float64) / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    agreed, expected = float(np.trace(p)), float(rows @ columns)
    if max(rows * columns) == 1:
        return Kappa(None, None, None, agreed, expected, n)
    value = (agreed - expected) / (1 - expected)
    diagonal = np.diag(p)
    on = float((diagonal * (1 - (rows + columns) * (1 - value)) ** 2).sum())
    crossed = p * (columns[:, None] + rows[None, :]) ** 2
    off = (1 - value) ** 2 * float(crossed.sum() - np.trace(crossed))
    variance = on + off - (value - expected * (1 - value)) ** 2
    error = math.sqrt(max(0.0, variance) / n) / (1 - expected)
    half = _z(level) * error
    return Kappa(value, max(-1.0, value - half), min(1.0, value + half), agreed, expected, n)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, is {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_counts(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"k of n must be 0 <= k <= n, are {k} and {n}")


def _check_pairs(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second):
        raise ValueError(f"pairs of unequal length: {len(first)} and {len(second)}")


def _log_binomial(k: int, n: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for 0 < p < 1, summed from logarithms so that large n does not underflow."""
    log_p, log_q = math.log(p), math.log1p(-p)
    terms = [math.exp(_log_binomial(i, n) + i * log_p + (n - i) * log_q) for i in range(k + 1)]
    return min(1.0, math.fsum(terms))


def _bisect(reached: Callable[[float], bool]) -> float:
    """The least p in (0, 1) at which `reached` holds, which it does from there on."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def _grouped(numbers: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of each group, in the order of first appearance."""
    if groups is None:
        return numbers, np.ones(len(numbers))
    place: dict[Hashable, int] = {}
    index = np.array([place.setdefault(group, len(place)) for group in groups])
    sums: Floats = np.bincount(index, weights=numbers).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _resampled_means(sums: Floats, counts: Floats, seed: int, resamples: int) -> Floats:
    random = np.random.default_rng(seed)
    groups = len(sums)
    step = max(1, _DRAWN_AT_ONCE // groups)
    means = []
    for start in range(0, resamples, step):
        drawn = random.integers(0, groups, (min(step, resamples - start), groups))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _bca_tails(tails: Floats, means: Floats, mean: float, sums: Floats, counts: Floats) -> Floats:
    """The quantiles that BCa takes instead of `tails`."""
    normal = NormalDist()
    below = float(((means < mean).mean() + (means <= mean).mean()) / 2)
    # All resampled means on one side would put the correction at infinity.
    below = min(max(below, 0.5 / len(means)), 1 - 0.5 / len(means))
    bias = normal.inv_cdf(below)
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    distance = left_out.mean() - left_out
    acceleration = float((distance**3).sum() / (6 * (distance**2).sum() ** 1.5))
    shifted = []
    for tail in tails:
        z = bias + normal.inv_cdf(float(tail))
        shifted.append(normal.cdf(bias + z / (1 - acceleration * z)))
    return np.array(shifted)
