"""What each job does: plain functions from JSON to JSON, for the worker and the command alike."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pydantic import ValidationError

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.common import chosen_devices, keep
from trimtab.jobs.evaluation_params import ChatParams, DecideParams, EvaluateParams
from trimtab.jobs.mask_tasks import MASK_JOBS
from trimtab.jobs.params import (
    ActivationSubspacesParams,
    AntidoteParams,
    AttributeParams,
    DiscardParams,
    ExtractParams,
    InspectParams,
    MergeParams,
    Params,
    PlanParams,
    PreviewParams,
    RealignParams,
    SafetyLayersParams,
    SomfExportParams,
    SomfParams,
    SpectraParams,
    SweepParams,
)
from trimtab.merging.recipe import open_lineup
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.merging.engine import Known
    from trimtab.merging.plan import Plan, PlannedTensor
    from trimtab.methods import MergeMethod

#: a preview of so many bytes is let go of when a job needs the memory
_LARGE = 256 << 20

# torch is imported inside the jobs: whoever only asks for their names need not wait for it


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


def _spectra(params: SpectraParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.inspect_jobs import spectra

    return spectra(params, control)


def _subspaces(params: Params, control: Control) -> dict[str, Any]:
    from trimtab.jobs.inspect_jobs import subspaces

    return subspaces(params, control)


def _activation_subspaces(params: ActivationSubspacesParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.activation_jobs import activation_subspaces

    return activation_subspaces(params, control)


def _merge(params: MergeParams, control: Control) -> dict[str, Any]:
    from trimtab.merging.engine import run_merge
    from trimtab.merging.planner import plan_merge

    devices = chosen_devices(params.device)
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
    report["phases"] = {"plan": round(planned, 3), **report.get("phases", {})}
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
        if kind not in ("gram", "changes") or row is None:
            return None
        models = finetuned_indices(lineup, row, tensor.origin, tensor.models)
        return None if models is None else known_gram(inspection, lineup, row, models)

    return known


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


def _attribute(params: AttributeParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.attribution_jobs import attribute

    return attribute(params, control)


def _somf(params: SomfParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_jobs import somf

    return somf(params, control)


def _somf_export(params: SomfExportParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_jobs import somf_export

    return somf_export(params, control)


def _antidote(params: AntidoteParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_jobs import antidote

    return antidote(params, control)


def _realign(params: RealignParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.realign_data_jobs import realign

    return realign(params, control)


def _safety_layers(params: SafetyLayersParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.safety_layers_jobs import safety_layers

    return safety_layers(params, control)


def _evaluate(params: EvaluateParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.evaluation_jobs import evaluate

    return evaluate(params, control)


def _decide(params: DecideParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.evaluation_jobs import decide

    return decide(params, control)


def _chat(params: ChatParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.evaluation_jobs import chat

    return chat(params, control)


def _sweep(params: SweepParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.sweep_jobs import sweep

    return sweep(params, control)


def _discard(params: DiscardParams, control: Control) -> dict[str, Any]:
    from trimtab.merging.writer import discard_partial

    discard_partial(Path(params.output))
    return {}


def _devices(params: Params, control: Control) -> dict[str, Any]:
    from trimtab.device import devices

    return {"devices": [asdict(device) for device in devices()]}


def _methods(params: Params, control: Control) -> dict[str, Any]:
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
        "needs_base": method.needs_base,
        "last": method.last,
        "random": method.random,
        "origin": method.origin,
    }


def _plan(params: PlanParams, control: Control) -> dict[str, Any]:
    """Plan a merge and leave the account of every tensor as JSON in the cache."""
    from trimtab.merging.memory import Memory
    from trimtab.merging.plan import describe
    from trimtab.merging.planner import plan_merge

    devices = chosen_devices(params.device)
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
        keep(path, json.dumps(account, ensure_ascii=False))
    except OSError as error:
        raise UserError(
            "cannot_write",
            "The plan could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(error),
        ) from error
    return {"path": str(path)}


def _preview(params: PreviewParams, control: Control) -> dict[str, Any]:
    from trimtab.jobs.preview_jobs import preview

    return preview(params, control)


def _make_room() -> None:
    """Let go of large models that wait for a hand: what comes now needs the memory."""
    for name in ("preview", "chat"):
        loaded = sys.modules.get(f"trimtab.evaluation.{name}")
        if loaded is not None:
            loaded.release(_LARGE)


_JOBS: dict[str, tuple[type[Params], Callable[[Any, Control], dict[str, Any]]]] = {
    "inspect": (InspectParams, _inspect),
    "spectra": (SpectraParams, _spectra),
    "subspaces": (Params, _subspaces),
    "activation_subspaces": (ActivationSubspacesParams, _activation_subspaces),
    "merge": (MergeParams, _merge),
    "evaluate": (EvaluateParams, _evaluate),
    "decide": (DecideParams, _decide),
    "chat": (ChatParams, _chat),
    "attribute": (AttributeParams, _attribute),
    "safety_layers": (SafetyLayersParams, _safety_layers),
    **MASK_JOBS,
    "extract_lora": (ExtractParams, _extract_lora),
    "somf": (SomfParams, _somf),
    "somf_export": (SomfExportParams, _somf_export),
    "antidote": (AntidoteParams, _antidote),
    "realign": (RealignParams, _realign),
    "sweep": (SweepParams, _sweep),
    "discard": (DiscardParams, _discard),
    "devices": (Params, _devices),
    "methods": (Params, _methods),
    "plan": (PlanParams, _plan),
    "preview": (PreviewParams, _preview),
}
#: jobs for which a large preview makes room
_HUNGRY = frozenset(
    ("merge", "extract_lora", "evaluate", "attribute", "safety_layers", "somf", "antidote",
     "realign", "antidote_estimate", "difference_scores")
)  # fmt: skip


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
    if name in _HUNGRY:
        _make_room()
    return function(checked, control)
