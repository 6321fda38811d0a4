"""Spectra and safety layers with known numbers, as the worker's jobs leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.checkpoints import Lineup
from trimtab.inspection.spectra import COARSE, Spectra, spectra_path
from trimtab.inspection.spectra_scan import find_spectra
from trimtab.jobs.control import JobControl


def exact_spectra(lineup: Lineup) -> Spectra:
    """Compute the spectra as the worker does, into the cache."""
    find_spectra(lineup, JobControl(lambda *_: None), "exact", threads=1)
    found = Spectra.load(spectra_path(lineup))
    assert found is not None
    return found


def half_known(found: Spectra) -> Spectra:
    """Return spectra of which every second tensor is coarse and the others unknown."""
    out = found.copy()
    for row in range(len(found.names)):
        if row % 2:
            nothing = Spectra.unknown((found.names[row],), found.finetuned, found.has_alignment)
            nothing.present[:] = found.present[row]
            nothing.matrices[:] = found.matrices[row]
            out.put(row, nothing)
        else:
            out.level[row] = np.where(out.present[row], COARSE, out.level[row])
            known = out.values[row]
            out.lower[row], out.upper[row] = 0.9 * known, 1.1 * known
    return out


def put(lineup: Lineup, found: Spectra) -> Path:
    """Write spectra where the window looks for them."""
    path = spectra_path(lineup)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save(path)
    return path


def scores_result(path: Path, lineup: Lineup, score: str = "snip", mode: str = "") -> Path:
    """Write a result of the job `attribute`: of layer n's weights a tenth of n are the highest."""
    rows = []
    for name in lineup.names:
        parts = name.split(".")
        if parts[1] == "layers" and "norm" not in name:
            layer = int(parts[2])
            rows.append({"name": name, "entries": 64, "total": 64.0 * (1 + layer),
                         "mean": 1.0 + layer, "highest": 9.0, "top": layer})  # fmt: skip
    content = {
        "model": "math", "title": "SNIP", "formula": "", "reference": "", "score": score,
        "mode": mode or "authors' code", "share": 0.01, "seconds": 1.5,
        "tokens": {"all": 2304, "answers": 896}, "tensors": rows, "losses": [0.5, 1.0],
        "calibration": {"calibration": "mine", "digest": "0123456789abcdef", "template": "model",
                        "ids": [f"p{k}" for k in range(40)]},
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def activations_result(path: Path, lineup: Lineup) -> Path:
    """Write a result of the job `activation_subspaces`: the overlap grows with the layer."""
    matrices = []
    for name in lineup.names:
        parts = name.split(".")
        if parts[1] == "layers" and "norm" not in name:
            mso = 0.3 + 0.05 * int(parts[2])
            matrices.append({
                "name": name, "outputs": 8, "safe_k": 4, "useful_k": 4, "overlap": 4 * mso,
                "most": 4, "expected": 0.4, "dealt": [0.3 + 0.01 * k for k in range(20)],
                "relabelled": [3.4 + 0.02 * k for k in range(9)],
                "angles": [10.0, 40.0, 60.0, 80.0], "safe_energy": 9.0, "safe_in_safe": 8.5,
                "safe_in_useful": 6.0, "safe_only": 2.5, "useful_energy": 9.0,
                "useful_in_useful": 8.0, "useful_in_safe": 6.0, "changes": {},
            })  # fmt: skip
    refusal = [
        {"model": name, "block": block, "norm": norm * (1 + block), "chance": 0.5,
         "relative": 0.1 * norm * (1 + block), "cosine": cosine - 0.01 * block,
         "turn": None if block == 0 else 0.9, "spread": 0.1}
        for name, norm, cosine in (("aligned", 4.0, 1.0), ("base", 0.05, 0.3), ("math", 3.0, 0.7),
                                   ("code", 3.9, 0.98))
        for block in range(6)
    ]  # fmt: skip
    about = {"model": "aligned", "examples": 40, "counted": {"all": 2000, "answers": 800},
             "digest": "fedcba9876543210", "safe": "refusals", "useful": "benign"}  # fmt: skip
    content = {"about": about, "matrices": matrices, "refusal": refusal}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def layers_result(
    path: Path, blocks: int = 6, initial: tuple[int, int] | None = (1, 3), located: Any = None
) -> Path:
    """Write a result of the job `safety_layers` whose gaps are 40, 5, 20 and 10 degrees."""

    def curve(value: float) -> dict[str, list[float]]:
        return {"mean": [value] * blocks, "std": [0.02] * blocks}

    def gap(value: float) -> dict[str, list[float]]:
        step = [value + k for k in range(blocks)]
        return {"value": step, "low": [v - 2 for v in step], "high": [v + 3 for v in step]}

    models = [
        {
            "name": name, "role": role,
            "initial": list(initial) if initial and name == "aligned" else None,
            "curves": {"nn": curve(0.95), "mm": curve(0.9), "nm": curve(0.7)},
            "gap": {"ours": gap(value), "paper": [value + 0.5] * blocks,
                    "authors' code": [value + 1.0] * blocks},
        }
        for name, role, value in (("base", "base", 5.0), ("aligned", "aligned", 40.0),
                                  ("math", "finetuned", 20.0), ("code", "finetuned", 10.0))
    ]  # fmt: skip
    content = {
        "reference": "aligned", "published": "Li et al. 2025, arXiv 2408.17003",
        "formulas": {"ours": "mean of all pairs", "paper": "mean_s", "authors' code": "arccos"},
        "pairs": 500, "resamples": 2000, "seed": 0, "template": "model",
        "normal": {"name": "core utility", "n": 100, "digest": "1"},
        "malicious": {"name": "core harmful", "n": 90, "digest": "2"},
        "models": models,
        "lost": [{"model": "math", **gap(20.0)}, {"model": "code", **gap(30.0)}],
        "located": located,
        "shares": [{"model": "math", "range": [1, 3], "energy": 0.62, "parameters": 0.5},
                   {"model": "code", "range": [1, 3], "energy": 0.4, "parameters": 0.5}],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
