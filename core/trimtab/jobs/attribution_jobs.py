"""The job `attribute`: scores of a model's weights on a calibration set, and where they are."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.common import chosen_devices, keep
from trimtab.jobs.params import AttributeParams
from trimtab.merging.recipe import open_lineup
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.activations.calibration import Calibration
    from trimtab.checkpoints import Lineup, Member

_SUMMARIES = 100
# of what a summary says
_VERSION = 2


def attribute(params: AttributeParams, control: Control) -> dict[str, Any]:
    """Score the weights of one model and leave a summary by tensor as JSON in the cache.

    It says on how many `tokens` they were scored, and how many `seconds` that took, or the part
    of it that was not known already. `scores` is the file with the scores where they lie in one,
    `norms` the one with the input strengths that Wanda's are computed from when they are read.
    """
    from trimtab.activations.calibrated import Setting, act_norms, count_tokens, norms_path
    from trimtab.activations.weights import member_weights
    from trimtab.checkpoints.reader import TensorReader
    from trimtab.inspection.attribution import KINDS, NormScores, ScoreSource, StoredScores
    from trimtab.inspection.attribution_run import gradient_scores
    from trimtab.inspection.attribution_summary import summarise

    lineup = open_lineup(params.recipe)
    member = chosen_member(lineup, params.model)
    calibration = open_calibration(params.calibration).spread(params.limit)
    setting = Setting(params.template, chosen_devices(params.device)[0], params.bfloat16)
    weights = member_weights(lineup, member)
    kind = KINDS[params.score]
    norms, scores = None, None
    begun = time.monotonic()
    with TensorReader() as reader:
        source: ScoreSource
        if kind.stored:
            found, cached = gradient_scores(weights, calibration, setting, [params.score], control)
            scores = found[params.score]
            source = StoredScores(scores, reader)
        else:
            strengths, cached = act_norms(weights, calibration, setting, control)
            norms = norms_path(weights, calibration, setting)
            delta = params.score == "delta-wanda"
            source = NormScores(lineup, member, strengths, params.mode, reader, delta=delta)
        about = dict(source.about)
        text = json.dumps([_VERSION, about, lineup.fingerprint, member.name, params.share])
        path = cache_dir() / "attribution" / f"{_digest(text)}.json"
        if not (cached and path.exists()):
            summary = summarise(source, control, params.share)
            content = {
                "model": member.name,
                "title": kind.title,
                "formula": kind.formula,
                "reference": kind.reference,
                **about,
                "tokens": count_tokens(weights, calibration, setting),
                "seconds": round(time.monotonic() - begun, 3),
                "share": summary.share,
                "tensors": summary.to_rows(),
            }
            if isinstance(source, StoredScores):
                content["losses"] = list(source.losses)
            keep_result(path, content)
    return {
        "path": str(path),
        "cached": cached,
        "scores": None if scores is None else str(scores),
        "norms": None if norms is None else str(norms),
    }


def chosen_member(lineup: Lineup, name: str) -> Member:
    """Return the model of that name or role; the first fine-tuned one for no name.

    Raises `UserError` with `no_such_model`.
    """
    usual = lineup.finetuned[0].name if lineup.finetuned else lineup.reference.name
    wanted = name or usual
    for member in lineup.members:
        if member.name == wanted:
            return member
    for member in lineup.members:
        if member.role == wanted:
            return member
    raise UserError(
        "no_such_model",
        f"The recipe has no model {name}.",
        f"It has {', '.join(member.name for member in lineup.members)}.",
        "Choose one of these, or a role: base, aligned, finetuned.",
    )


def open_calibration(name: str) -> Calibration:
    """Return the calibration set that a name stands for.

    One of the shipped sets, a JSONL file, or suite:NAME, the prompts of a suite that have an
    answer in words. Raises `UserError` as reading them does.
    """
    from trimtab.activations.calibration import Calibration, Example, load_calibration
    from trimtab.evaluation.opening import open_suite

    kind, _, rest = name.partition(":")
    if kind != "suite":
        return load_calibration(name)
    suite = open_suite(rest)
    return Calibration(
        suite.name,
        tuple(
            Example(prompt.id, prompt.asked, prompt.reference, prompt.system)
            for prompt in suite.prompts
            if prompt.reference
        ),
    )


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def keep_result(path: Path, content: dict[str, Any]) -> None:
    """Write what a job found as JSON. Raises `UserError` with `cannot_write`."""
    try:
        keep(path, json.dumps(content, ensure_ascii=False), _SUMMARIES)
    except OSError as error:
        raise UserError(
            "cannot_write",
            "What was found could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(error),
        ) from error
