"""Names, formulas and references of what is shown per tensor: one source for every text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from trimtab.inspection.result import Floats, Inspection

#: what a metric is computed from
Found = TypeVar("Found")


@dataclass(frozen=True)
class Metric(Generic[Found]):
    """A number per tensor or group.

    `compute(found, i)` returns float64 [n] for fine-tuned model `i`, nan where undefined or not
    known yet. `signed` metrics are drawn around zero. `expected(found, i)`, where there is one, is
    what chance would give, and is always shown beside the metric.
    """

    id: str
    title: str
    sentence: str
    formula: str
    value_range: str
    reference: str
    signed: bool
    needs_alignment: bool
    compute: Callable[[Found, int], Floats]
    expected: Callable[[Found, int], Floats] | None = None


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return numerator / denominator, nan where the latter is not above zero; float64 [n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = np.where(denominator > 0, numerator / denominator, np.nan)
    return result


def tau_norm(sums: Inspection, i: int) -> Floats:
    """|tau_i|, float64 [n]."""
    return np.sqrt(sums.gram[:, i + 1, i + 1])


def alignment_norm(sums: Inspection, i: int = 0) -> Floats:
    """|a|, float64 [n]."""
    return np.sqrt(sums.gram[:, 0, 0])


def relative_norm(sums: Inspection, i: int) -> Floats:
    """|tau_i| / |theta|, float64 [n]."""
    return ratio(tau_norm(sums, i), np.sqrt(sums.norm2))


def cosine(sums: Inspection, i: int) -> Floats:
    """cos(tau_i, a), float64 [n]."""
    return ratio(sums.gram[:, 0, i + 1], tau_norm(sums, i) * alignment_norm(sums))


def rollback(sums: Inspection, i: int) -> Floats:
    """-<tau_i, a> / |a|^2, float64 [n]."""
    return ratio(-sums.gram[:, 0, i + 1], sums.gram[:, 0, 0])


def sign_conflict(sums: Inspection, i: int) -> Floats:
    """Share of entries where tau_i and a have opposite signs, float64 [n]."""
    share = ratio(sums.conflicts[:, i].astype(np.float64), sums.numel.astype(np.float64))
    return np.where(np.isnan(sums.gram[:, 0, 0]), np.nan, share)


def zero_share(sums: Inspection, i: int) -> Floats:
    """Share of entries where tau_i is exactly zero, float64 [n]; nan for what is no number."""
    share = ratio(sums.zeros[:, i].astype(np.float64), sums.numel.astype(np.float64))
    return np.where(sums.not_numbers, np.nan, share)


_TASK_ARITHMETIC = "Ilharco et al. 2023, arXiv 2212.04089"
_OURS = "Trimtab's own definition"

METRICS: tuple[Metric[Inspection], ...] = (
    Metric(
        "relative", "Relative change |τ| / |θ|",
        "How far fine-tuning moved the weights, measured by their own size.",
        "|τ| / |θ|, τ = θ_fine-tuned − θ_reference", "0 and up", _TASK_ARITHMETIC,
        False, False, relative_norm,
    ),
    Metric(
        "tau", "Task vector norm |τ|",
        "The length of the change that fine-tuning made.",
        "|τ| = √Σ τ², τ = θ_fine-tuned − θ_reference", "0 and up", _TASK_ARITHMETIC,
        False, False, tau_norm,
    ),
    Metric(
        "alignment", "Alignment vector norm |a|",
        "The length of the change that alignment made.",
        "|a| = √Σ a², a = θ_aligned − θ_base", "0 and up", _OURS,
        False, True, alignment_norm,
    ),
    Metric(
        "cosine", "Angle cos(τ, a)",
        "Whether fine-tuning moved with alignment (above 0) or against it (below 0).",
        "⟨τ, a⟩ / (|τ| |a|)", "−1 to 1", _OURS, True, True, cosine,
    ),
    Metric(
        "rollback", "Rollback of alignment",
        "How much of the alignment vector fine-tuning took back; 1 is all of it.",
        "−⟨τ, a⟩ / |a|²", "any; 0 none, 1 all", _OURS, True, True, rollback,
    ),
    Metric(
        "conflict", "Sign conflict",
        "Share of weights that fine-tuning and alignment moved in opposite directions.",
        "#{τ·a < 0} / n", "0 to 1; unrelated dense vectors give ½", _OURS,
        False, True, sign_conflict,
    ),
    Metric(
        "zeros", "Exact zeros in τ",
        "Share of weights that fine-tuning left exactly as they were, often by rounding.",
        "#{τ = 0} / n", "0 to 1", _OURS, False, False, zero_share,
    ),
)  # fmt: skip

BY_ID: dict[str, Metric[Inspection]] = {metric.id: metric for metric in METRICS}


def available(sums: Inspection) -> tuple[Metric[Inspection], ...]:
    """Return the metrics that this lineup allows: some need base and aligned both."""
    return tuple(m for m in METRICS if sums.has_alignment or not m.needs_alignment)
