"""Small sweeps as files, by the description at the top of `trimtab.search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.merging.recipe import Recipe


def point(number: int, refusal: float, utility: float, **changes: Any) -> dict[str, Any]:
    return {
        "number": number, "name": f"trial {number}", "state": "done", "why": "", "seconds": 0.1,
        "params": {}, "values": {"refusal": refusal, "over_refusal": 0.1, "task": utility},
        "measured": {}, "feasible": True, "violations": {}, **changes,
    }  # fmt: skip


def sweep(trials: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What a sweep writes, by the description at the top of `trimtab.search`."""
    return {
        "trimtab_sweep": 1, "status": "searching", "error": None, "folder": "", "started": "",
        "seconds": 1.0, "sampler": "nsga2", "seed": 0, "measure": "answers",
        "trials_done": len(trials), "trials_failed": 0, "trials_wanted": 60,
        "minutes_wanted": None,
        "objectives": [
            {"id": "refusal", "title": "Refusal of harmful", "better": "higher"},
            {"id": "over_refusal", "title": "Over-refusal", "better": "lower"},
            {"id": "task", "title": "Task accuracy", "better": "higher"},
        ],
        "constraints": [], "suite": {}, "dimensions": [], "trials": trials, "front": [],
        "baselines": [point(-1, 0.95, 0.1, name="aligned")], "best_linear": None,
        "hypervolume": [], "held_out": None, **changes,
    }  # fmt: skip


def write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "sweep.json.partial"
    partial.write_text(json.dumps(content))
    partial.replace(folder / "sweep.json")


def text_of(recipe: Recipe) -> str:
    return json.dumps(recipe.model_dump(mode="json", exclude_defaults=True) | {"trimtab": 1})
