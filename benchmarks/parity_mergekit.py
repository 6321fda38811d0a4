"""Holds Trimtab's merges against mergekit's: every method both know, float32 in and out.

    python benchmarks/parity_mergekit.py [--methods ties,slerp] [--lineups llama-tied] [--json]

Small random models of four architectures, with tied and untied heads, are merged both ways, by
mergekit with Trimtab's random masks. A tensor agrees when max |ours − theirs| / max |theirs| stays
below 1e-6. Where it does not, the formula in float64 must give what Trimtab wrote, and the formula
with a known defect in it what mergekit wrote. The table shows the largest difference, `theirs` for
one that is explained so, and how far both are from float64. Exit status 1: any other difference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

import measuring
from mergekit_venv import mergekit_python, mergekit_version, offline
from parity_cases import Case, cases, with_paths
from parity_defects import CRASHES, Arguments, defect_of
from parity_settings import has_vocabulary, inputs_of
from small_models import FAINT, LINEUPS, TOKENS

LIMIT = 1e-6
HERE = Path(__file__).resolve().parent
Tensors = dict[str, npt.NDArray[Any]]


@dataclass
class Outcome:
    """How one merge compared: the worst tensor, and each tensor that did not agree."""

    method: str
    label: str
    lineup: str
    difference: float = 0.0
    ours_to_formula: float = 0.0
    theirs_to_formula: float = 0.0
    theirs: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    failed: str = ""
    crash: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """The defect of mergekit that a difference here comes from."""
        defect = defect_of(self.method, self.label)
        if self.crash or defect is None:
            return self.crash and f"{self.crash} (found here)"
        return f"{defect.text} ({'listed' if defect.listed else 'found here'})"

    @property
    def passed(self) -> bool:
        """Whether all tensors agree, or their difference is shown to be mergekit's."""
        return not self.failed and not self.ours

    @property
    def cell(self) -> str:
        """What the table says of it."""
        if self.failed:
            return "failed"
        if self.ours:
            return "DIFFERS"
        if self.theirs:
            return "theirs"
        return f"{self.difference:.0e}" if self.difference else "0"


