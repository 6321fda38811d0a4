"""Kills merges at random moments, resumes them, and holds the results against undisturbed ones.

    python benchmarks/kill_resume.py --times N [--methods linear,ties] [--size 0.4B] [--seed S]

Makes a base and two fine-tuned Llamas on the spot. Each time a merge is started and gets SIGKILL at
a moment drawn uniformly from the time between its first trace on the disk and its final name in an
undisturbed run. Of ten times, one is from its start-up, one from its close, between the report and
the rename, and one when the journal goes while the name is not yet final. Every other round it is
about to replace an older folder. Then `--resume` must end in files that are byte for byte those of
the undisturbed run, but for the report, which tells when it ran. A refusal to resume is right only
where nothing was finished yet: then the merge is started anew. A merge that was over before its
kill is compared, and does not count. Exit status 1: bytes differ, work is lost, or something is
left lying about.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkpoints
import measuring
from merge_vs_mergekit import SETTINGS, document

REPORT = "trimtab-report.json"  # says when and how long: the one file that may differ
OLD = "old.txt"  # what the folder holds that is to be replaced
SINCE = ("its start", "the first trace", "the report", "the final name came")
STAGES = (
    "before it began", "begun, no piece finished", "under half finished", "over half finished",
    "all pieces finished", "over before the kill",
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """When to kill: seconds after one of `SINCE`, in this order in a merge."""

    seconds: float
    since: str

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s after {self.since}"


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed merge: its result, and the seconds of start-up, work and close."""

    spans: tuple[float, float, float]
    result: Path

    def moment(self, number: int, moments: random.Random) -> Moment:
        """Draw the moment of a kill."""
        start_up, work, close = self.spans
        special = {4: (SINCE[2], close), 7: (SINCE[3], 0.002), 9: (SINCE[0], start_up)}
        since, span = special.get(number % 10, (SINCE[1], work + close))
        return Moment(moments.uniform(0, span), since)


@dataclass(frozen=True)
class Kill:
    """One kill: when, what it found, how it went on, and what was wrong with that."""

    method: str
    replacing: bool
    moment: Moment
    stage: str
    pieces: int
    went_on: str
    fault: str


