"""What the results table tries on the demo's poisoned model: each method and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trimtab_resources
from trimtab.control import Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.pairs import demo_pairs_file
from trimtab.demo.useful import demo_useful_file
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe

POISONED = "task-poisoned"
Settings = Mapping[str, Any]
#: f(settings, seed, folder for what it makes on the way) -> recipe
Make = Callable[[Settings, int, Path], Recipe]


@dataclass(frozen=True)
class Tried:
    """A method as it is tried: its defaults come first; `seeded` where chance counts."""

    key: str
    title: str
    make: Make
    settings: Sequence[Settings]
    seeded: bool = False
    needs: str = "nothing"


def lineup(*finetuned: FineTuned, method: str = "task_arithmetic", **more: Any) -> Recipe:
    """Return a recipe on the demo's base and aligned model."""
    paths = demo_paths()
    return Recipe(
        method=method,
        base=ModelRef(path=str(paths["base"]), name="base"),
        aligned=ModelRef(path=str(paths["aligned"]), name="aligned"),
        finetuned=finetuned,
        **more,
    )


def poisoned(ratio: float = 1.0, **more: Any) -> FineTuned:
    """Return the demo's poisoned fine-tune as a part of a recipe."""
    path = demo_paths()[POISONED]
    return FineTuned(path=str(path), name=POISONED, ratio=ratio, **more)


def _unsafe() -> FineTuned:
    """The same model once more, as the one made unsafe: no other harmful one is in the lineup."""
    return FineTuned(path=str(demo_paths()[POISONED]), name="unsafe")


def _weights(method: str, *others: Callable[[], FineTuned]) -> Make:
    def make(settings: Settings, seed: int, folder: Path) -> Recipe:
        values = dict(settings)
        ratio = values.pop("ratio", 1.0)
        models = (poisoned(ratio), *(other() for other in others))
        return lineup(*models, method=method, parameters=values, seed=seed)

    return make


def _safe() -> FineTuned:
    """The aligned model as SafeMERGE's safe one: no safety-tuned model is in the lineup."""
    return FineTuned(path=str(demo_paths()["aligned"]), name="safe")


def _layers(settings: Settings, seed: int, folder: Path) -> Recipe:
    rule = Rule(layers=(settings["first"], settings["last"]))
    return lineup(poisoned(masks=(MaskEntry(rule=rule, invert=True),)))


def _somf(settings: Settings, seed: int, folder: Path) -> Recipe:
    """Learn once for each seed, and make the form of mask that is wanted of the logits."""
    values = dict(settings)
    form = values.pop("form")
    name = "-".join(str(v) for v in values.values())
    stem = f"somf-{name}-{seed}"
    learned, mask = (folder / f"{stem}{end}.mask.safetensors" for end in ("", f"-{form}"))
    if not learned.exists():
        params = {
            "recipe": lineup(poisoned()).model_dump(mode="json"), "pairs": str(demo_pairs_file()),
            "output": str(learned), "seed": seed, "device": "cpu", **values,
        }  # fmt: skip
        run_job("somf", params, Unattended())
    if not mask.exists():
        logits = folder / f"{stem}.logits.safetensors"
        params = {"logits": str(logits), "output": str(mask), "form": form}
        run_job("somf_export", params, Unattended())
    return lineup(poisoned(masks=(MaskEntry(path=str(mask)),), rescale=True))


def _antidote(settings: Settings, seed: int, folder: Path) -> Recipe:
    values = dict(settings)
    rescale = values.pop("rescale", False)
    name = "-".join(f"{k}={v}" for k, v in sorted(values.items()))
    output = folder / f"antidote-{name}.mask.safetensors"
    if not output.exists():
        calibration = trimtab_resources.path("demo", "calibration", "demo-harmful.jsonl")
        params = {
            "recipe": lineup(poisoned()).model_dump(mode="json"), "calibration": str(calibration),
            "output": str(output), "device": "cpu", **values,
        }  # fmt: skip
        run_job("antidote", params, Unattended())
    return lineup(poisoned(masks=(MaskEntry(path=str(output)),), rescale=rescale))


def _set_difference(settings: Settings, seed: int, folder: Path) -> Recipe:
    name = "-".join(f"{k}={v}" for k, v in sorted(settings.items()))
    output = folder / f"set-difference-{name}.mask.safetensors"
    if not output.exists():
        params = {
            "method": "set-difference", "recipe": lineup(poisoned()).model_dump(mode="json"),
            "safety": "demo-refused", "utility": [str(demo_useful_file())],
            "output": str(output), "device": "cpu", "options": dict(settings),
        }  # fmt: skip
        run_job("realign", params, Unattended())
    return lineup(poisoned(masks=(MaskEntry(path=str(output)),)))


