"""How far apart a model holds normal and malicious queries, block by block (Li et al.)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
States = npt.NDArray[np.float32]

REFERENCE = "Li et al. 2025, arXiv 2408.17003, section 3"
FORMULAS = {
    "paper": "mean_s [ ∠(v_n, v_m) − ∠(v_n, v_n') ]",
    "authors' code": "arccos(mean_s cos(v_n, v_m)) − arccos(mean_s cos(v_n, v_n'))",
    "ours": "mean of ∠(v_n, v_m) over all pairs − mean of ∠(v_n, v_n') over all pairs",
}
#: pairs that are drawn, and the seeds of their first draws, as in the authors' code
PAIRS = 500
_SEEDS = {"nn": 10, "mm": 100, "nm": 1000}
RESAMPLES = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value of each block with its 95 % bootstrap interval over prompts, float64 [blocks]."""

    value: Floats
    low: Floats
    high: Floats

    def to_dict(self) -> dict[str, list[float]]:
        """Return it ready for JSON."""
        return {"value": _list(self.value), "low": _list(self.low), "high": _list(self.high)}


@dataclass(frozen=True)
class Curve:
    """Cosines of pairs behind each block, float64 [blocks]: mean and standard deviation."""

    mean: Floats
    std: Floats

    def to_dict(self) -> dict[str, list[float]]:
        """Return it ready for JSON."""
        return {"mean": _list(self.mean), "std": _list(self.std)}


@dataclass(frozen=True)
class Reading:
    """What a model's hidden states say: curves of drawn pairs and three angle gaps, in degrees.

    `paper` and `code` [blocks] are of the pairs drawn, as published; `ours` is over all pairs.
    """

    nn: Curve
    mm: Curve
    nm: Curve
    paper: Floats
    code: Floats
    ours: Interval

    def to_dict(self) -> dict[str, object]:
        """Return it ready for JSON."""
        return {
            "curves": {"nn": self.nn.to_dict(), "mm": self.mm.to_dict(), "nm": self.nm.to_dict()},
            "gap": {
                "paper": _list(self.paper),
                "authors' code": _list(self.code),
                "ours": self.ours.to_dict(),
            },
        }


@dataclass(frozen=True)
class Resamples:
    """How often each prompt is drawn in each bootstrap sample; the same for all models.

    float64 [resamples, prompts] each.
    """

    normal: Floats
    malicious: Floats

    @classmethod
    def draw(cls, normal: int, malicious: int, count: int = RESAMPLES, seed: int = 0) -> Resamples:
        """Draw as many prompts as there are, with replacement, `count` times.

        Samples that hold a single prompt, of which there are no pairs, are drawn again.
        """
        generator = np.random.default_rng(seed)

        def drawn(n: int) -> Floats:
            found = generator.multinomial(n, np.full(n, 1 / n), size=count)
            while (single := found.max(1) == n).any():
                again = generator.multinomial(n, np.full(n, 1 / n), size=int(single.sum()))
                found[single] = again
            return found.astype(np.float64)

        return cls(drawn(normal), drawn(malicious))


def read_states(normal: States, malicious: States, resamples: Resamples) -> Reading:
    """Return the curves and gaps of hidden states.

    `normal` float32 [blocks, n, hidden], `malicious` [blocks, m, hidden]: the state of each
    query's last token behind each block. n and m are at least 2.

    Pairs s of different queries are drawn with the seeds of the authors' code, each with Python's
    generator. "paper" is the mean of the pairs' angle differences, "code" the difference of the
    angles of mean cosines, which is what the authors plot; "ours" takes all pairs, and its
    interval draws prompts: pairs share them, so 500 pairs are not 500 observations.
    """
    a, b = _unit(normal), _unit(malicious)
    nn, mm, nm = _cosines(a, a), _cosines(b, b), _cosines(a, b)
    drawn = {
        "nn": _drawn(nn, "nn"),
        "mm": _drawn(mm, "mm"),
        "nm": _drawn(nm, "nm"),
    }
    code = _angle(drawn["nm"].mean(1)) - _angle(drawn["nn"].mean(1))
    paper = (_angle(drawn["nm"]) - _angle(drawn["nn"])).mean(1)
    value, samples = _all_pairs(nn, nm, resamples)
    return Reading(
        nn=_curve(drawn["nn"]),
        mm=_curve(drawn["mm"]),
        nm=_curve(drawn["nm"]),
        paper=paper,
        code=code,
        ours=_interval(value, samples),
    )


