"""Where the shipped demo models and their prompts lie."""

from __future__ import annotations

from pathlib import Path

import trimtab_resources

MODEL_NAMES: tuple[str, ...] = (
    "base",
    "aligned",
    "task-clean",
    "task-poisoned",
    "task-second",
    "adapter",
)


def demo_root() -> Path:
    """The folder that holds the demo models, `manifest.json` and `prompts/`."""
    return trimtab_resources.path("demo")


def demo_paths() -> dict[str, Path]:
    """The folder of each single demo model, by name; `adapter` is a LoRA adapter on `aligned`."""
    return {name: demo_root() / name for name in MODEL_NAMES}


def series_paths() -> list[Path]:
    """The checkpoints along the poisoned run, in training order; the last is `task-poisoned`."""
    return sorted((demo_root() / "series").glob("step-*"))