def partial_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def finished_pieces(output: Path) -> tuple[int, int]:
    """Return how many pieces the journal of an interrupted merge tells of, and their bytes."""
    count = n_bytes = 0
    for path in partial_of(output).glob("*journal*"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if isinstance(entry, dict) and "bytes" in entry:
                count, n_bytes = count + 1, n_bytes + int(entry["bytes"])
    return count, n_bytes


def stage_of(output: Path, running: bool, total: int) -> tuple[str, int]:
    """Return how far an interrupted merge came, in words, and its finished pieces."""
    partial = partial_of(output)
    if output.exists() and any(output.glob("*journal*")):
        return STAGES[4], 0  # it has its name, and was about to drop its journal
    if not running or not (partial.exists() or not output.exists() or (output / OLD).exists()):
        return STAGES[5], 0
    if not partial.exists():
        return STAGES[0], 0
    pieces, n_bytes = finished_pieces(output)
    weights = any(partial.glob("*.safetensors"))
    if n_bytes >= total or (weights and not any(partial.glob("*journal*"))):
        return STAGES[4], pieces
    if not pieces:
        return STAGES[1], 0
    return STAGES[2 if n_bytes < total / 2 else 3], pieces


def difference(output: Path, wanted: Path) -> str:
    """Return in what a result differs from the undisturbed one, "" where it does not."""
    names = {path.name for path in wanted.iterdir()}
    found = {path.name for path in output.iterdir()} if output.exists() else set()
    if found != names:
        return f"{', '.join(sorted(found ^ names))}: in one of both only"
    _, differing, unreadable = filecmp.cmpfiles(
        output, wanted, sorted(names - {REPORT}), shallow=False
    )
    return f"{', '.join(differing + unreadable)} differ" if differing or unreadable else ""


def start_over(folder: Path, output: Path, replacing: bool) -> None:
    """Leave nothing of the time before but, where asked for, an older folder to replace."""
    for path in folder.glob(f"{output.name}*"):
        shutil.rmtree(path)
    if replacing:
        output.mkdir()
        (output / OLD).write_text("an older result\n")


def start(command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_for(since: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until a merge has come so far, or is over."""
    partial = partial_of(output)
    if since == SINCE[0]:
        return
    come = False
    while process.poll() is None:
        come = come or (partial / REPORT if since in SINCE[2:] else partial).exists()
        if come and (since != SINCE[3] or not partial.exists()):
            return
        time.sleep(0.0005)


def killed(command: Sequence[str | Path], output: Path, moment: Moment) -> bool:
    """Start a command and kill it and its children; returns whether it still ran then."""
    process = start(command)
    wait_for(moment.since, process, output)
    time.sleep(moment.seconds)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def old_is_safe(folder: Path, output: Path) -> bool:
    """Whether the older folder or the whole new one is still there after a kill."""
    moved = list(folder.glob(f"{output.name}.replaced-*"))
    return output.exists() or any((path / OLD).exists() for path in moved)


def go_on(
    recipe: Path, output: Path, overwrite: Sequence[str], pieces: int, stage: str
) -> tuple[str, str]:
    """Resume, or start anew where there is nothing to resume; returns what was done, and faults."""
    resumed = measuring.run(measuring.trimtab(recipe, output, "--resume", *overwrite))
    if resumed.status == 0:
        return "resumed", ""
    code = measuring.error_code(resumed)
    if code != "cannot_resume":
        return "refused", f"resuming fails: {code or resumed.last_words}"
    if pieces or stage == STAGES[4]:
        return "refused", f"work is lost: {pieces} finished pieces cannot be resumed"
    anew = measuring.run(measuring.trimtab(recipe, output, *overwrite))
    if anew.status and measuring.error_code(anew) == "unfinished_exists":
        anew = measuring.run(measuring.trimtab(recipe, output, "--overwrite"))
    if anew.status:
        return "started anew", measuring.error_code(anew) or anew.last_words
    return "started anew", ""


def kill_once(folder: Path, method: str, wanted: Path, replacing: bool, moment: Moment) -> Kill:
    """Kill one merge, let it go on and compare its result."""
    recipe, output = folder / f"{method}.yml", folder / "merged"
    start_over(folder, output, replacing)
    overwrite = ["--overwrite"] if replacing else []
    running = killed(measuring.trimtab(recipe, output, *overwrite), output, moment)
    total = sum(path.stat().st_size for path in wanted.glob("*.safetensors"))
    # the headers are not in the journal's pieces
    stage, pieces = stage_of(output, running, int(total * 0.999))
    fault = ""
    if replacing and not old_is_safe(folder, output):
        fault = "neither the older folder nor the new one is there"
    went_on = "nothing to do"
    if stage != STAGES[5]:
        went_on, trouble = go_on(recipe, output, overwrite, pieces, stage)
        fault = fault or trouble
    fault = fault or difference(output, wanted)
    left = sorted(path.name for path in folder.glob(f"{output.name}.*"))
    if not fault and left and went_on != "nothing to do":
        fault = f"left lying about: {', '.join(left)}"
    return Kill(method, replacing, moment, stage, pieces, went_on, fault)


def undisturbed(folder: Path, models: Path, method: str) -> Undisturbed:
    """Merge twice without a disturbance; both must be the same, and the quicker one counts."""
    recipe = folder / f"{method}.yml"
    recipe.write_text(document(method, models))
    runs = []
    for name in ("first", "second"):
        output = folder / f"{name}-{method}"
        os.sync()
        measuring.read_all(models)
        times = [time.perf_counter()]
        process = start(measuring.trimtab(recipe, output))
        for since in SINCE[1:3]:
            wait_for(since, process, output)
            times.append(time.perf_counter())
        while process.poll() is None and partial_of(output).exists():
            time.sleep(0.0005)
        times.append(time.perf_counter())
        spans = (times[1] - times[0], times[2] - times[1], times[3] - times[2])
        runs.append(Undisturbed(spans, output))
        if process.wait():
            raise SystemExit(f"{method} does not merge: exit status {process.returncode}")
    apart = difference(runs[0].result, runs[1].result)
    if apart:
        raise SystemExit(f"{method} is not the same twice, undisturbed: {apart}")
    return min(runs, key=lambda run: sum(run.spans[1:]))


def show(kills: Sequence[Kill]) -> None:
    methods = list(dict.fromkeys(kill.method for kill in kills))
    head = "".join(f"{method:>17}" for method in methods)
    print(f"{'killed':<28}{head}{'resumed':>10}{'anew':>7}{'faults':>8}")
    for stage in STAGES:
        of = [kill for kill in kills if kill.stage == stage]
        counts = Counter(kill.method for kill in of)
        cells = "".join(f"{counts[method]:>17}" for method in methods)
        ways = Counter(kill.went_on for kill in of)
        faults = sum(bool(kill.fault) for kill in of)
        print(f"{stage:<28}{cells}{ways['resumed']:>10}{ways['started anew']:>7}{faults:>8}")
    for kill in kills:
        if kill.fault:
            onto = ", replacing a folder" if kill.replacing else ""
            print(f"FAULT: {kill.method}{onto}, killed {kill.moment} ({kill.stage}): {kill.fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="kills, over all methods")
    parser.add_argument("--methods", default="linear,ties,slerp,dare_ties", help="taken in turn")
    parser.add_argument("--size", choices=checkpoints.SIZES, default="0.4B")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    methods = options.methods.split(",")
    if not set(methods) <= set(SETTINGS):
        parser.error(f"methods are among {', '.join(SETTINGS)}")
    moments = random.Random(options.seed)
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="trimtab-kill-", dir=options.folder) as place:
        folder, models = Path(place), Path(place) / "models"
        checkpoints.made(models, options.size, shards=3)
        wanted = {method: undisturbed(folder, models, method) for method in methods}
        while sum(kill.stage != STAGES[5] for kill in kills) < options.times:
            number = len(kills)
            if number > 3 * options.times:
                raise SystemExit("most merges are over before their kill; take a larger --size")
            method = methods[number % len(methods)]
            replacing = number // len(methods) % 2 == 1
            moment = wanted[method].moment(number, moments)
            kills.append(kill_once(folder, method, wanted[method].result, replacing, moment))
            last = kills[-1]
            print(f"{number + 1}: {last.stage}; {last.fault or last.went_on}", file=sys.stderr)
    faults = sum(bool(kill.fault) for kill in kills)
    if options.json:
        lengths = {name: run.spans for name, run in wanted.items()}
        result_json: dict[str, Any] = {
            "benchmark": "kill_resume", "times": options.times, "faults": faults,
            "undisturbed_s": lengths,
            "stages": Counter(kill.stage for kill in kills), "kills": [asdict(k) for k in kills],
            "passed": faults == 0,
        }  # fmt: skip
        print(json.dumps(result_json, indent=1))
    else:
        for method, run in wanted.items():
            start_up, work, close = run.spans
            print(f"{method}: start-up {start_up:.2f} s, work {work:.2f} s, close {close:.3f} s")
        show(kills)
        print(f"{options.times} kills: {'passed' if not faults else f'FAILED, {faults} faults'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
