"""Names, formulas and references of what spectra and subspaces say of a tensor."""

from __future__ import annotations

import numpy as np

from trimtab.inspection.metrics import Metric, ratio
from trimtab.inspection.spectra import Floats, Spectra


def safety_energy(found: Spectra, i: int) -> Floats:
    """‖U_kU_kᵀτ_i‖² / ‖τ_i‖², float64 [n]."""
    return ratio(found.inside[:, i], found.whole[:, i])


def expected_energy(found: Spectra, i: int) -> Floats:
    """Mean of `safety_energy` over random subspaces of the same size, float64 [n]."""
    return ratio(found.inside_expected[:, i], found.whole[:, i])


def energy_ratio(found: Spectra, i: int) -> Floats:
    """`safety_energy` over what chance gives, float64 [n]."""
    return ratio(found.inside[:, i], found.inside_expected[:, i])


def energy_deviations(found: Spectra, i: int) -> Floats:
    """(`safety_energy` − mean) / standard deviation over random subspaces, float64 [n]."""
    above = found.inside[:, i] - found.inside_expected[:, i]
    return ratio(above, np.sqrt(found.inside_variance[:, i]))


def overlap(found: Spectra, i: int) -> Floats:
    """MSO of the leading directions of a and τ_i, float64 [n]."""
    return ratio(found.overlap[:, i], found.overlap_most[:, i])


def expected_overlap(found: Spectra, i: int) -> Floats:
    """Mean of `overlap` where one of the subspaces is drawn at random, float64 [n]."""
    return ratio(found.overlap_expected[:, i], found.overlap_most[:, i])


def overlap_ratio(found: Spectra, i: int) -> Floats:
    """`overlap` over what chance gives, float64 [n]."""
    return ratio(found.overlap[:, i], found.overlap_expected[:, i])


def _stable_rank(found: Spectra, v: int) -> Floats:
    return ratio(found.norm2[:, v], found.values[:, v, 0] ** 2)


def _effective_rank(found: Spectra, v: int) -> Floats:
    nuclear = found.nuclear[:, v]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.log(nuclear) - ratio(found.log_sum[:, v], nuclear)
        rank: Floats = np.where(nuclear > 0, np.exp(entropy), np.nan)
    return rank


def stable_rank(found: Spectra, i: int) -> Floats:
    """‖τ_i‖²_F / σ₁², float64 [n]."""
    return _stable_rank(found, i + 1)


def effective_rank(found: Spectra, i: int) -> Floats:
    """exp H(σ/Σσ) of τ_i, float64 [n]; of exact spectra only."""
    return _effective_rank(found, i + 1)


def first_share(found: Spectra, i: int) -> Floats:
    """σ₁² / Σσ² of τ_i, float64 [n]."""
    return ratio(found.values[:, i + 1, 0] ** 2, found.norm2[:, i + 1])


def alignment_stable_rank(found: Spectra, i: int = 0) -> Floats:
    """‖a‖²_F / σ₁², float64 [n]."""
    return _stable_rank(found, 0)


def alignment_effective_rank(found: Spectra, i: int = 0) -> Floats:
    """exp H(σ/Σσ) of a, float64 [n]; of exact spectra only."""
    return _effective_rank(found, 0)


def alignment_first_share(found: Spectra, i: int = 0) -> Floats:
    """σ₁² / Σσ² of a, float64 [n]."""
    return ratio(found.values[:, 0, 0] ** 2, found.norm2[:, 0])


_NOT_DISTINCT = "Safety Subspaces are Not Linearly Distinct, arXiv 2505.14185"
_STABLE = "Rudelson and Vershynin 2007, arXiv math/0503442"
_EFFECTIVE = "Roy and Vetterli 2007, The effective rank"
_OURS = "Trimtab's own definition"

SPECTRAL_METRICS: tuple[Metric[Spectra], ...] = (
    Metric(
        "safety_energy", "Share of τ in alignment's directions",
        "How much of the change lies in the outputs that alignment changed most.",
        "‖U_kU_kᵀτ‖² / ‖τ‖², U_k of a = U S Vᵀ", "0 to 1; chance gives k/out", _NOT_DISTINCT,
        False, True, safety_energy, expected_energy,
    ),
    Metric(
        "energy_ratio", "That share, times chance",
        "The same share, measured by what a random subspace of that size would hold.",
        "‖U_kU_kᵀτ‖² / (‖τ‖² k/out)", "0 and up; chance gives 1", _NOT_DISTINCT,
        False, True, energy_ratio,
    ),
    Metric(
        "energy_deviations", "That share, in deviations from chance",
        "How many standard deviations of random subspaces the share is from their mean.",
        "(share − k/out) / sd", "any; chance gives 0 ± 1", _OURS, True, True, energy_deviations,
    ),
    Metric(
        "overlap", "Overlap of τ's and a's directions (MSO)",
        "How far the leading output directions of the two changes coincide.",
        "‖U_aᵀU_τ‖² / min(k_a, k_τ)", "0 to 1; chance gives max(k_a, k_τ)/out", _NOT_DISTINCT,
        False, True, overlap, expected_overlap,
    ),
    Metric(
        "overlap_ratio", "That overlap, times chance",
        "The same overlap, measured by what random directions would have.",
        "‖U_aᵀU_τ‖² / (k_a k_τ/out)", "0 and up; chance gives 1", _NOT_DISTINCT,
        False, True, overlap_ratio,
    ),
    Metric(
        "stable_rank", "Stable rank of τ",
        "Over how many directions the change is spread, at least; 1 is a single one.",
        "‖τ‖²_F / σ₁²", "1 to min(out, in)", _STABLE, False, False, stable_rank,
    ),
    Metric(
        "effective_rank", "Effective rank of τ",
        "Over how many directions the change is spread, by the entropy of its spectrum.",
        "exp(−Σ p ln p), p = σ/Σσ", "1 to min(out, in)", _EFFECTIVE, False, False, effective_rank,
    ),
    Metric(
        "first_share", "Share of τ's first direction",
        "How much of the change its single strongest direction holds.",
        "σ₁² / Σσ²", "1/min(out, in) to 1", _OURS, False, False, first_share,
    ),
    Metric(
        "alignment_stable_rank", "Stable rank of a",
        "Over how many directions the alignment vector is spread, at least.",
        "‖a‖²_F / σ₁²", "1 to min(out, in)", _STABLE, False, True, alignment_stable_rank,
    ),
    Metric(
        "alignment_effective_rank", "Effective rank of a",
        "Over how many directions the alignment vector is spread, by its spectrum's entropy.",
        "exp(−Σ p ln p), p = σ/Σσ", "1 to min(out, in)", _EFFECTIVE,
        False, True, alignment_effective_rank,
    ),
    Metric(
        "alignment_first_share", "Share of a's first direction",
        "How much of the alignment vector its single strongest direction holds.",
        "σ₁² / Σσ²", "1/min(out, in) to 1", _OURS, False, True, alignment_first_share,
    ),
)  # fmt: skip

SPECTRAL_BY_ID: dict[str, Metric[Spectra]] = {metric.id: metric for metric in SPECTRAL_METRICS}


def available(found: Spectra) -> tuple[Metric[Spectra], ...]:
    """Return the metrics that this lineup allows: some need base and aligned both."""
    return tuple(m for m in SPECTRAL_METRICS if found.has_alignment or not m.needs_alignment)