def relative(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """max |a − b| / max |b|; the absolute maximum where b is zero."""
    if not b.size:
        return 0.0
    apart = float(np.max(np.abs(a.astype(np.float64) - b)))
    top = float(np.max(np.abs(b)))
    return apart / top if top else apart


def tensors_of(folder: Path) -> Tensors:
    """Load a checkpoint, however many files it has."""
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@cache
def model(folder: Path) -> Tensors:
    """Load an input in float64."""
    return {name: tensor.astype(np.float64) for name, tensor in tensors_of(folder).items()}


def arguments(case: Case, lineup: Path, tensor: str) -> Arguments | None:
    """Return what the formula takes for a tensor; None where vocabularies are matched first."""
    by_tokens = "tokenizer" in case.document or "tokenizer_source" in case.document
    if by_tokens and has_vocabulary(tensor):
        return None
    inputs, shared = inputs_of(case.document, tensor)
    base, base_own, others = None, {}, []
    for one in inputs:
        values = model(lineup / one.model)[one.tensor]
        if one.is_base:
            base, base_own = values, dict(one.own)
        else:
            others.append((one.model, values, one.own))
    return Arguments(case.method, tensor, base, others, shared, base_own)


def token_rows(folder: Path) -> dict[str, int]:
    """Return the row of each token by a result's own tokenizer."""
    data = json.loads((folder / "tokenizer.json").read_text())
    added = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    return {**data["model"]["vocab"], **added}


def in_their_order(ours: Tensors, ours_at: Path, theirs_at: Path, outcome: Outcome) -> Tensors:
    """Order the rows of our vocabulary tensors by mergekit's tokenizer, token by token."""
    our_rows, their_rows = token_rows(ours_at), token_rows(theirs_at)
    if our_rows.keys() != their_rows.keys():
        differing = sorted(our_rows.keys() ^ their_rows.keys())
        outcome.failed = f"the vocabularies differ in {', '.join(differing[:5])}"
        return ours
    moved = sum(our_rows[token] != row for token, row in their_rows.items())
    if moved:
        outcome.notes.append(f"{moved} tokens have other ids; compared token by token")
    ordered = dict(ours)
    for name in filter(has_vocabulary, ours):
        rows = np.arange(ours[name].shape[0])
        for token, row in their_rows.items():
            rows[row] = our_rows[token]
        ordered[name] = ours[name][rows]
    return ordered


def compare(case: Case, lineup: Path, ours_at: Path, theirs_at: Path) -> Outcome:
    """Compare two results tensor by tensor, and with the formula."""
    outcome = Outcome(case.method, case.label, lineup.name)
    ours, theirs = tensors_of(ours_at), tensors_of(theirs_at)
    if ours.keys() != theirs.keys():
        differing = sorted(ours.keys() ^ theirs.keys())
        outcome.failed = f"only one of both wrote {', '.join(differing[:3])}"
        return outcome
    configs = [json.loads((at / "config.json").read_text()) for at in (ours_at, theirs_at)]
    for key in ("num_hidden_layers", "n_layer", "vocab_size", "tie_word_embeddings"):
        if configs[0].get(key) != configs[1].get(key):
            outcome.failed = f"config.json: {key} is {configs[0].get(key)}, {configs[1].get(key)}"
            return outcome
    if (theirs_at / "tokenizer.json").exists():
        ours = in_their_order(ours, ours_at, theirs_at, outcome)
    for name, theirs_value in theirs.items():
        if outcome.failed:
            break
        ours_value = ours[name]
        if (ours_value.shape, ours_value.dtype) != (theirs_value.shape, theirs_value.dtype):
            outcome.failed = f"{name} has another shape or type"
            break
        judge(outcome, name, ours_value, theirs_value, case, arguments(case, lineup, name))
    return outcome


def check_alone(case: Case, lineup: Path, ours_at: Path, crash: str) -> Outcome:
    """Compare our result with the formula, where mergekit fails by a defect of its own."""
    outcome = Outcome(case.method, case.label, lineup.name, crash=crash)
    settings = json.loads((ours_at / "config.json").read_text())
    if len(settings.get("layer_types") or ()) not in (0, settings["num_hidden_layers"]):
        outcome.failed = "config.json: layer_types is not as long as num_hidden_layers says"
    for name, ours in tensors_of(ours_at).items():
        given = arguments(case, lineup, name)
        far = 0.0 if given is None else relative(ours, given.merged())
        outcome.ours_to_formula = max(outcome.ours_to_formula, far)
        if not far < LIMIT:  # NaN neither
            outcome.ours.append(f"{name}: {far:.1e} from float64")
    outcome.theirs.append("mergekit fails; ours agrees with float64")
    return outcome


def judge(
    outcome: Outcome,
    name: str,
    ours: npt.NDArray[Any],
    theirs: npt.NDArray[Any],
    case: Case,
    given: Arguments | None,
) -> None:
    """Enter one tensor into the outcome."""
    difference = relative(ours, theirs)
    far = [0.0, 0.0]
    if given is not None:
        wanted = given.merged()
        far = [relative(ours, wanted), relative(theirs, wanted)]
        outcome.ours_to_formula = max(outcome.ours_to_formula, far[0])
        outcome.theirs_to_formula = max(outcome.theirs_to_formula, far[1])
    if difference < LIMIT:
        outcome.difference = max(outcome.difference, difference)
        return
    told = f"{name}: {difference:.1e} apart; from float64 ours {far[0]:.1e}, theirs {far[1]:.1e}"
    defect = defect_of(outcome.method, outcome.label)
    if given is None or defect is None or not far[0] < LIMIT:
        outcome.ours.append(told)
        return
    remade = relative(theirs, defect.remade(given, theirs.astype(np.float64), case.document))
    told += f", theirs from float64 with the defect {remade:.1e}"
    (outcome.theirs if remade < LIMIT else outcome.ours).append(told)


def merge_theirs(python: Path, jobs: Sequence[tuple[Path, Path]], work: Path) -> dict[Path, str]:
    """Let mergekit do all merges; returns why it could not, by output, "" for those it did."""
    listed = work / "jobs.json"
    listed.write_text(json.dumps([{"document": str(d), "output": str(o)} for d, o in jobs]))
    environment = offline() | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [python, HERE / "parity_driver.py", listed], env=environment,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        told = {}
        for line in process.stdout:
            entry = json.loads(line)
            told[Path(entry["output"])] = entry["failed"]
            progress(f"mergekit {len(told)} of {len(jobs)}")
    return {output: told.get(output, "it did not come to this") for _, output in jobs}


def merge_ours(jobs: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """Let Trimtab do all merges, each in a process of its own."""
    environment = offline() | {"OMP_NUM_THREADS": "1"}

    def one(job: tuple[Path, Path]) -> tuple[Path, str]:
        result = measuring.run(measuring.trimtab(*job), environment)
        if result.status == 0:
            return job[1], ""
        error = measuring.report(result.output).get("error") or {}
        return job[1], f"{error['code']}: {error['what']}" if error else result.last_words

    told = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for output, failed in pool.map(one, jobs):
            told[output] = failed
            progress(f"trimtab {len(told)} of {len(jobs)}")
    return told


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}", end="\x1b[K", file=sys.stderr, flush=True)


def compared(
    python: Path, models: Path, work: Path, chosen: Iterable[Case], lineups: set[str]
) -> list[Outcome]:
    """Do every case on every lineup both ways."""
    tasks = [(case, models / name) for case in chosen for name in case.lineups if name in lineups]
    documents = work / "documents"
    documents.mkdir()
    ours, theirs = [], []
    for number, (case, lineup) in enumerate(tasks):
        document = documents / f"{number}.yml"
        # JSON is YAML
        document.write_text(json.dumps(with_paths(case.document, lineup), indent=1))
        ours.append((document, work / f"ours-{number}"))
        theirs.append((document, work / f"theirs-{number}"))
    failures = merge_theirs(python, theirs, work) | merge_ours(ours)
    outcomes = []
    for (case, lineup), (_, ours_at), (_, theirs_at) in zip(tasks, ours, theirs, strict=True):
        crash = next((CRASHES[word] for word in CRASHES if word in failures[theirs_at]), "")
        if crash and not failures[ours_at]:
            outcomes.append(check_alone(case, lineup, ours_at, crash))
            continue
        why = [f"{side}: {failures[at]}" for side, at in
               (("trimtab", ours_at), ("mergekit", theirs_at)) if failures[at]]  # fmt: skip
        if why:
            outcomes.append(Outcome(case.method, case.label, lineup.name, failed="; ".join(why)))
        else:
            outcomes.append(compare(case, lineup, ours_at, theirs_at))
    return outcomes


def show(outcomes: Sequence[Outcome], probes: Sequence[dict[str, Any]]) -> None:
    """Print the table, what stands behind each entry that is no number, and the defects."""
    columns = [name for name in LINEUPS if any(o.lineup == name for o in outcomes)]
    halves = [name.split("-") for name in columns]
    print("max |ours − theirs| / max |theirs|, and how far from float64")
    print(f"{'':<38}{''.join(f'{half[0]:>9}' for half in halves)}{'ours':>9}{'theirs':>9}")
    print(f"{'':<38}{''.join(f'{half[1]:>9}' for half in halves)}{'fp64':>9}{'fp64':>9}")
    rows: dict[tuple[str, str], dict[str, Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.method, outcome.label), {})[outcome.lineup] = outcome
    for (method, label), row in rows.items():
        name = f"{method} · {label}"
        own = "  " + ", ".join(f"{key}: {row[key].cell}" for key in row if key not in columns)
        cells = "".join(f"{row[key].cell if key in row else '':>9}" for key in columns)
        far = [max(getattr(o, f"{side}_to_formula") for o in row.values())
               for side in ("ours", "theirs")]  # fmt: skip
        text = cells if cells.strip() else own
        print(f"{name:<38}{text:<{9 * len(columns)}}{far[0]:>9.0e}{far[1]:>9.0e}")
    for title, of in (("not done", "failed"), ("not explained", "ours"), ("theirs", "theirs")):
        behind = [o for o in outcomes if getattr(o, of)]
        if behind:
            print(f"\n{title}:")
        for o in behind:
            details = [o.failed] if of == "failed" else getattr(o, of)
            more = f" and {len(details) - 1} more tensors" if len(details) > 1 else ""
            print(f"  {o.method} · {o.label}, {o.lineup}: {details[0]}{more}")
            if of == "theirs":
                print(f"      {o.reason}")
    notes = {f"{o.method} · {o.label}, {o.lineup}: {n}" for o in outcomes for n in o.notes}
    if any(o.lineup.startswith("mixtral") for o in outcomes):
        notes.add("mixtral: expert by expert, as in the files; mergekit itself would stack those "
                  "of a layer, and merge and write them as one tensor")  # fmt: skip
    for note in sorted(notes):
        print(f"note: {note}")
    print("\ndefects of mergekit that Trimtab's documents list, tried on the one installed:")
    for entry in probes:
        state = "still there" if entry["there"] else "gone"
        print(f"  {state:<12} {entry['defect']} ({entry['tried']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", help="by name, separated by commas; default: all")
    parser.add_argument("--lineups", help=f"among {', '.join((*LINEUPS, FAINT, *TOKENS))}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    lineups = set(options.lineups.split(",")) if options.lineups else {*LINEUPS, FAINT, *TOKENS}
    methods = set(options.methods.split(",")) if options.methods else None
    chosen = [case for case in cases() if methods is None or case.method in methods]
    python = mergekit_python()
    with tempfile.TemporaryDirectory(prefix="trimtab-parity-") as folder:
        work, models = Path(folder), Path(folder) / "models"
        subprocess.run(
            [sys.executable, HERE / "small_models.py", models],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        outcomes = compared(python, models, work, chosen, lineups)
        probed = subprocess.run(
            [python, HERE / "parity_driver.py", "--probe", models / "llama-tied" / "base"],
            env=offline(), capture_output=True, text=True, check=True,
        )  # fmt: skip
    probes = json.loads(probed.stdout)
    passed = bool(outcomes) and all(outcome.passed for outcome in outcomes)
    if options.json:
        result = {
            "benchmark": "parity_mergekit",
            "mergekit": mergekit_version(python),
            "limit": LIMIT,
            "outcomes": [{**asdict(o), "reason": o.reason, "passed": o.passed} for o in outcomes],
            "defects": probes,
            "passed": passed,
        }
        print(json.dumps(result, indent=1))
    else:
        print(mergekit_version(python))
        show(outcomes, probes)
        print("passed" if passed else "MISSED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
