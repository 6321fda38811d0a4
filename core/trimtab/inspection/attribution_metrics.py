"""What scores of weights say of a tensor, beside chance: read from the job's file, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.activations.norms import FORMULAS, MODES, Mode
from trimtab.checkpoints import Grid
from trimtab.errors import UserError
from trimtab.inspection.attribution import KINDS, Score
from trimtab.inspection.attribution_summary import ScoreSummary
from trimtab.inspection.metrics import Metric, ratio
from trimtab.inspection.result import Floats

#: whose way of taking the score there is: gradients are taken in one way only
SCORE_MODES: dict[Score, tuple[Mode, ...]] = {
    score: ("authors' code",) if kind.stored else MODES for score, kind in KINDS.items()
}


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of one model on one calibration set, a row for each tensor or group.

    `tokens` went through the model, `answer_tokens` of them an answer's. `seconds` is what scoring
    took when it was done. `file` holds the scores, or the input strengths they are computed from.
    """

    summary: ScoreSummary
    model: str
    score: Score
    mode: Mode
    calibration: str
    digest: str
    template: str
    examples: int
    tokens: int
    answer_tokens: int
    seconds: float
    loss: float | None
    file: str

    @classmethod
    def load(cls, path: Path, file: str = "") -> Scored:
        """Read what the job `attribute` left. Raises `UserError` with `damaged`."""
        try:
            return cls._parse(json.loads(path.read_text(encoding="utf-8")), file)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(
                "damaged",
                "The scores cannot be read.",
                f"{path.name} is missing or not what was written.",
                "Score the weights again.",
                details=str(error),
            ) from error

    @classmethod
    def _parse(cls, content: Mapping[str, Any], file: str) -> Scored:
        about, losses = content["calibration"], content.get("losses")
        return cls(
            summary=ScoreSummary.of_rows(content["tensors"], content["share"]),
            model=str(content["model"]),
            score=KINDS[content["score"]].id,
            mode=MODES[MODES.index(content["mode"])],
            calibration=str(about["calibration"]),
            digest=str(about["digest"]),
            template=str(about["template"]),
            examples=len(about["ids"]),
            tokens=int(content["tokens"]["all"]),
            answer_tokens=int(content["tokens"]["answers"]),
            seconds=float(content["seconds"]),
            loss=sum(losses) / len(losses) if losses else None,
            file=file,
        )

    def grouped(self, names: tuple[str, ...], grid: Grid) -> Scored:
        """Add tensors up by the groups of a grid over the tensors `names`.

        Raises `UserError` with `damaged` where one of them is not among the grid's.
        """
        place = {name: row for row, name in enumerate(names)}
        try:
            rows = [place[name] for name in self.summary.names]
        except KeyError as error:
            raise UserError(
                "damaged",
                "The scores are of other tensors than the lineup's.",
                f"It has no {error.args[0]}.",
                "Score the weights again.",
            ) from error
        group_of = grid.group_of[rows].astype(np.intp)
        return replace(self, summary=self.summary.added(group_of, grid.labels))


def mean_score(found: Scored, i: int = 0) -> Floats:
    """Return the mean score of a tensor's entries, float64 [n]."""
    return ratio(found.summary.total, found.summary.entries.astype(np.float64))


def entries_share(found: Scored, i: int = 0) -> Floats:
    """Return which share of all scored entries lies in each tensor, float64 [n]."""
    entries = found.summary.entries.astype(np.float64)
    share = ratio(entries, np.full(len(entries), entries.sum()))
    return np.where(entries > 0, share, np.nan)


def top_share(found: Scored, i: int = 0) -> Floats:
    """Return which share of the model's highest scores lies in each tensor, float64 [n]."""
    top = found.summary.top.astype(np.float64)
    share = ratio(top, np.full(len(top), top.sum()))
    return np.where(found.summary.entries > 0, share, np.nan)


def enrichment(found: Scored, i: int = 0) -> Floats:
    """Return `top_share` over `entries_share`, float64 [n]."""
    return ratio(top_share(found), entries_share(found))


def _one(found: Scored, i: int) -> Floats:
    return np.where(found.summary.entries > 0, 1.0, np.nan)


def score_metrics(score: Score, mode: Mode, share: float) -> tuple[Metric[Scored], ...]:
    """Return what can be drawn of a score taken in a mode, with `share` of the entries as highest.

    Ids are `score.summary`, whatever mode and share are.
    """
    kind, top = KINDS[score], f"top {100 * share:g} %"
    formula = f"s = {kind.formula}"
    if not kind.stored:
        formula += f", act_norm = {FORMULAS[mode]}"
    return (
        Metric(
            f"{score}.enrichment", f"{kind.title}, {top} × chance ({mode})",
            f"How many times more of the model's {top} lie here than the size would give. "
            f"{kind.sentence}",
            f"(top / Σ top) / (n / Σ n), {formula}", "0 and up; chance gives 1", kind.reference,
            False, False, enrichment, _one,
        ),
        Metric(
            f"{score}.share", f"{kind.title}, share of the {top} ({mode})",
            f"Which share of the model's {top} lies here. {kind.sentence}",
            f"top / Σ top, {formula}", "0 to 1; chance gives the share of all entries",
            kind.reference, False, False, top_share, entries_share,
        ),
        Metric(
            f"{score}.mean", f"{kind.title}, mean ({mode})",
            f"The mean over the entries. {kind.sentence}",
            f"(1/n) Σ s, {formula}", "0 and up; comparable within one model and set only",
            kind.reference, False, False, mean_score,
        ),
    )  # fmt: skip
