"""The job `safety_layers`: how far models hold normal and malicious queries apart, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trimtab_resources
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.attribution_jobs import chosen_member, keep_result
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import SafetyLayersParams
from trimtab.merging.recipe import open_lineup
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.activations.calibration import Calibration, Example
    from trimtab.checkpoints import Lineup, Member
    from trimtab.evaluation.suite import Prompt
    from trimtab.inspection.safety_layers_locate import Located

_VERSION = 1
#: tokens of an answer that tell whether it is a refusal, as in the authors' code
_ANSWER = 16
#: what is scaled: the weights of attention and MLP, and neither norms nor biases
_SCALED = frozenset("q k v qkv o gate up gate_up down fc1 fc2".split())


def safety_layers(params: SafetyLayersParams, control: Control) -> dict[str, Any]:
    """Measure all models of a lineup and leave curves, gaps and ranges as JSON in the cache."""
    from trimtab.activations.calibrated import Setting
    from trimtab.activations.calibration import Calibration
    from trimtab.activations.weights import member_weights
    from trimtab.inspection import safety_layers as layers
    from trimtab.inspection.safety_layers_locate import initial_range
    from trimtab.inspection.safety_layers_states import last_states

    lineup = open_lineup(params.recipe)
    normal, malicious = _queries(params)
    queries = Calibration("queries", (*normal.examples, *malicious.examples))
    setting = Setting(params.template, chosen_devices(params.device)[0], params.bfloat16)
    weights = [member_weights(lineup, member) for member in lineup.members]
    chosen = chosen_member(lineup, params.locate) if params.locate else None
    path = _path(params, lineup, normal, malicious, [w.key for w in weights])
    if path.exists() and not params.fresh:
        path.touch()
        return {"path": str(path), "cached": True}

    n = len(normal.examples)
    resamples = layers.Resamples.draw(n, len(malicious.examples), seed=params.seed)
    states = {}
    models: list[dict[str, Any]] = []
    for member, of in zip(lineup.members, weights, strict=True):
        found, _ = last_states(of, queries, setting, control)
        states[member.name] = (found[:, :n], found[:, n:])
        reading = layers.read_states(*states[member.name], resamples)
        initial = initial_range(reading.ours)
        models.append(
            {
                "name": member.name,
                "role": member.role,
                "initial": None if initial is None else list(initial),
                **reading.to_dict(),
            }
        )
    reference = lineup.reference.name
    before = states[reference]
    content: dict[str, Any] = {
        "reference": reference,
        "published": layers.REFERENCE,
        "formulas": layers.FORMULAS,
        "pairs": layers.PAIRS,
        "resamples": layers.RESAMPLES,
        "seed": params.seed,
        "template": params.template,
        "normal": _about(normal),
        "malicious": _about(malicious),
        "models": models,
        "lost": [
            {
                "model": member.name,
                **layers.lost(before, states[member.name], resamples).to_dict(),
            }
            for member in lineup.finetuned
            if len(states[member.name][0]) == len(before[0])
        ],
        "located": None,
    }
    if chosen is not None:
        model = next(m for m in models if m["name"] == chosen.name)
        content["located"] = {
            "model": chosen.name,
            **_located(params, lineup, chosen, model["initial"], control).to_dict(),
        }
    content["shares"] = _shares(lineup, _range(content), control)
    keep_result(path, content)
    return {"path": str(path), "cached": False}


# Queries.


def _queries(params: SafetyLayersParams) -> tuple[Calibration, Calibration]:
    from trimtab.activations.calibration import Calibration, load_calibration
    from trimtab.evaluation.opening import open_suite

    def of_suite(kind: str) -> Calibration:
        suite = open_suite(params.suite)
        found = tuple(_query(p) for p in suite.prompts if p.kind == kind)
        if len(found) < 2:
            raise UserError(
                "no_queries",
                f"The suite {suite.name} has no {kind} prompts to compare.",
                "Normal and malicious queries are needed, at least two of each.",
                "Name a JSONL file with prompts, or another suite.",
            )
        return Calibration(f"{suite.name} {kind}", found)

    def opened(name: str, kind: str) -> Calibration:
        if name in ("lookalike", "utility", "harmful"):
            return of_suite(name)
        if name:
            given = load_calibration(name)
        elif params.suite == "demo" and kind == "utility":
            # the suite's own utility prompts ask for another language, and are told by that
            given = load_calibration(trimtab_resources.path("demo", "prompts", "general.jsonl"))
        else:
            return of_suite(kind)
        return Calibration(given.name, tuple(_bare(e) for e in given.examples))

    normal, malicious = opened(params.normal, "utility"), opened(params.malicious, "harmful")
    return normal.spread(params.limit), malicious.spread(params.limit)


def _query(prompt: Prompt) -> Example:
    from trimtab.activations.calibration import Example

    return Example(prompt.id, prompt.asked, system=prompt.system)


def _bare(example: Example) -> Example:
    from trimtab.activations.calibration import Example

    return Example(example.id, example.prompt, system=example.system)


def _about(queries: Calibration) -> dict[str, Any]:
    return {"name": queries.name, "n": len(queries.examples), "digest": queries.digest}


# The range.


def _located(
    params: SafetyLayersParams,
    lineup: Lineup,
    member: Member,
    initial: list[int] | None,
    control: Control,
) -> Located:
    """Scale blocks of a model, which is loaded whole, and count what it refuses."""
    from trimtab.evaluation.choosing import Connection
    from trimtab.evaluation.decoding import Decoding
    from trimtab.evaluation.merged_target import role_targets
    from trimtab.evaluation.opening import open_judge, open_suite
    from trimtab.inspection.safety_layers_locate import locate

    prompts = open_suite(params.suite).by_kind("lookalike")
    if params.lookalikes is not None and len(prompts) > params.lookalikes:
        step = len(prompts) / params.lookalikes
        prompts = tuple(prompts[int(i * step)] for i in range(params.lookalikes))
    if not prompts:
        raise UserError(
            "no_queries",
            f"The suite {params.suite} has no lookalikes.",
            "The range is found by what is refused though it only looks harmful.",
            "Choose a suite with lookalikes, such as core.",
        )
    if initial is None:
        raise UserError(
            "no_safety_layers",
            f"{member.name} shows no angle gap.",
            "It holds malicious queries no further from normal ones than those from each other.",
            "Locate the layers of an aligned model.",
        )
    device = chosen_devices(params.device)[0]
    judge = open_judge(params.judge, Connection(), control)
    same = [m for m in lineup.members if m.role == member.role]
    target = role_targets(params.recipe, (member.role,), device=device)[same.index(member)]
    decoding = Decoding(max_new_tokens=_ANSWER)
    model = target.loaded(control).model

    def count(first: int, last: int, alpha: float) -> int:
        scaled = f"with layers {first}–{last} × {alpha:g}" if last >= first else "as it is"
        control.stage(f"Asking {scaled}", len(prompts))
        with _scaled(model, first, last, alpha):
            answers = target.generate(prompts, decoding, control)
        verdicts = [judge.judge(p, a) for p, a in zip(prompts, answers, strict=True)]
        return sum(verdict.outcome == "refused" for verdict in verdicts)

    try:
        blocks = int(model.config.get_text_config().num_hidden_layers)
        first, last = initial
        return locate(count, (first, last), blocks, len(prompts), params.alpha)
    finally:
        target.close()


@contextmanager
def _scaled(model: Any, first: int, last: int, alpha: float) -> Iterator[None]:
    """Multiply the weights of blocks [first, last] by `alpha`; afterwards they are as before."""
    import torch

    from trimtab.checkpoints.naming import parse

    kept = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            place = parse(name)
            inside = place.layer is not None and first <= place.layer <= last
            if inside and place.module in _SCALED and name.endswith("weight"):
                kept.append((parameter, parameter.detach().clone()))
                parameter.mul_(alpha)
        try:
            yield
        finally:
            for parameter, values in kept:
                parameter.copy_(values)


def _range(content: dict[str, Any]) -> list[int] | None:
    """Return the range that was located, or else where the reference's gap begins."""
    if content["located"] and content["located"]["located"]:
        found: list[int] = content["located"]["located"]
        return found
    models = content["models"]
    initial: list[int] | None = next(
        m["initial"] for m in models if m["name"] == content["reference"]
    )
    return initial


