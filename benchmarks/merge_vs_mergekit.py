"""Measures merges against mergekit's: time and memory of whole processes, same models, same run.

    python benchmarks/merge_vs_mergekit.py [--methods ties,slerp] [--size 1.2B] [--runs N]
        [--twice-as-large] [--folder DIR] [--json]

Makes a base and two fine-tuned Llamas in bfloat16 on the spot. Before each process, of either side,
the disk's queue is emptied and the inputs are read, so that both find them in the page cache.
mergekit leaves its output to the page cache; Trimtab reads its own back and flushes it to the disk.
Then: what the engine of linear takes against a plain read of the inputs and a plain write of the
output, flushed; and, with --twice-as-large, peak memory for a checkpoint of twice the size.
Exit status 1: a floor, the memory limit or the engine's limit is missed, or a merge failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkpoints
import measuring
from mergekit_venv import mergekit_python, mergekit_version, offline

FLOORS = {
    "linear": 5, "task_arithmetic": 5, "model_stock": 5, "slerp": 6, "sce": 6, "dare_ties": 8,
    "breadcrumbs": 15, "della": 15, "ties": 20,
}  # fmt: skip
PEAK_LIMIT = 1.2e9
ENGINE_LIMIT = 1.5
SAME_PEAK = 1.1  # times the peak at half the size
#: phases of a merge that count as the engine's: all but reading headers and planning
ENGINE = ("merge", "verify", "flush")
PLAIN = ("read", "write")

#: method -> (parameters of the whole merge, parameters of each model)
SETTINGS: dict[str, tuple[str, str]] = {
    "linear": ("", "weight: 0.5"),
    "task_arithmetic": ("", "weight: 0.5"),
    "model_stock": ("", ""),
    "slerp": ("t: 0.4", ""),
    "sce": ("", ""),
    "dare_ties": ("", "weight: 0.5, density: 0.5"),
    "breadcrumbs": ("", "weight: 0.5, density: 0.5, gamma: 0.01"),
    "della": ("", "weight: 0.5, density: 0.5, epsilon: 0.1"),
    "ties": ("", "weight: 0.5, density: 0.3"),
}


@dataclass(frozen=True)
class Row:
    """What one method took on both sides; seconds are medians, peaks the highest, in bytes."""

    method: str
    theirs_s: float
    ours_s: float
    floor: float
    theirs_peak: int
    ours_peak: int
    failed: str

    @property
    def ratio(self) -> float:
        """How many times faster ours was."""
        return self.theirs_s / self.ours_s

    @property
    def passed(self) -> bool:
        """Whether both ran, and ours kept both limits."""
        return not self.failed and self.ratio >= self.floor and self.ours_peak < PEAK_LIMIT


def document(method: str, models: Path) -> str:
    """Return mergekit's YAML for a merge of the models below a folder."""
    everywhere, each = SETTINGS[method]
    base, *tuned = checkpoints.MODELS
    taking_part = [base, *tuned] if method == "linear" else tuned
    if method == "slerp":
        taking_part = [base, tuned[0]]
    lines = [f"merge_method: {method}", "dtype: bfloat16", "models:"]
    for model in taking_part:
        lines.append(f"  - model: {models / model}")
        if each:
            lines.append(f"    parameters: {{{each}}}")
    if method != "linear":
        lines.append(f"base_model: {models / base}")
    if everywhere:
        lines.append(f"parameters: {{{everywhere}}}")
    return "\n".join(lines) + "\n"


def measured(command: Sequence[str | Path], models: Path, output: Path) -> measuring.Run:
    """Run one merge with its inputs in the page cache and nothing waiting to be written."""
    remove(output)
    os.sync()
    measuring.read_all(models)
    return measuring.run(command, offline())


def remove(output: Path) -> None:
    for path in (output, output.with_name(output.name + ".partial")):
        shutil.rmtree(path, ignore_errors=True)


