"""The job that scores a model for the set difference, so that a threshold can be chosen by eye."""

from __future__ import annotations

from typing import Any

from trimtab.activations.calibrated import Setting, act_norms, norms_path
from trimtab.activations.weights import ModelWeights, member_weights
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.attribution_run import gradient_scores
from trimtab.jobs.attribution_jobs import open_calibration
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.mask_jobs import mask_scores
from trimtab.jobs.mask_params import DifferenceScoresParams, MaskScoresParams
from trimtab.jobs.params import MaskScore
from trimtab.merging.recipe import open_lineup


def difference_scores(params: DifferenceScoresParams, control: Control) -> dict[str, Any]:
    """Return how safety scores of the aligned model lie, outside of what utility ranks highest.

    As `mask_scores` tells it; `of` and `minus` are what `mask_build` builds a mask of with a
    threshold. Scores are kept in the cache. Raises `UserError` with `no_aligned`, and as scoring
    does.
    """
    lineup = open_lineup(params.recipe)
    if lineup.aligned is None:
        raise UserError(
            "no_aligned",
            "The recipe has no aligned model.",
            "Its weights are scored, and what fine-tuning changed goes back to them.",
            "Add the aligned model to the recipe.",
        )
    weights = member_weights(lineup, lineup.aligned)
    setting = Setting(device=chosen_devices(params.device)[0])
    of, minus = (
        _scored(params, name, weights, setting, control) for name in (params.safe, params.useful)
    )
    minus = minus.model_copy(update={"keep": params.utility})
    found = mask_scores(
        MaskScoresParams(recipe=params.recipe, of=of, minus=minus, model=params.model), control
    )
    return {**found, "of": of.model_dump(mode="json"), "minus": minus.model_dump(mode="json")}


def _scored(
    params: DifferenceScoresParams,
    name: str,
    weights: ModelWeights,
    setting: Setting,
    control: Control,
) -> MaskScore:
    prompts = open_calibration(name).spread(params.limit)
    if params.score == "snip":
        paths, _ = gradient_scores(weights, prompts, setting, ["snip"], control)
        return MaskScore(score="stored", file=str(paths["snip"]))
    act_norms(weights, prompts, setting, control)
    path = norms_path(weights, prompts, setting)
    return MaskScore(score="wanda", file=str(path), mode="ours", scored="aligned")