def _grid(name: str, first: Any, *others: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in (first, *others)]


TRIED: tuple[Tried, ...] = (
    Tried(
        "linear", "Best linear ratio", _weights("task_arithmetic"),
        _grid("ratio", 0.5, 0.3, 0.35, 0.4, 0.45, 0.55, 0.6, 0.65, 0.7, 0.8),
    ),
    Tried(
        "dare", "DARE (paper)", _weights("dare_linear"),
        [
            {"ratio": r, "density": d}
            for d in (0.5, 0.2, 0.8)
            for r in (1.0, 0.6, 0.5, 0.4)
        ],
        seeded=True,
    ),
    Tried(
        "ties", "TIES (mergekit)", _weights("ties"),
        [{"density": d} for d in (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)],
    ),
    Tried(
        "safe_lora", "Safe LoRA (paper)", _weights("safe_lora"),
        _grid("threshold", 0.5, 0.3, 0.35, 0.4, 0.45, 0.6),
    ),
    Tried(
        "safe_lora_projector", "Safe LoRA, true projector (ours)", _weights("safe_lora_projector"),
        [{"threshold": 0.5, "energy": 0.9}]
        + [{"threshold": t, "energy": e} for t in (0.6, 0.7, 0.8, 1.0) for e in (0.8, 0.9, 0.99)],
    ),
    Tried(
        "safemerge", "SafeMERGE (ours), the aligned model as the safe one",
        _weights("safemerge", _safe),
        [
            {"threshold": t, "weight": w}
            for t, w in ((0.35, 0.8), (0.35, 0.4), (0.5, 0.6), (0.5, 0.4), (0.45, 0.4), (0.45, 0.2))
        ],
        needs="a safety-tuned model",
    ),
    Tried(
        "alignment_subspace", "Outside the alignment subspace (paper)",
        _weights("alignment_subspace"),
        [{"share": s} for s in (0.25, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.35, 0.5)],
    ),
    Tried(
        "lox", "LoX (paper), on the fine-tuned model", _weights("lox"),
        [
            {"rank": k, "strength": c}
            for k, c in ((6, 1.25), (6, 0.25), (6, 0.5), (6, 0.75), (2, 1.0), (16, 0.25), (16, 0.5))
        ],
    ),
    Tried(
        "resta", "RESTA (paper), the model itself as the unsafe one", _weights("resta", _unsafe),
        _grid("gamma", 0.5, 0.2, 0.3, 0.4, 0.6),
        needs="a model made unsafe",
    ),
    Tried(
        "safety_arithmetic", "Safety Arithmetic, weights (paper), the model itself as harmful",
        _weights("safety_arithmetic", _unsafe),
        [{"strength": 3.0, "share": 0.1}]
        + [{"strength": s, "share": k} for s in (1.0, 2.0, 3.0) for k in (0.05, 0.1, 0.2)],
        needs="a harmful model",
    ),
    Tried(
        "layers", "Layers 0 to k kept aligned (mask by rule)", _layers,
        [{"first": 0, "last": last} for last in (1, 0, 2, 3)],
    ),
    Tried(
        "antidote", "Antidote, delta-revert (ours)", _antidote,
        [{"alpha": 0.1}]
        + [{"alpha": a} for a in (0.05, 0.15, 0.2, 0.25, 0.3)]
        + [{"alpha": a, "rescale": True} for a in (0.2, 0.3, 0.4)],
        needs="harmful prompts with harmful answers",
    ),
    Tried(
        "set_difference", "Set difference of SNIP scores, back to aligned (ours)", _set_difference,
        [{}]
        + [{"safety": q, "utility": p} for q in (0.2, 0.3, 0.4) for p in (0.05, 0.1, 0.2)],
        needs="harmful prompts with refusals, and prompts of the task",
    ),
    *(
        Tried(
            f"somf_{granularity}", f"SOMF per {granularity} ({mode}), {word}", _somf,
            [
                {"granularity": granularity, "rate": rate, "steps": steps, "form": form}
                for rate, steps in ((1e-3, 500), (best, n))
            ],
            seeded=True, needs="preference pairs",
        )
        for granularity, mode, best, n in (
            ("row", "ours", 0.05, 150), ("parameter", "paper", 0.01, 300),
        )
        for form, word in (("expected", "expected mask"), ("threshold", "bits"))
    ),
)  # fmt: skip