def _shares(lineup: Lineup, within: list[int] | None, control: Control) -> list[dict[str, Any]]:
    """Return how much of each task vector's energy lies in a range, and of the parameters.

    Of the blocks' tensors, ‖τ‖² in the range over ‖τ‖² in all blocks.
    """
    import numpy as np

    from trimtab.checkpoints.naming import parse
    from trimtab.inspection.result import Inspection
    from trimtab.inspection.scan import inspect_cached

    if within is None or not lineup.finetuned:
        return []
    inspection = Inspection.load(inspect_cached(lineup, control)[0])
    assert inspection is not None  # the line above has just seen to it
    layer = np.array([-1 if (at := parse(n).layer) is None else at for n in inspection.names])
    inside = (layer >= within[0]) & (layer <= within[1])
    found = []
    for i, member in enumerate(lineup.finetuned):
        energy = np.nan_to_num(inspection.gram[:, i + 1, i + 1])
        whole = float(energy[layer >= 0].sum())
        found.append(
            {
                "model": member.name,
                "range": within,
                "energy": float(energy[inside].sum()) / whole if whole else None,
                "parameters": float(inspection.numel[inside].sum())
                / float(inspection.numel[layer >= 0].sum()),
            }
        )
    return found


def _path(
    params: SafetyLayersParams,
    lineup: Lineup,
    normal: Calibration,
    malicious: Calibration,
    keys: list[str],
) -> Path:
    settings = params.model_dump(exclude={"recipe", "fresh"})
    names = [(m.name, m.role) for m in lineup.members]
    parts = [_VERSION, settings, names, keys, normal.digest, malicious.digest]
    if params.locate:
        from trimtab.evaluation.opening import open_suite

        parts.append(open_suite(params.suite).digest)
    text = json.dumps(parts, sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return cache_dir() / "safety-layers" / f"{key}.json"