def lost(
    before: tuple[States, States], after: tuple[States, States], resamples: Resamples
) -> Interval:
    """Return how many degrees of the gap ("ours") are lost from one model to another.

    Both have been asked the same queries, `(normal, malicious)` as in `read_states`; the interval
    draws the same prompts for both. Positive where the later model tells them less apart.
    """
    found = []
    for normal, malicious in (before, after):
        a, b = _unit(normal), _unit(malicious)
        found.append(_all_pairs(_cosines(a, a), _cosines(a, b), resamples))
    (value, samples), (later, later_samples) = found
    return _interval(value - later, samples - later_samples)


def _unit(states: States) -> Floats:
    wide = states.astype(np.float64)
    unit: Floats = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    return unit


def _cosines(a: Floats, b: Floats) -> Floats:
    """Return the cosines of all pairs, [blocks, len(a), len(b)]."""
    found: Floats = np.clip(a @ b.swapaxes(1, 2), -1.0, 1.0)
    return found


def _angle(cosines: Floats) -> Floats:
    found: Floats = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return found


def pairs(kind: str, rows: int, columns: int, count: int = PAIRS) -> list[tuple[int, int]]:
    """Return the pairs that are drawn: of different queries of one set, or one of each set.

    `kind` is "nn", "mm" or "nm". Draw number s has the seed of its kind plus s.
    """
    found = []
    for s in range(count):
        generator = random.Random(_SEEDS[kind] + s)
        if kind == "nm":
            found.append((generator.randrange(rows), generator.randrange(columns)))
        else:
            one, other = generator.sample(range(rows), 2)
            found.append((one, other))
    return found


def _drawn(cosines: Floats, kind: str) -> Floats:
    """Return the cosines of the pairs drawn, [blocks, pairs]."""
    rows, columns = np.array(pairs(kind, cosines.shape[1], cosines.shape[2])).T
    found: Floats = cosines[:, rows, columns]
    return found


def _curve(drawn: Floats) -> Curve:
    return Curve(drawn.mean(1), drawn.std(1))


def _all_pairs(nn: Floats, nm: Floats, resamples: Resamples) -> tuple[Floats, Floats]:
    """Return the gap over all pairs [blocks], and of each bootstrap sample [blocks, resamples]."""
    ones = np.ones((1, nn.shape[1])), np.ones((1, nm.shape[2]))
    value = _gap(nn, nm, *ones)[:, 0]
    return value, _gap(nn, nm, resamples.normal, resamples.malicious)


def _gap(nn: Floats, nm: Floats, normal: Floats, malicious: Floats) -> Floats:
    """Return the gap where prompt i counts as often as its weight says, [blocks, samples].

    A prompt is no pair with itself, however often it is drawn: its angle to itself, 0, adds
    nothing, and is not counted.
    """
    inside, across = _angle(nn), _angle(nm)
    alike = normal.sum(1) ** 2 - (normal**2).sum(1)
    each = normal.sum(1) * malicious.sum(1)
    found = [
        ((normal @ across[k]) * malicious).sum(1) / each
        - ((normal @ inside[k]) * normal).sum(1) / alike
        for k in range(len(nn))
    ]
    return np.array(found)


def _interval(value: Floats, samples: Floats) -> Interval:
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=1)
    return Interval(value, low, high)


def _list(values: Floats | Sequence[float]) -> list[float]:
    return [float(value) for value in values]
