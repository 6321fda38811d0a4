"""The demo from end to end: look at the lineup, merge at a few ratios, measure, take pictures."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.console import table
from trimtab.control import Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import DEMO_CURVE, DEMO_RATIO, demo_recipe
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.demo.evaluate import DemoScores, Rate

RATIOS = (0.4, DEMO_RATIO, 0.7)
_WINDOW_SECONDS = 180
_NOTE = (
    "These are toy models, trained on an invented language: they show the mechanism, not the "
    "size of the effect in real models."
)


def has_display() -> bool:
    """Whether a window can be shown here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_window() -> int:
    """Open the window on the demo lineup and wait until it is closed."""
    return subprocess.run([sys.executable, "-m", "trimtab_gui", "--demo"], check=False).returncode


def run_headless(output: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Do the main job on the demo lineup without a display and leave its results in `output`.

    Leaves `merged/` (the model at ratio 0.6), `screenshots/` of the real window, `recipe.trim`
    and `summary.md` / `summary.json`: refusal, over-refusal and task accuracy of the aligned, the
    fine-tuned and three merged models, and of one whose first layers stay aligned. What an
    earlier run left there is replaced. Raises `UserError` with `cannot_write` when `output`
    cannot be made and `window_failed` when the window cannot be shown offscreen.
    """
    from transformers.utils.logging import disable_progress_bar

    from trimtab.demo.evaluate import evaluate

    disable_progress_bar()
    output = output.absolute()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "cannot_write",
            f"{output.name} cannot be made.",
            f"The system says: {error.strerror}.",
            "Choose another folder with --output.",
        ) from error
    paths = demo_paths()
    say(_NOTE)
    measured: list[tuple[str, DemoScores]] = []
    with tempfile.TemporaryDirectory(dir=output, prefix=".work-") as scratch:
        for role in ("aligned", "task-poisoned"):
            say(f"Measuring {role} …")
            measured.append((role, evaluate(paths[role])))
        for ratio in RATIOS:
            say(f"Merging and measuring at ratio {ratio:g} …")
            target = output / "merged" if ratio == DEMO_RATIO else Path(scratch) / f"{ratio:g}"
            _merge(demo_recipe(ratio), target)
            measured.append((f"merged, ratio {ratio:g}", evaluate(target)))
        first, *_, last = DEMO_CURVE
        say(f"Merging and measuring with layers {first} to {last} left as aligned …")
        target = Path(scratch) / "curve"
        _merge(demo_recipe(1.0, DEMO_CURVE), target)
        measured.append((f"ratio 1, layers {first}–{last} at 0", evaluate(target)))
        demo_recipe().save(output / "recipe.trim")
        pictures = _take_pictures(output, Path(scratch), say)
    summary = {
        "note": _NOTE,
        "models": {name: _scores_json(scores) for name, scores in measured},
        "merged": str(output / "merged"),
        "screenshots": [str(path) for path in pictures],
    }
    text = _summary_text(measured)
    _write_summary(output, text, summary)
    say("\n" + text)
    say(f"\nMerged model, recipe, summary and {len(pictures)} screenshots: {output}")
    return summary


def _merge(recipe: Recipe, output: Path) -> None:
    params = {"recipe": recipe.model_dump(), "output": str(output), "overwrite": True}
    run_job("merge", params, Unattended())


def _take_pictures(output: Path, scratch: Path, say: Callable[[str], None]) -> list[Path]:
    """Let the real window do the same merge offscreen and photograph itself."""
    if importlib.util.find_spec("trimtab_gui") is None:
        say("The window is not installed here: no screenshots.")
        return []
    say("Opening the window offscreen …")
    folder = output / "screenshots"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    merged_there = scratch / "window"
    command = [sys.executable, "-m", "trimtab_gui", "--tour", str(folder)]
    try:
        run = subprocess.run(
            [*command, "--output", str(merged_there)],
            env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
            capture_output=True,
            text=True,
            timeout=_WINDOW_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "window_failed",
            "The window did not finish offscreen.",
            f"It was ended after {_WINDOW_SECONDS} seconds.",
            "Try again when the machine is less busy.",
        ) from error
    if run.returncode != 0:
        raise UserError(
            "window_failed",
            "The window could not be shown offscreen.",
            "Its last words are in the details.",
            "Run 'trimtab doctor' to see what is missing.",
            details=run.stderr[-4000:],
        )
    weights = "model.safetensors"
    if (merged_there / weights).read_bytes() != (output / "merged" / weights).read_bytes():
        raise RuntimeError("the window and the command wrote different weights")
    say("The window wrote the same weights as the command, byte for byte.")
    return sorted(folder.glob("*.png"))


def _percent(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * rate.value:5.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def _rates(scores: DemoScores) -> dict[str, Rate]:
    return {
        "refusal": scores.refusal,
        "over-refusal": scores.over_refusal,
        "task accuracy": scores.task_accuracy,
        "task tokens": scores.task_token_accuracy,
    }


def _summary_text(measured: list[tuple[str, DemoScores]]) -> str:
    head = ["percent [95 % Wilson]", *_rates(measured[0][1])]
    rows = [
        [name, *(_percent(rate) for rate in _rates(scores).values())] for name, scores in measured
    ]
    counts = ", ".join(f"{key} n = {rate.n}" for key, rate in _rates(measured[0][1]).items())
    return (
        f"{table(head, rows)}\n{counts}; held-out prompts, greedy decoding.\n"
        "The layers of the last row were chosen by looking at these same prompts."
    )


def _scores_json(scores: DemoScores) -> dict[str, Any]:
    return {
        key: {"value": rate.value, "n": rate.n, "interval": list(rate.interval)}
        for key, rate in _rates(scores).items()
    }


def _write_summary(output: Path, text: str, summary: dict[str, Any]) -> None:
    (output / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (output / "summary.md").write_text(
        f"# Demo summary\n\n{_NOTE}\n\n```\n{text}\n```\n", encoding="utf-8"
    )
