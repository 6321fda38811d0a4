"""What each job does: plain functions from JSON to JSON, for the worker and the command alike."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.merging.engine import Known
    from trimtab.merging.planner import Plan, PlannedTensor
    from trimtab.methods import MergeMethod

_PLANS_KEPT = 4

# torch is imported inside the jobs: whoever only asks for their names need not wait for it


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InspectParams(_Params):
    """Parameters of `inspect`: the recipe whose lineup is looked at."""

    recipe: Recipe


class MergeParams(_Params):
    """Parameters of `merge`.

    `device` "auto" is every CUDA device there is, or the CPU; several are separated by commas.
    `memory` is what the process may take, in bytes.
    """

    recipe: Recipe
    output: str
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"
    memory: int | None = None
    threads: int | None = None


class PlanParams(_Params):
    """Parameters of `plan`: the recipe, and on what and within how many bytes it would run."""

    recipe: Recipe
    device: str = "auto"
    memory: int | None = None


class ExtractParams(_Params):
    """Parameters of `extract_lora`: see `trimtab.lora.extract.ExtractOptions`."""

    finetuned: str
    reference: str
    output: str
    rank: int = 32
    energy: float | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    embeddings: bool = False
    whole: bool = False
    base_name: str = ""
    seed: int = 0
    overwrite: bool = False


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

    devices = _chosen_devices(params.device)
    begun = time.monotonic()
    plan = plan_merge(params.recipe, open_lineup(params.recipe))
    planned = time.monotonic() - begun
    report = run_merge(
        plan,
        Path(params.output),
        control,
        overwrite=params.overwrite,
        resume=params.resume,
        device=devices,
        threads=params.threads,
        memory=params.memory,
        known=_known_facts(plan),
    )
    report["phases"] = {"plan": round(planned, 3), **report["phases"]}
    return report


def _known_facts(plan: Plan) -> Known | None:
    """What a cached inspection of the lineup has measured already, if there is one."""
    from trimtab.inspection.known import finetuned_indices, known_gram
    from trimtab.inspection.result import Inspection
    from trimtab.inspection.scan import cache_path

    if plan.method.form is None or plan.vocabulary:
        return None
    found = Inspection.load(cache_path(plan.lineup))
    if found is None:
        return None
    lineup, inspection = plan.lineup, found
    rows = {name: row for row, name in enumerate(lineup.names)}

    def known(tensor: PlannedTensor, kind: str) -> Any:
        row = rows.get(tensor.name)
        if kind != "gram" or row is None:
            return None
        models = finetuned_indices(lineup, row, tensor.origin, tensor.models)
        return None if models is None else known_gram(inspection, lineup, row, models)

    return known


def _chosen_devices(names: str) -> list[str]:
    """Return torch's names of the devices asked for; what the engine cannot use is absent."""
    from trimtab.device import cuda_is_likely, devices

    if names == "cpu" or (names == "auto" and not cuda_is_likely()):
        return ["cpu"]  # without the seconds that importing torch takes
    found = devices()
    if names == "auto":
        return [d.torch_name for d in found if d.kind == "cuda"] or ["cpu"]
    known = [device.torch_name for device in found if device.kind != "mps"]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known or (name == "cpu" and len(wanted) > 1):
            raise UserError(
                "no_such_device",
                f"There is no device {name}.",
                f"This machine has: {', '.join(known)}.",
                "Choose one of these, or auto; several CUDA devices with commas between them.",
            )
    return wanted


def _extract_lora(params: ExtractParams, control: Control) -> dict[str, Any]:
    from trimtab.checkpoints import open_checkpoint
    from trimtab.lora.extract import ExtractOptions, extract, pair

    options = ExtractOptions(
        rank=params.rank,
        energy=params.energy,
        dtype=params.dtype,
        embeddings=params.embeddings,
        whole=params.whole,
        base_name=params.base_name,
        seed=params.seed,
    )
    lineup = pair(open_checkpoint(params.finetuned), open_checkpoint(params.reference))
    return extract(lineup, options, Path(params.output), control, overwrite=params.overwrite)


def _discard(params: DiscardParams, control: Control) -> dict[str, Any]:
    from trimtab.merging.writer import discard_partial

    discard_partial(Path(params.output))
    return {}


def _devices(params: _Params, control: Control) -> dict[str, Any]:
    from trimtab.device import devices

    return {"devices": [asdict(device) for device in devices()]}


def _methods(params: _Params, control: Control) -> dict[str, Any]:
    """Describe every method; those of other packages are imported here, in the worker's process."""
    from trimtab.methods import load_entry_points, methods

    problems = load_entry_points()
    return {"methods": [describe_method(m) for m in methods()], "problems": list(problems)}


def describe_method(method: MergeMethod) -> dict[str, Any]:
    """Return what a form and a help text need to know of a method, ready for JSON."""
    return {
        "name": method.name,
        "title": method.title,
        "sentence": method.sentence,
        "formula": method.formula,
        "reference": method.reference,
        "parameters": [
            {**asdict(p), "choices": dict(p.choices), "range": p.range_text}
            for p in method.parameters
        ],
        "takes": list(method.takes),
        "part": method.part,
        "weighted": method.weighted,
        "random": method.random,
        "origin": method.origin,
    }


def _plan(params: PlanParams, control: Control) -> dict[str, Any]:
    """Plan a merge and leave the account of every tensor as JSON in the cache."""
    from trimtab.merging.memory import Memory
    from trimtab.merging.planner import describe, plan_merge

    devices = _chosen_devices(params.device)
    plan = plan_merge(params.recipe, open_lineup(params.recipe))
    control.check()
    room = Memory(plan, params.memory, devices[0])
    threads = room.threads(min(8, os.cpu_count() or 1) * len(devices))
    account = describe(plan)
    account["device"] = ", ".join(devices)
    account["memory_bytes"] = psutil.Process().memory_info().rss + threads * room.each
    account["data_bytes"] = [tensor.nbytes for tensor in plan.tensors]
    path = cache_dir() / "plans" / f"{plan.digest()}.json"
    try:
        _keep(path, json.dumps(account, ensure_ascii=False))
    except OSError as error:
        raise UserError(
            "cannot_write",
            "The plan could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(error),
        ) from error
    return {"path": str(path)}


def _keep(path: Path, text: str) -> None:
    """Write a file of the cache whole, and leave only the newest of its neighbours there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    kept = sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[_PLANS_KEPT:]:
        old.unlink(missing_ok=True)


_JOBS: dict[str, tuple[type[_Params], Callable[[Any, Control], dict[str, Any]]]] = {
    "inspect": (InspectParams, _inspect),
    "merge": (MergeParams, _merge),
    "extract_lora": (ExtractParams, _extract_lora),
    "discard": (DiscardParams, _discard),
    "devices": (_Params, _devices),
    "methods": (_Params, _methods),
    "plan": (PlanParams, _plan),
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
