"""What the heatmap can show, as its chooser lists it: each metric, and what it still needs."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QCoreApplication

from trimtab.inspection.attribution import KINDS, Score
from trimtab.inspection.attribution_metrics import SCORE_MODES, Scored, score_metrics
from trimtab.inspection.metrics import METRICS, Metric
from trimtab.inspection.spectral_metrics import SPECTRAL_METRICS
from trimtab_gui.desk import Desk
from trimtab_gui.figures import SHIFT
from trimtab_gui.looking import Looking
from trimtab_gui.scores_found import ScoresFinding
from trimtab_gui.widgets.chooser import Entry

SHIFT_TEXTS = (
    "How far the merged model will be from the reference, at the ratios as they are now.",
    "√(cᵀ G c), G = ⟨τᵢ, τⱼ⟩, merged = θ_ref + Σ cᵢ τᵢ",
    "0 and up",
    "Trimtab's own definition",
)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Inspect", text)


def shift_title(desk: Desk) -> str:
    """Return what the distance between merge and reference is called."""
    return _tr("Distance |merged − {reference}|").format(reference=desk.reference_word)


def score_of(metric: str) -> Score | None:
    """Return the score that a metric sums up; None for one that sums up none."""
    return next((score for score in KINDS if metric.startswith(f"{score}.")), None)


def _metrics_of(score: Score, finding: ScoresFinding) -> tuple[Metric[Scored], ...]:
    modes = SCORE_MODES[score]
    mode = finding.mode if finding.mode in modes else modes[0]
    return score_metrics(score, mode, finding.share)


def score_metric(metric: str, finding: ScoresFinding) -> Metric[Scored]:
    """Return a metric of scores in the mode that is chosen; StopIteration for another metric."""
    score = score_of(metric)
    found = _metrics_of(score, finding) if score is not None else ()
    return next(m for m in found if m.id == metric)


def metric_entries(desk: Desk, looking: Looking) -> list[Entry]:
    """Return the metrics that this lineup allows; those that take long say what they need."""
    figures = desk.figures
    assert figures is not None
    changes, directions = _tr("Size of the changes"), _tr("Directions of the changes")
    matter = _tr("What matters on prompts")
    found: list[Entry] = []

    def add(metric: Metric[Any], heading: str, remark: str = "") -> None:
        lacks_a = metric.needs_alignment and not figures.has_alignment
        if not lacks_a and (metric.id.startswith("alignment") or figures.n_models):
            found.append(Entry(metric.id, metric.title, metric.sentence, heading, remark))

    for metric in METRICS:
        add(metric, changes)
    if figures.n_models:
        found.append(Entry(SHIFT, shift_title(desk), SHIFT_TEXTS[0], changes))
    spectra, scores = looking.spectra, looking.scores
    remark = "" if spectra.known or spectra.is_small else _tr("not computed yet")
    for spectral in SPECTRAL_METRICS:
        add(spectral, directions, remark)
    for score in KINDS:
        remark = "" if scores.calibration else _tr("needs prompts")
        if scores.calibration and scores.known(score, desk.active) is None:
            remark = "" if scores.is_small(desk.active) else _tr("not computed yet")
        for summary in _metrics_of(score, scores):
            add(summary, matter, remark)
    return found
