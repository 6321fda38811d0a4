"""The job `activation_subspaces`: what safe and useful answers activate, and where that lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.attribution_jobs import chosen_member, keep_result, open_calibration
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import ActivationSubspacesParams
from trimtab.merging.recipe import open_lineup
from trimtab.paths import cache_dir

# of what a result says
_VERSION = 1


def activation_subspaces(params: ActivationSubspacesParams, control: Control) -> dict[str, Any]:
    """Compare the subspaces of a model's activations, and leave the result as JSON in the cache."""
    from trimtab.activations.calibrated import Setting, content_key
    from trimtab.activations.weights import member_weights
    from trimtab.inspection.activation_subspaces_run import (
        Choice,
        find_activation_subspaces,
        matched,
    )

    lineup = open_lineup(params.recipe)
    member = chosen_member(lineup, params.model) if params.model else lineup.reference
    safe, useful = open_calibration(params.safe), open_calibration(params.useful)
    prompts, count = matched(safe, useful, params.limit)
    setting = Setting(params.template, chosen_devices(params.device)[0], params.bfloat16)
    choice = Choice(params.rank, params.centre, params.tokens, params.seed)
    key = content_key(
        member_weights(lineup, member), prompts, setting, "subspaces", _VERSION,
        lineup.fingerprint, member.name, count, params.rank, params.centre, params.tokens,
        params.seed,
    )  # fmt: skip
    path = cache_dir() / "activation-subspaces" / f"{key}.json"
    known = path.exists() and _readable(path)
    if not known:
        found = find_activation_subspaces(lineup, member, prompts, count, setting, choice, control)
        found.about["safe"], found.about["useful"] = safe.name, useful.name
        keep_result(path, found.to_json())
    return {"path": str(path), "cached": known}


def _readable(path: Path) -> bool:
    from trimtab.inspection.activation_subspaces import ActivationSubspaces

    try:
        ActivationSubspaces.load(path)
    except UserError:
        return False  # damaged: it can be made again
    return True
