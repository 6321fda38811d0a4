"""Measures what looking at a lineup costs, against a plain read and against mergelens.

    python benchmarks/inspect_lineup.py [--size 1.2B] [--lens-size 0.1B] [--runs N] [--seconds S]
        [--twice-as-large] [--level fine|exact] [--folder DIR] [--json]

Makes a lineup of Llamas in bfloat16 on the spot: base, aligned and a fine-tuned model. Inputs are
in the page cache. Four things are measured:
- norms, angles, sign conflicts and inner products of the lineup, against reading its bytes;
- whole processes against `mergelens compare`, which gets S seconds, on a smaller lineup: cosines
  and distances alone, and everything it computes by default, singular values included;
- spectra of the task and the alignment vector: when all are coarse, when the first and the last
  are at the level asked for, and the peak;
- peak memory, and with --twice-as-large that of models of about twice as many parameters.
mergelens comes from PyPI; TRIMTAB_MERGELENS_PYTHON names the Python of an environment that has it.
Where it cannot be had, that part is skipped and said so. The file is not called inspect.py: it
would stand in for Python's own module of that name.
Exit status 1: a limit is missed, or a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checkpoints
import measuring

if TYPE_CHECKING:
    from trimtab.inspection.spectra_scan import Level

MODELS = ("base", "aligned", "tuned")
MERGELENS = ("mergelens==2.0.3", "torch==2.13.0")
VENV = Path(__file__).resolve().parents[1] / "build" / "mergelens"
READ_LIMIT = 3.0  # times a plain read of the same bytes
LENS_FLOOR = 1.0  # times as fast as mergelens
PEAK_LIMIT = 1.2e9
SAME_PEAK = 1.1  # times the peak at half the size


# --- what runs in processes of its own -------------------------------------------------------


def lineup(models: Path) -> Any:
    from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

    base, aligned, tuned = (str(models / name) for name in MODELS)
    return open_lineup(
        Recipe(
            base=ModelRef(path=base),
            aligned=ModelRef(path=aligned),
            finetuned=(FineTuned(path=tuned),),
        )
    )


def inspection(models: Path) -> dict[str, float]:
    """Inspect the lineup twice: the first time compiles what is not compiled yet."""
    from trimtab.control import Unattended
    from trimtab.inspection.scan import inspect

    opened = lineup(models)
    inspect(opened, Unattended())
    begun = time.perf_counter()
    inspect(opened, Unattended())
    ended = time.perf_counter()
    measuring.read_all(models)
    return {"inspect": ended - begun, "read": time.perf_counter() - ended}


def spectra(models: Path, level: Level) -> dict[str, float]:
    """Find the spectra of the lineup, and say when which stage was reached."""
    from trimtab.control import Unattended
    from trimtab.inspection.spectra_scan import find_spectra

    class Clock(Unattended):
        def __init__(self) -> None:
            self.begun = time.perf_counter()
            self.stages: list[float] = []
            self.firsts: list[float] = []

        def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
            self.stages.append(time.perf_counter() - self.begun)

        def advance(self, items: int = 0, n_bytes: int = 0) -> None:
            if len(self.firsts) < len(self.stages):
                self.firsts.append(time.perf_counter() - self.begun)

    clock = Clock()
    find_spectra(lineup(models), clock, level)
    ended = time.perf_counter() - clock.begun
    return {
        "first_coarse": clock.firsts[0],
        "all_coarse": clock.stages[1],
        "first": clock.firsts[1],
        "all": ended,
    }


# --- what is measured ------------------------------------------------------------------------


def own(*arguments: str | Path, cache: Path) -> measuring.Run:
    command = [sys.executable, __file__, *arguments]
    return measuring.run(command, {**os.environ, "TRIMTAB_CACHE_DIR": str(cache)})


def failed(run: measuring.Run) -> dict[str, Any]:
    return {"failed": run.last_words}


def against_reading(models: Path, cache: Path, runs: int) -> dict[str, Any]:
    """The best run of each side counts: a disk that stalls must neither decide nor flatter."""
    found, peak = [], 0
    for _ in range(runs):
        measuring.read_all(models)
        run = own("--part", "inspection", "--models", models, cache=cache)
        if run.status:
            return failed(run)
        found.append(measuring.report(run.output))
        peak = max(peak, run.peak)
    ours, read = (min(one[key] for one in found) for key in ("inspect", "read"))
    return {"inspect": ours, "read": read, "ratio": ours / read, "peak": peak}


def of_spectra(models: Path, cache: Path, level: str) -> dict[str, Any]:
    measuring.read_all(models)
    run = own("--part", "spectra", "--models", models, "--level", level, cache=cache)
    if run.status:
        return failed(run)
    return {**measuring.report(run.output), "level": level, "peak": run.peak}


def mergelens_python() -> Path | None:
    """Return the Python of an environment that has mergelens, None where it cannot be made."""
    named = os.environ.get("TRIMTAB_MERGELENS_PYTHON")
    if named:
        return Path(named)
    python, stamp = VENV / "bin" / "python", VENV / "made-with.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(MERGELENS):
        print(f"making {VENV} with {' and '.join(MERGELENS)}", file=sys.stderr)
        index = os.environ.get("TRIMTAB_TORCH_INDEX")
        install = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", *MERGELENS]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
            subprocess.run(
                [python, *install, *(["--extra-index-url", index] if index else [])],
                check=True, stdout=sys.stderr,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return None
        stamp.write_text(" ".join(MERGELENS))
    return python


def against_mergelens(models: Path, cache: Path, runs: int, seconds: float) -> dict[str, Any]:
    """Compare what both compute: entries alone, then with the spectra and overlaps of matrices."""
    python = mergelens_python()
    if python is None:
        return {"skipped": f"{MERGELENS[0]} could not be installed"}
    base, aligned, tuned = (str(models / name) for name in MODELS)
    ends = [tuned, "--base", base, "--aligned", aligned]
    theirs = [
        str(python.with_name("mergelens")), "compare", base, aligned, tuned,
        "--base", base, "--no-strategy",
    ]  # fmt: skip
    entries = ["--metric", "cosine_similarity", "--metric", "l2_distance"]
    return {
        "entries": race([["inspect", *ends]], [*theirs, *entries], models, cache, runs, seconds),
        "everything": race(
            [["inspect", *ends], ["subspaces", *ends]], theirs, models, cache, runs, seconds
        ),
    }


def race(
    ours: list[list[str]], theirs: list[str], models: Path, cache: Path, runs: int, seconds: float
) -> dict[str, Any]:
    """Run whole processes of both sides by turns, ours with none of its results in the cache."""
    environment = {**os.environ, "TRIMTAB_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"}
    own_runs: list[float] = []
    their_runs: list[float] = []
    peak, their_peak, finished = 0, 0, True
    for _ in range(runs):
        for kept in ("inspections", "spectra"):
            shutil.rmtree(cache / kept, ignore_errors=True)
        measuring.read_all(models)
        own_runs.append(0.0)
        for command in ours:
            run = measuring.run([sys.executable, "-m", "trimtab", *command], environment)
            if run.status:
                return failed(run)
            own_runs[-1] += run.seconds
            peak = max(peak, run.peak)
        measuring.read_all(models)
        run = measuring.run(["timeout", "--signal=KILL", f"{seconds:g}", *theirs], environment)
        their_runs.append(run.seconds)
        if run.status in (-9, 137):
            finished = False  # its time is a lower bound, and its memory is not known
            break
        if run.status:
            return failed(run)
        their_peak = max(their_peak, run.peak)
    their, our = statistics.median(their_runs), statistics.median(own_runs)
    return {
        "theirs": their,
        "ours": our,
        "ratio": their / our,
        "finished": finished,
        "their_peak": their_peak,
        "peak": peak,
    }


# --- what is said ----------------------------------------------------------------------------


def judged(result: dict[str, Any]) -> list[str]:
    """Return what is missed, in words."""
    lens = result["mergelens"]
    parts = {"reading": result["reading"], "spectra": result["spectra"]}
    parts |= {f"mergelens, {key}": part for key, part in lens.items() if key != "skipped"}
    missed = [f"{key}: {part['failed']}" for key, part in parts.items() if "failed" in part]
    if missed:
        return missed
    reading = result["reading"]
    if reading["ratio"] > READ_LIMIT:
        missed.append(f"inspection takes more than {READ_LIMIT:g} plain reads")
    if reading["peak"] > PEAK_LIMIT:
        missed.append(f"inspection holds more than {PEAK_LIMIT / 1e9:g} GB")
    for key, part in parts.items():
        if key.startswith("mergelens") and part["ratio"] < LENS_FLOOR:
            missed.append(f"{key}: less than {LENS_FLOOR:g} times as fast")
    twice = result.get("twice")
    if twice:
        for part in ("reading", "spectra"):
            if twice[f"{part}_peak"] > SAME_PEAK * result[part]["peak"]:
                missed.append(f"{part}: the peak grows with the model")
    return missed


def show(result: dict[str, Any]) -> None:
    print(f"three models of {result['parameters'] / 1e9:.2f} B parameters, in the page cache")
    reading, lens, spectral = (result[key] for key in ("reading", "mergelens", "spectra"))
    if "failed" not in reading:
        print(
            f"inspection: {reading['inspect']:.2f} s against a plain read of "
            f"{reading['read']:.2f} s: {reading['ratio']:.2f} times (limit {READ_LIMIT:g}); "
            f"peak {reading['peak'] / 1e9:.2f} GB"
        )
    if "skipped" in lens:
        print(f"mergelens: skipped: {lens['skipped']}")
    for key in ("entries", "everything"):
        part = lens.get(key, {})
        if "ratio" not in part:
            continue
        took = f"{part['theirs']:.1f} s ({part['their_peak'] / 1e9:.2f} GB)"
        if not part["finished"]:
            took = f"stopped after {part['theirs']:.0f} s"
        print(
            f"mergelens, {key}, {result['lens_parameters'] / 1e9:.2f} B: {took} against "
            f"{part['ours']:.2f} s ({part['peak'] / 1e9:.2f} GB): {part['ratio']:.1f} times faster"
            + ("" if part["finished"] else ", at least")
        )
    if "failed" not in spectral:
        print(
            f"spectra of τ and a: first coarse after {spectral['first_coarse']:.1f} s, all after "
            f"{spectral['all_coarse']:.1f} s; first {spectral['level']} after "
            f"{spectral['first']:.1f} s, all after {spectral['all']:.1f} s; "
            f"peak {spectral['peak'] / 1e9:.2f} GB"
        )
    if result.get("twice"):
        twice = result["twice"]
        print(
            f"at {twice['parameters'] / 1e9:.2f} B parameters: peak of the inspection "
            f"{twice['reading_peak'] / 1e9:.2f} GB, of the spectra "
            f"{twice['spectra_peak'] / 1e9:.2f} GB"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=checkpoints.SIZES, default="1.2B")
    parser.add_argument("--lens-size", choices=checkpoints.SIZES, default="0.1B")
    parser.add_argument("--runs", type=int, default=3, help="of each timing")
    parser.add_argument("--seconds", type=float, default=900, help="what mergelens gets")
    parser.add_argument("--level", choices=("fine", "exact"), default="exact")
    parser.add_argument("--twice-as-large", action="store_true", help="peak memory there as well")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--part", choices=("inspection", "spectra"), help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = (
            inspection(options.models)
            if options.part == "inspection"
            else spectra(options.models, options.level)
        )
        print(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory(prefix="trimtab-inspect-", dir=options.folder) as folder:
        work = Path(folder)
        cache = work / "cache"
        llama = made(work / "models", options.size)
        result: dict[str, Any] = {
            "benchmark": "inspect_lineup",
            "parameters": llama.parameters,
            "reading": against_reading(work / "models", cache, options.runs),
            "spectra": of_spectra(work / "models", cache, options.level),
        }
        shutil.rmtree(work / "models")
        if options.twice_as_large and not judged({**result, "mergelens": {}}):
            result["twice"] = twice_as_large(work / "models", options.size, cache, options.level)
            shutil.rmtree(work / "models")
        small = made(work / "models", options.lens_size)
        result["lens_parameters"] = small.parameters
        result["mergelens"] = against_mergelens(
            work / "models", cache, options.runs, options.seconds
        )
    missed = judged(result)
    if options.json:
        print(json.dumps({**result, "missed": missed}, indent=2))
    else:
        show(result)
        print("\n".join(f"MISSED: {what}" for what in missed) or "passed")
    return 1 if missed else 0


def made(folder: Path, size: str, doubled: bool = False) -> checkpoints.Llama:
    """Have the lineup written by a process of its own: a process's peak counts as its child's."""
    command = [sys.executable, checkpoints.__file__, str(folder), "--size", size]
    command += ["--models", ",".join(MODELS), *(["--doubled"] if doubled else [])]
    subprocess.run(command, check=True)
    llama = checkpoints.SIZES[size]
    return llama.doubled() if doubled else llama


def twice_as_large(models: Path, size: str, cache: Path, level: str) -> dict[str, Any]:
    llama = made(models, size, doubled=True)
    reading, spectral = against_reading(models, cache, 1), of_spectra(models, cache, level)
    return {
        "parameters": llama.parameters,
        "reading_peak": reading.get("peak", float("inf")),
        "spectra_peak": spectral.get("peak", float("inf")),
    }


if __name__ == "__main__":
    sys.exit(main())
