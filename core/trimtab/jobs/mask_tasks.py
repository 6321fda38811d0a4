"""The jobs on masks, each imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.control import Control
from trimtab.jobs.mask_params import (
    DifferenceScoresParams,
    MaskScoresParams,
    MaskSharesParams,
    SomfScoresParams,
)
from trimtab.jobs.params import (
    AntidoteEstimateParams,
    MaskAccountParams,
    MaskBuildParams,
    MaskCombineParams,
    MaskControlParams,
    Params,
)


def _mask_build(params: MaskBuildParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_build

    return mask_build(params, control)


def _mask_combine(params: MaskCombineParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_combine

    return mask_combine(params, control)


def _mask_account(params: MaskAccountParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_account

    return mask_account(params, control)


def _mask_shares(params: MaskSharesParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_shares

    return mask_shares(params, control)


def _mask_overlap(params: MaskSharesParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_overlap

    return mask_overlap(params, control)


def _mask_scores(params: MaskScoresParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_scores

    return mask_scores(params, control)


def _mask_control(params: MaskControlParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_jobs import mask_control

    return mask_control(params, control)


def _somf_scores(params: SomfScoresParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_jobs import somf_scores

    return somf_scores(params, control)


def _difference_scores(params: DifferenceScoresParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.mask_score_jobs import difference_scores

    return difference_scores(params, control)


def _antidote_estimate(params: AntidoteEstimateParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_jobs import antidote_estimate

    return antidote_estimate(params, control)


MASK_JOBS: dict[str, tuple[type[Params], Callable[[Any, Control], dict[str, Any]]]] = {
    "mask_build": (MaskBuildParams, _mask_build),
    "mask_combine": (MaskCombineParams, _mask_combine),
    "mask_account": (MaskAccountParams, _mask_account),
    "mask_shares": (MaskSharesParams, _mask_shares),
    "mask_overlap": (MaskSharesParams, _mask_overlap),
    "mask_scores": (MaskScoresParams, _mask_scores),
    "mask_control": (MaskControlParams, _mask_control),
    "somf_scores": (SomfScoresParams, _somf_scores),
    "difference_scores": (DifferenceScoresParams, _difference_scores),
    "antidote_estimate": (AntidoteEstimateParams, _antidote_estimate),
}
