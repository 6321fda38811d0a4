"""Small lineups with known numbers, and windows that show them without a worker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from trimtab.checkpoints import Lineup
from trimtab.inspection.result import Inspection
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab_gui.jobs import JobController

HIDDEN = 8
LAYERS = 6
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")


class IdleJobs(JobController):
    """Takes jobs and never runs one: what a window does without its worker."""

    def _next(self) -> None:
        return


def names(layers: int = LAYERS) -> list[str]:
    found = ["model.embed_tokens.weight"]
    for layer in range(layers):
        found += [f"model.layers.{layer}.self_attn.{m}.weight" for m in MODULES]
        found += [f"model.layers.{layer}.mlp.{m}_proj.weight" for m in ("gate", "up", "down")]
        found += [f"model.layers.{layer}.input_layernorm.weight"]
    return [*found, "model.norm.weight", "lm_head.weight"]


def write_model(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_lineup(root: Path, layers: int = LAYERS) -> dict[str, Path]:
    """Write base, aligned and two fine-tuned models whose changes vary smoothly over the layers."""
    random = np.random.default_rng(7)
    base: dict[str, np.ndarray] = {}
    for name in names(layers):
        shape = (HIDDEN,) if "norm" in name else (HIDDEN, HIDDEN)
        base[name] = random.normal(0, 1, shape).astype(np.float32)

    def moved(start: dict[str, np.ndarray], size: float, peak: float) -> dict[str, np.ndarray]:
        out = {}
        for i, (name, value) in enumerate(start.items()):
            place = i / len(start)
            scale = size * (0.3 + np.exp(-((place - peak) ** 2) / 0.05))
            out[name] = (value + scale * random.normal(0, 1, value.shape)).astype(np.float32)
        return out

    aligned = moved(base, 0.05, 0.5)
    return {
        "base": write_model(root / "base", base),
        "aligned": write_model(root / "aligned", aligned),
        "math": write_model(root / "math", moved(aligned, 0.08, 0.3)),
        "code": write_model(root / "code", moved(aligned, 0.06, 0.8)),
    }


def recipe_of(paths: dict[str, Path], ratio: float = 0.6) -> Recipe:
    return Recipe(
        base=ModelRef(path=str(paths["base"])),
        aligned=ModelRef(path=str(paths["aligned"])),
        finetuned=(
            FineTuned(path=str(paths["math"]), ratio=ratio),
            FineTuned(path=str(paths["code"]), ratio=0.3),
        ),
    )


def inspect(lineup: Lineup) -> Inspection:
    """Compute in float64, from the formulas, what the worker's inspection finds."""
    stored = {m.name: load_file(m.checkpoint.files[0]) for m in lineup.members}
    models = [m.name for m in lineup.finetuned]
    n, m = len(lineup.names), len(models)
    gram = np.zeros((n, m + 1, m + 1))
    ref_dots = np.zeros((n, m + 1))
    norm2, numel = np.zeros(n), np.zeros(n, dtype=np.int64)
    conflicts, zeros = np.zeros((n, m), dtype=np.int64), np.zeros((n, m), dtype=np.int64)
    for row, name in enumerate(lineup.names):
        reference = stored[lineup.reference.name][name].astype(np.float64).ravel()
        base = stored["base"][name].astype(np.float64).ravel()
        a = reference - base
        taus = [stored[x][name].astype(np.float64).ravel() - reference for x in models]
        vectors = np.stack([a, *taus])
        gram[row] = vectors @ vectors.T
        ref_dots[row] = vectors @ reference
        norm2[row], numel[row] = reference @ reference, reference.size
        for i, tau in enumerate(taus):
            conflicts[row, i] = int((tau * a < 0).sum())
            zeros[row, i] = int((tau == 0).sum())
    return Inspection(
        names=lineup.names,
        finetuned=tuple(models),
        has_alignment=True,
        gram=gram,
        ref_dots=ref_dots,
        norm2=norm2,
        numel=numel,
        conflicts=conflicts,
        zeros=zeros,
        non_finite=np.zeros((n, m + 2), dtype=np.int64),
    )
