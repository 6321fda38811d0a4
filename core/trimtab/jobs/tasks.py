"""What each job does: plain functions from JSON to JSON, for the worker and the command alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe, open_lineup

# torch is imported inside the jobs: whoever only asks for their names need not wait for it


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InspectParams(_Params):
    """Parameters of `inspect`: the recipe whose lineup is looked at."""

    recipe: Recipe


class MergeParams(_Params):
    """Parameters of `merge`; `device` "auto" is the best there is."""

    recipe: Recipe
    output: str
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"


class DiscardParams(_Params):
    """Parameters of `discard`: the output whose interrupted merge is thrown away."""

    output: str


def _inspect(params: InspectParams, control: Control) -> dict[str, Any]:
    from trimtab.inspection.scan import bytes_to_read, inspect_cached

    lineup = open_lineup(params.recipe)
    try:
        path, cached = inspect_cached(lineup, control)
    except OSError as error:
        raise UserError(
            "cannot_write",
            "What the inspection found could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(error),
        ) from error
    return {
        "path": str(path),
        "cached": cached,
        "bytes_read": 0 if cached else bytes_to_read(lineup),
    }


def _merge(params: MergeParams, control: Control) -> dict[str, Any]:
    from trimtab.merging.engine import run_merge
    from trimtab.merging.planner import plan_merge

    device = _chosen_device(params.device)
    plan = plan_merge(params.recipe, open_lineup(params.recipe))
    return run_merge(
        plan,
        Path(params.output),
        control,
        overwrite=params.overwrite,
        resume=params.resume,
        device=device,
    )


def _chosen_device(name: str) -> str:
    """Return torch's name of the device asked for; what the engine cannot use counts as absent."""
    from trimtab.device import best, devices

    if name == "auto":
        found = best()
        return found.torch_name if found.kind == "cuda" else "cpu"
    known = [device.torch_name for device in devices() if device.kind != "mps"]
    if name not in known:
        raise UserError(
            "no_such_device",
            f"There is no device {name}.",
            f"This machine has: {', '.join(known)}.",
            "Choose one of these, or auto.",
        )
    return name


def _discard(params: DiscardParams, control: Control) -> dict[str, Any]:
    from trimtab.merging.writer import discard_partial

    discard_partial(Path(params.output))
    return {}


def _devices(params: _Params, control: Control) -> dict[str, Any]:
    from trimtab.device import devices

    return {"devices": [asdict(device) for device in devices()]}


_JOBS: dict[str, tuple[type[_Params], Callable[[Any, Control], dict[str, Any]]]] = {
    "inspect": (InspectParams, _inspect),
    "merge": (MergeParams, _merge),
    "discard": (DiscardParams, _discard),
    "devices": (_Params, _devices),
}


def run_job(name: str, params: dict[str, Any], control: Control) -> dict[str, Any]:
    """Run job `name` to its end and return its result.

    Raises `UserError` for what the user can mend (with `bad_job` for an unknown job or unfit
    parameters) and `JobCancelled` when the control says stop.
    """
    try:
        kind, function = _JOBS[name]
        checked = kind.model_validate(params)
    except (KeyError, ValidationError) as error:
        raise UserError(
            "bad_job",
            f"The job {name} cannot be run.",
            f"Its description is not understood: {error}.",
            "Use the same version of the window and the worker.",
        ) from error
    return function(checked, control)
