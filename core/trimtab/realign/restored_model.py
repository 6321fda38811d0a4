"""Writes a model whose Linears were changed one by one, and tells how much of each was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.blocks import Site
from trimtab.activations.calibrated import covariances
from trimtab.activations.calibration import Calibration
from trimtab.activations.covariance import Covariances
from trimtab.activations.statistics import Which
from trimtab.activations.weights import member_weights
from trimtab.checkpoints import Checkpoint, Member
from trimtab.checkpoints.naming import parse
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.paths import cache_dir
from trimtab.realign.antidote_copy import ZeroedCopy
from trimtab.realign.work import Work

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
#: f(name, aligned [out, in], fine-tuned [out, in], float64) -> what becomes of it, float64
Restore = Callable[[str, Wide, Wide], Wide]
REPORT_NAME = "trimtab-realign.json"


@dataclass(frozen=True)
class Moments:
    """Σ x xᵀ of the inputs of Linears, by the names of their weights.

    `transposed` names the weights that are stored [in, out].
    """

    found: Covariances
    transposed: frozenset[str]

    def read(self, reader: TensorReader, name: str) -> Wide:
        """Return Σ x xᵀ, float64 [in, in]."""
        return self.found.read(reader, name).astype(np.float64)


@contextmanager
def second_moments(
    work: Work, prompts: Calibration, which: Which, control: Control
) -> Iterator[Moments]:
    """Give the second moments of the aligned model's Linears, as long as the context lasts."""
    folder = cache_dir() / "activations"
    folder.mkdir(parents=True, exist_ok=True)
    weights = member_weights(work.lineup, work.aligned)
    with TemporaryDirectory(prefix="moments-", dir=folder) as place:
        path = Path(place) / "moments.safetensors"
        transposed: set[str] = set()

        def wanted(site: Site) -> bool:
            if site.transposed:
                transposed.add(site.name)
            return True

        covariances(
            weights, prompts, work.setting, path, control, which=which, wanted=wanted
        )  # fmt: skip
        yield Moments(Covariances(path), frozenset(transposed))


@dataclass
class _Kept:
    matrices: int = 0
    change: float = 0.0
    kept: float = 0.0
    output: float = 0.0
    output_kept: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "matrices": self.matrices,
            "kept": self.kept / self.change if self.change else 1.0,
            "output": self.output_kept / self.output if self.output else 1.0,
        }


def restore_linears(
    work: Work,
    restore: Restore,
    safety: Moments,
    reader: TensorReader,
    control: Control,
    *,
    rest: str,
    report: dict[str, Any],
) -> dict[str, Any]:
    """Write the model in which `restore` was done to every Linear of the blocks, one at a time.

    `rest`, "finetuned" or "aligned", says what all other tensors are. Returns `report` with the
    squared norm of what is left of the change, and of what it adds to the outputs on the safety
    set, ‖(θ − θ_a) X‖², as shares of all of it by module. A fine-tuned model that is an adapter is
    written as the aligned folder with all that it changes. Raises `UserError` with `no_folder`,
    `nothing_to_restore`, `not_finite` and as writing does.
    """
    folder, onto = _onto(work, rest)
    known = set(safety.found.names)
    changed = [name for name in _changed(work) if name in known or rest == "finetuned"]
    if not known.intersection(changed):
        raise UserError(
            "nothing_to_restore",
            f"{work.member.name} changes no Linear in the blocks.",
            "What this method restores are Linears.",
            "Choose another model.",
        )
    modules: dict[str, _Kept] = {}
    inputs = [m.checkpoint.path for m in work.lineup.members]
    with ZeroedCopy(folder, work.output, inputs, work.overwrite, control) as copy:
        control.stage("Restoring", len(changed))
        for name in changed:
            control.check()
            aligned, own = _weights(work, name, reader)
            result = own
            if name in known:
                result = _one(name, aligned, own, restore, safety, reader, modules)
            if name in known or onto is not work.member:
                copy.put(_row(work, name, onto), result)
            control.advance(1)
        total = _Kept()
        for part in modules.values():
            for field in vars(total):
                setattr(total, field, getattr(total, field) + getattr(part, field))
        report = {
            **report,
            "modules": {name: part.to_dict() for name, part in modules.items()},
            "total": total.to_dict(),
        }
        copy.commit({REPORT_NAME: json.dumps(_saved(work, report), indent=2) + "\n"})
    return {**report, "files": {"model": str(work.output)}}


def _one(
    name: str, aligned: Floats, own: Floats, restore: Restore, safety: Moments,
    reader: TensorReader, modules: dict[str, _Kept],
) -> Floats:  # fmt: skip
    moments = safety.read(reader, name)
    transposed = name in safety.transposed
    a, f = (w.T if transposed else w for w in (aligned.astype(np.float64), own.astype(np.float64)))
    result = restore(name, a, f)
    kept = modules.setdefault(parse(name).row, _Kept())
    kept.matrices += 1
    for field, change in (("change", f - a), ("kept", result - a)):
        setattr(kept, field, getattr(kept, field) + float(np.square(change).sum()))
        energy = "output" if field == "change" else "output_kept"
        setattr(kept, energy, getattr(kept, energy) + float(((change @ moments) * change).sum()))
    return np.ascontiguousarray(result.T if transposed else result, dtype=np.float32)


def _saved(work: Work, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": work.member.name,
        "lineup": work.lineup.fingerprint,
        "sets": work.sets(),
        **report,
    }


def _onto(work: Work, rest: str) -> tuple[Checkpoint, Member]:
    """Return the folder that is copied, and the member that it is."""
    member = work.member
    plain = member.checkpoint.kind == "folder" and member.adapter is None
    onto = member if rest == "finetuned" and plain else work.aligned
    if onto.checkpoint.kind != "folder" or onto.adapter is not None:
        raise UserError(
            "no_folder",
            f"{onto.name} is no model folder.",
            "The result is a copy of it in which Linears are others.",
            "Give the recipe the folder with config, tokenizer and weights.",
        )
    return onto.checkpoint, onto


def _changed(work: Work) -> Iterator[str]:
    lineup = work.lineup
    index = lineup.reference.checkpoint.index
    for row, name in enumerate(lineup.names):
        own, reference = lineup.source(name, work.member), lineup.source(name, work.aligned)
        if own is None or reference is None or own.same_bytes_as(reference):
            continue
        if index.dtype_of(row).mergeable:
            yield name


def _weights(work: Work, name: str, reader: TensorReader) -> tuple[Floats, Floats]:
    index = work.lineup.reference.checkpoint.index
    shape = index.shapes[index.row(name)]
    count = int(np.prod(shape, dtype=np.int64))
    found = []
    for member in (work.aligned, work.member):
        source = work.lineup.source(name, member)
        assert source is not None  # `_changed` has looked
        found.append(reader.read(source, 0, count).reshape(shape))
    return found[0], found[1]


def _row(work: Work, name: str, onto: Member) -> int:
    source = work.lineup.source(name, onto)
    assert source is not None
    return source.row
