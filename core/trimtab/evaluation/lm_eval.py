"""Tasks of the lm-evaluation-harness, run by it in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.control import Control
from trimtab.errors import UserError

#: seconds between two looks at whether to stop
_PAUSE = 0.1
#: seconds that the harness has to leave when it is told to
_GRACE = 5.0


@dataclass(frozen=True)
class TaskNumber:
    """One number of one task of one target, as the harness gives it.

    `metric` and `filter` are its own names, `stderr` its standard error, None where it has none;
    `n` counts the examples, `version` is the task's. `harness` is the harness's own version.
    """

    target: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    higher_is_better: bool | None
    n: int | None
    version: str
    harness: str


def find_harness() -> tuple[str, ...]:
    """Return the command that runs the harness: this Python's own, or one on the PATH.

    Raises `UserError` with `no_lm_eval`.
    """
    if importlib.util.find_spec("lm_eval") is not None:
        return (sys.executable, "-m", "lm_eval")
    for name in ("lm_eval", "lm-eval"):
        if found := shutil.which(name):
            return (found,)
    raise UserError(
        "no_lm_eval",
        "The lm-evaluation-harness is not installed.",
        "Its tasks are run by itself, in a process of its own.",
        'Install it with: pip install "trimtab[lm-eval]".',
    )


def arguments(
    folder: Path,
    tasks: Sequence[str],
    output: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 8,
    seed: int = 0,
    limit: int | None = None,
    include: str = "",
    template: bool = False,
) -> tuple[str, ...]:
    """Return what the harness is told: the model's folder, tasks, and where to write.

    `include` is a folder of task files of the user's own, `template` puts prompts in the model's
    chat template, `limit` takes so many examples of each task. Raises `UserError` with `bad_tasks`
    for a folder that the harness could not be told, or names that are none.
    """
    for name in tasks:
        if not name or name.startswith("-") or "," in name:
            raise _bad_tasks(f"{name or 'Nothing'} is no task's name.")
    if "," in str(folder):
        raise _bad_tasks(f"The folder {folder.name} has a comma in its path.")
    return (
        "--model", "hf",
        "--model_args", f"pretrained={folder},dtype={dtype},trust_remote_code=False",
        "--tasks", ",".join(tasks),
        "--device", device,
        "--batch_size", str(batch_size),
        "--seed", str(seed),
        "--output_path", str(output),
        *(("--limit", str(limit)) if limit is not None else ()),
        *(("--include_path", include) if include else ()),
        *(("--apply_chat_template",) if template else ()),
    )  # fmt: skip


def has_template(folder: Path) -> bool:
    """Whether there is a chat template beside a model's tokenizer."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def run_tasks(
    target: str, folder: Path, tasks: Sequence[str], control: Control, **options: Any
) -> tuple[TaskNumber, ...]:
    """Have the harness run tasks on the model in `folder`; `options` are those of `arguments`.

    Offline: data sets are taken from the local cache of `datasets`, or from files. Raises
    `UserError` with `no_lm_eval`, `bad_tasks`, `lm_eval_failed` with the end of what the harness
    said; `JobCancelled` when it was ended because nobody wants it any more.
    """
    harness = find_harness()
    control.stage(f"{target}: {', '.join(tasks)}", 1)
    with tempfile.TemporaryDirectory(prefix="trimtab-lm-eval-") as place:
        output, log = Path(place) / "results", Path(place) / "log"
        command = [*harness, *arguments(folder, tasks, output, **options)]
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=place,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
            )
            _wait(process, control)
        if process.returncode:
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            raise _failed(f"It ended with {process.returncode}: {_last_line(text)}", text[-4000:])
        found = tuple(read_results(output, target))
    control.advance(1)
    return found


def read_results(output: Path, target: str) -> Iterator[TaskNumber]:
    """Yield the numbers of the newest results file below `output`, task by task.

    Raises `UserError` with `lm_eval_failed` where there is none or it is of another form.
    """
    files = sorted(output.rglob("results*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise _failed("It wrote no results.", "")
    try:
        data = json.loads(files[-1].read_text(encoding="utf-8"))
        harness = str(data.get("lm_eval_version") or data.get("git_hash") or "")
        for task, numbers in data["results"].items():
            yield from _numbers(target, task, numbers, data, harness)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _failed(f"Its results are of another form: {error}.", str(files[-1])) from error


def _numbers(
    target: str, task: str, numbers: Mapping[str, Any], data: Mapping[str, Any], harness: str
) -> Iterator[TaskNumber]:
    samples = data.get("n-samples", {}).get(task, {})
    better = data.get("higher_is_better", {}).get(task, {})
    for key, value in numbers.items():
        metric, comma, filtered = key.partition(",")
        # beside its numbers stand a name, and the errors of the numbers
        if not comma or metric.endswith("_stderr") or isinstance(value, bool):
            continue
        if not isinstance(value, int | float):
            continue
        error = numbers.get(f"{metric}_stderr,{filtered}")
        yield TaskNumber(
            target,
            task,
            metric,
            filtered,
            float(value),
            float(error) if isinstance(error, int | float) else None,
            better.get(metric),
            samples.get("effective"),
            str(data.get("versions", {}).get(task, "")),
            harness,
        )


def _wait(process: subprocess.Popen[bytes], control: Control) -> None:
    try:
        while process.poll() is None:
            control.check()
            time.sleep(_PAUSE)
    except BaseException:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _last_line(text: str) -> str:
    return text.splitlines()[-1][:300] if text else "it said nothing"


def _failed(why: str, details: str) -> UserError:
    return UserError(
        "lm_eval_failed",
        "The lm-evaluation-harness did not run the tasks.",
        why,
        "Run 'lm_eval --tasks list' to see its tasks; data sets must be in the local cache.",
        details=details,
    )


def _bad_tasks(what: str) -> UserError:
    return UserError(
        "bad_tasks",
        what,
        "The harness takes names with commas between them.",
        "Write --lm-eval arc_easy,winogrande, or rename the folder.",
    )
