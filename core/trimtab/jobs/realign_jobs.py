"""The jobs that bring safety back from data: SOMF's learning and export, and Antidote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.control import Control
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.mask_params import SomfScoresParams
from trimtab.jobs.params import (
    AntidoteEstimateParams,
    AntidoteParams,
    SomfExportParams,
    SomfParams,
)

if TYPE_CHECKING:
    from trimtab.realign.antidote_work import AntidoteOptions

_SCORE_BINS = 100
_SETTINGS = (
    "granularity", "merge", "scale", "rescale", "reference", "beta", "rate", "steps", "batch",
    "warmup", "seed", "validation", "log_every", "checkpoint_every",
)  # fmt: skip


def somf(params: SomfParams, control: Control) -> dict[str, Any]:
    """Learn masks; the log grows beside the output while it runs."""
    from trimtab.realign.preferences import read_preferences
    from trimtab.realign.somf import learn
    from trimtab.realign.somf_options import SomfOptions

    return learn(
        params.recipe,
        read_preferences(Path(params.pairs)),
        SomfOptions(**{name: getattr(params, name) for name in _SETTINGS}),
        Path(params.output),
        control,
        form=params.form,
        device=chosen_devices(params.device)[0],
        resume=params.resume,
        overwrite=params.overwrite,
    )


def somf_export(params: SomfExportParams, control: Control) -> dict[str, Any]:
    """Make another form of mask of logits that were learned."""
    from trimtab.merging.place import output_exists
    from trimtab.realign.somf_file import SomfLogits

    output = Path(params.output).absolute()
    if output.exists() and not params.overwrite:
        raise output_exists(output)
    logits = SomfLogits.open(Path(params.logits))
    logits.write_mask(output, params.form, params.seed, params.cut)
    return {
        "mask": str(output),
        "undecided": logits.undecided(),
        "informative": logits.informative(),
    }


def somf_scores(params: SomfScoresParams, control: Control) -> dict[str, Any]:
    """Return how many entries have which σ(x), and whether the mask has learned anything."""
    from trimtab.realign.somf_file import SomfLogits

    control.stage("Counting", 1)
    logits = SomfLogits.open(Path(params.logits))
    counts = logits.counts(_SCORE_BINS)
    control.advance(1)
    return {
        "score": "σ(x)",
        "logarithmic": False,
        "edges": [k / _SCORE_BINS for k in range(_SCORE_BINS + 1)],
        "counts": [int(count) for count in counts],
        "zeros": 0,
        "undecided": logits.undecided(),
        "informative": logits.informative(),
    }


def antidote(params: AntidoteParams, control: Control) -> dict[str, Any]:
    """Prune one fine-tuned model by what a realignment set makes of it."""
    from trimtab.realign.antidote_norms import realignment_set
    from trimtab.realign.antidote_run import antidote as prune

    return prune(
        params.recipe,
        realignment_set(Path(params.calibration)).spread(params.limit),
        _antidote_options(params),
        Path(params.output),
        control,
        control_output=None if params.control is None else Path(params.control),
        device=chosen_devices(params.device)[0],
        overwrite=params.overwrite,
    )


def antidote_estimate(params: AntidoteEstimateParams, control: Control) -> dict[str, Any]:
    """Return what such a pruning would take, and how the scores are spread; write nothing."""
    from trimtab.realign.antidote_norms import realignment_set
    from trimtab.realign.antidote_run import estimate

    return estimate(
        params.recipe,
        realignment_set(Path(params.calibration)).spread(params.limit),
        _antidote_options(params),
        control,
        device=chosen_devices(params.device)[0],
    )


def _antidote_options(params: AntidoteEstimateParams) -> AntidoteOptions:
    from trimtab.realign.antidote_work import AntidoteOptions

    rescale = isinstance(params, AntidoteParams) and params.rescale
    return AntidoteOptions(
        params.variant, params.alpha, params.norm, params.modules, params.model, params.seed,
        rescale,
    )  # fmt: skip