def tensors_of(folder: Path) -> dict[str, Any]:
    """Return name -> (dtype, shape) of all tensors in a folder, from the headers."""
    found: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        found |= {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    return found


def compare(method: str, models: Path, work: Path, mergekit: Path, runs: int) -> Row:
    """Let both sides merge by one method."""
    recipe = work / f"{method}.yml"
    recipe.write_text(document(method, models))
    ours_at, theirs_at = work / "ours", work / "theirs"
    their_command: list[str | Path] = [
        mergekit, "-m", "mergekit.scripts.run_yaml", recipe, theirs_at,
        "--quiet", "--no-copy-tokenizer", "--no-write-model-card",
    ]  # fmt: skip
    ours, theirs, failed = [], [], ""
    for _ in range(runs):
        ours.append(measured(measuring.trimtab(recipe, ours_at), models, ours_at))
        theirs.append(measured(their_command, models, theirs_at))
        for side, last in (("trimtab", ours[-1]), ("mergekit", theirs[-1])):
            if last.status and not failed:
                failed = f"{side}: {measuring.error_code(last) or last.last_words}"
    if not failed and tensors_of(ours_at) != tensors_of(theirs_at):
        failed = "the two wrote different tensors"
    remove(ours_at)
    remove(theirs_at)
    return Row(
        method,
        statistics.median(run.seconds for run in theirs),
        statistics.median(run.seconds for run in ours),
        FLOORS[method],
        max(run.peak for run in theirs),
        max(run.peak for run in ours),
        failed,
    )


def plain(models: Path, n_bytes: int) -> dict[str, float]:
    """Read the inputs and write as much as the output has, without any computing."""
    begun = time.perf_counter()
    measuring.read_all(models)
    read = time.perf_counter()
    measuring.plain_write(models / "plain", n_bytes)
    written = time.perf_counter()
    (models / "plain").unlink()
    return {"read": read - begun, "write": written - read}


def engine(models: Path, work: Path, n_bytes: int, runs: int) -> dict[str, Any]:
    """Compare the engine's share of linear merges with plain reading and writing, by turns.

    The best run of each side counts: a disk that stalls must not decide, nor flatter.
    """
    recipe, output = work / "linear.yml", work / "ours"
    recipe.write_text(document("linear", models))
    steps: list[dict[str, float]] = []
    for _ in range(runs):
        os.sync()
        measuring.read_all(models)
        command = [sys.executable, __file__, "--plain", str(models), "--bytes", str(n_bytes)]
        steps.append(measuring.report(measuring.run(command).output))
        last = measured(measuring.trimtab(recipe, output), models, output)
        phases = measuring.report(last.output).get("phases", {})
        if last.status or not set(ENGINE) <= set(phases):
            why = measuring.error_code(last) or ("" if last.status == 0 else last.last_words)
            return {"failed": why or "the report names no phases"}
        steps[-1] |= {phase: phases[phase] for phase in ENGINE}
    remove(output)
    ours = min(steps, key=lambda step: sum(step[phase] for phase in ENGINE))
    plainly = min(steps, key=lambda step: step["read"] + step["write"])
    best = {phase: ours[phase] for phase in ENGINE} | {key: plainly[key] for key in PLAIN}
    ratio = sum(best[phase] for phase in ENGINE) / sum(best[key] for key in PLAIN)
    return {**best, "ratio": ratio, "runs": steps, "failed": ""}


def peaks_at_twice_the_size(
    rows: Sequence[Row], size: str, work: Path
) -> tuple[dict[str, int], float]:
    """Return the peak of each method that works, for models of about twice the size, and these."""
    models = work / "twice"
    llama = checkpoints.made(models, size, doubled=True)
    peaks = {}
    for row in rows:
        recipe, output = work / f"{row.method}.yml", work / "ours"
        recipe.write_text(document(row.method, models))
        last = measured(measuring.trimtab(recipe, output), models, output)
        peaks[row.method] = last.peak if last.status == 0 else -1
        remove(output)
    shutil.rmtree(models)
    return peaks, llama.n_bytes


def show(result: dict[str, Any], rows: Sequence[Row]) -> None:
    print(
        f"three models of {result['parameters'] / 1e9:.2f} B parameters, "
        f"{result['bytes'] / 1e9:.2f} GB each in bfloat16, inputs in the page cache; whole "
        f"processes\n{result['mergekit']}\n"
    )
    twice = result["twice"]
    print(
        f"{'method':<16}{'mergekit':>10}{'trimtab':>10}{'faster':>9}{'floor':>7}"
        f"{'mergekit':>11}{'trimtab':>10}" + (f"{'at twice':>11}" if twice else "")
    )
    for row in rows:
        ratio = "–" if row.failed else f"{row.ratio:.1f}×"
        line = (
            f"{row.method:<16}{row.theirs_s:>8.1f} s{row.ours_s:>8.2f} s{ratio:>9}"
            f"{row.floor:>6.0f}×{row.theirs_peak / 1e9:>8.2f} GB{row.ours_peak / 1e9:>7.2f} GB"
        )
        if twice:
            line += f"{twice[row.method] / 1e9:>8.2f} GB"
        print(f"{line}  {row.failed or ('passed' if row.passed else 'MISSED')}")
    print(f"peak memory: limit {PEAK_LIMIT / 1e9:g} GB")
    found = result["engine"]
    if found["failed"]:
        print(f"engine of linear: FAILED: {found['failed']}")
        return
    took = " + ".join(f"{phase} {found[phase]:.2f}" for phase in ENGINE)
    print(
        f"engine of linear: {took} s against plain read {found['read']:.2f} + "
        f"write {found['write']:.2f} s: {found['ratio']:.2f} times (limit {ENGINE_LIMIT:g}; the "
        f"best of {len(found['runs'])} runs of each)"
    )


def judged(result: dict[str, Any], rows: Sequence[Row]) -> bool:
    """Whether everything that was measured kept its limit."""
    found = result["engine"]
    good = all(row.passed for row in rows)
    good &= not found["failed"] and found["ratio"] <= ENGINE_LIMIT
    twice = result["twice"]
    return good and all(
        not twice or 0 < twice[row.method] <= min(PEAK_LIMIT, SAME_PEAK * row.ours_peak)
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default=",".join(FLOORS), help="default: all with a floor")
    parser.add_argument("--size", choices=checkpoints.SIZES, default="1.2B")
    parser.add_argument("--runs", type=int, default=1, help="of each method, on both sides")
    parser.add_argument("--twice-as-large", action="store_true", help="peak memory there as well")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(json.dumps(plain(options.plain, options.bytes)))
        return 0
    methods = options.methods.split(",")
    unknown = set(methods) - set(FLOORS)
    if unknown:
        parser.error(f"no floor for {', '.join(sorted(unknown))}")
    mergekit = mergekit_python()
    with tempfile.TemporaryDirectory(prefix="trimtab-merge-", dir=options.folder) as folder:
        work, models = Path(folder), Path(folder) / "models"
        largest = checkpoints.SIZES[options.size]
        needed = (12 if options.twice_as_large else 5) * largest.n_bytes
        if shutil.disk_usage(work).free < needed:
            raise SystemExit(f"{needed / 1e9:.0f} GB are needed at {work}; name another --folder")
        llama = checkpoints.made(models, options.size)
        rows = []
        for method in methods:
            rows.append(compare(method, models, work, mergekit, options.runs))
            print(f"{method} done", file=sys.stderr)
        result: dict[str, Any] = {
            "benchmark": "merge_vs_mergekit",
            "mergekit": mergekit_version(mergekit),
            "parameters": llama.parameters,
            "bytes": llama.n_bytes,
            "runs": options.runs,
            "engine": engine(models, work, llama.n_bytes, max(3, options.runs)),
            "twice": {},
        }
        if options.twice_as_large:
            result["twice"], result["twice_bytes"] = peaks_at_twice_the_size(
                rows, options.size, work
            )
    passed = judged(result, rows)
    if options.json:
        result["rows"] = [{**asdict(row), "ratio": row.ratio, "passed": row.passed} for row in rows]
        print(json.dumps({**result, "passed": passed}, indent=2))
    else:
        show(result, rows)
        print("passed" if passed else "MISSED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
