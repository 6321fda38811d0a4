"""Useful prompts of the demo's language: its first task, as the models were trained on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trimtab.demo.language import LANGUAGE_VERSION, prompts
from trimtab.paths import cache_dir


def demo_useful_file() -> Path:
    """Write the task's training prompts with their answers into the cache, and return the file.

    None is among the held-out prompts that models are scored on.
    """
    path = cache_dir() / "calibration" / f"demo-task-{LANGUAGE_VERSION}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"id": p.id, "prompt": p.prompt, "answer": p.reference}, ensure_ascii=False)
            for p in prompts("task-a", "train")
        ]
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)
    return path
