"""The files beside the weights: copied, adjusted where they must be, and the result's papers."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from trimtab import __version__
from trimtab.checkpoints import Checkpoint
from trimtab.checkpoints.index import INDEX_NAME
from trimtab.merging.layout import index_json, is_weights
from trimtab.merging.plan import Plan

RECIPE_NAME = "trimtab-recipe.yaml"
REPORT_NAME = "trimtab-report.json"
_OWN = {"README.md", RECIPE_NAME, REPORT_NAME, ".gitattributes"}


def companion_files(plan: Plan, reference: Checkpoint) -> Sequence[Path]:
    """Return the reference's config, tokenizer, template and licence files: all but weights."""
    left_out = _OWN | plan.dropped
    if reference.kind == "file":
        return ()
    return [
        path
        for path in sorted(reference.path.iterdir())
        if path.is_file() and not is_weights(path) and path.name not in left_out
    ]


def written_files(plan: Plan, report: dict[str, Any]) -> dict[str, bytes]:
    """Return the files that are made for the result, by name: index, config, recipe, papers."""
    files = {
        RECIPE_NAME: plan.recipe.to_yaml().encode(),
        REPORT_NAME: json.dumps(
            {**report, "provenance": _provenance(plan)}, indent=2, ensure_ascii=False
        ).encode(),
        "README.md": _model_card(plan).encode(),
    }
    files |= plan.files
    index = index_json(plan.shards, [tensor.name for tensor in plan.tensors])
    if index is not None:
        files[INDEX_NAME] = index.encode()
    config = _config(plan)
    if config is not None:
        files["config.json"] = config
    return files


def _config(plan: Plan) -> bytes | None:
    """Return config.json with what is new in it, None when the reference's own stays as it is."""
    reference = plan.lineup.reference.checkpoint
    if reference.kind == "file" or not reference.config:
        return None
    config = {**reference.config, **plan.config}
    wanted = plan.recipe.output.dtype
    if wanted != "reference":
        keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
        config.update(dict.fromkeys(keys, wanted))
    if config == reference.config:
        return None
    return json.dumps(config, indent=2, ensure_ascii=False).encode()


def _provenance(plan: Plan) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "trimtab": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        "models": [
            {
                "role": member.role,
                "name": member.name,
                "path": str(member.checkpoint.path),
                "fingerprint": member.checkpoint.fingerprint,
            }
            for member in plan.lineup.members
        ],
    }


def _model_card(plan: Plan) -> str:
    reference = plan.lineup.reference
    front = {
        "base_model": [reference.name, *(m.name for m in plan.lineup.finetuned)],
        "base_model_relation": "merge",
        "tags": ["merge", "trimtab"],
    }
    rows = []
    for model, member in zip(plan.recipe.finetuned, plan.lineup.finetuned, strict=True):
        parts = [f"{model.ratio:g}"]
        if model.layers:
            parts.append(f"{len(model.layers)} layers of their own")
        if model.modules:
            parts.append(", ".join(f"{m} ×{f:g}" for m, f in model.modules.items()))
        rows.append(f"| {member.name} | {'; '.join(parts)} |")
    counts = ", ".join(f"{n} {action}" for action, n in sorted(plan.counts.items()))
    parameters = ", ".join(f"{k} = {v}" for k, v in plan.parameters.items())
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
            "---",
            "",
            "# A merged model",
            "",
            f"Made with Trimtab by **{plan.method.title}** ({plan.method.reference}):",
            f"{plan.method.formula}" + (f", {parameters}." if parameters else "."),
            "",
            f"Reference: {reference.name}. Tensors: {counts}.",
            "",
            "| model | ratio |",
            "| --- | --- |",
            *rows,
            "",
            f"The whole recipe is in `{RECIPE_NAME}`; what was done to each tensor, and the",
            f"models' fingerprints, are in `{REPORT_NAME}`.",
            "",
        ]
    )
