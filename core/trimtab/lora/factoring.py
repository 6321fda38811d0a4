"""Reads the task vector of a lineup tensor by tensor and writes its factors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.adapter_names import EXPERT_PARAMETERS
from trimtab.checkpoints.dtypes import BY_CODE
from trimtab.checkpoints.dtypes import OUTPUT_DTYPES as CODES
from trimtab.checkpoints.lineup import Lineup, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.kernels.rounding import store, widen
from trimtab.lora.decompose import decompose, squared_error, squared_norm
from trimtab.lora.folder import AdapterFolder
from trimtab.lora.options import ExtractOptions
from trimtab.lora.targets import Target, Targets

# elements of the reference read at once, so that only one matrix is whole in memory
_READ = 1 << 22

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """A target that has factors in the adapter, and how good they are."""

    target: Target
    rank: int
    exact: bool
    squared_norm: float
    squared_error: float

    @property
    def error(self) -> float:
        """Relative error in the Frobenius norm."""
        return math.sqrt(self.squared_error / self.squared_norm) if self.squared_norm else 0.0


@dataclass
class Extraction:
    """One run: reads task vectors, writes their factors, and keeps the account of both."""

    lineup: Lineup
    options: ExtractOptions
    targets: Targets
    shapes: dict[str, tuple[int, ...]]
    reader: TensorReader
    folder: AdapterFolder
    control: Control
    written: list[Written] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    unchanged: int = 0

    @property
    def linear_modules(self) -> list[str]:
        """All modules of the model that could have factors of their own."""
        return [t.module for t in self.targets.factored if t.kind in ("linear", "embedding")]

    def run(self) -> dict[str, Any]:
        """Write everything there is to write and return the report; `nothing_changed` if none."""
        left_out: dict[str, dict[str, Any]] = {}
        for group in self._groups():
            self._factor_group(group)
        for name, why in self.targets.left_out.items():
            if norm := self._norm_of_change(name):
                left_out[name] = {"why": why, "norm": norm}
        whole = {name: norm for name in self.targets.whole if (norm := self._norm_of_change(name))}
        if self.options.whole:
            self._write_whole(whole)
        else:
            left_out |= {
                name: {"why": "is no matrix", "norm": norm} for name, norm in whole.items()
            }
        if not (self.written or self.biases or self.modules):
            raise UserError(
                "nothing_changed",
                "There is nothing to make an adapter of.",
                f"No matrix of {self.lineup.finetuned[0].name} differs from "
                f"{self.lineup.reference.name}'s.",
                "Choose another model; for embeddings, norms and biases say so.",
            )
        total = sum(w.squared_norm for w in self.written)
        lost = sum(w.squared_error for w in self.written)
        return {
            "finetuned": self.lineup.finetuned[0].name,
            "reference": self.lineup.reference.name,
            "options": asdict(self.options),
            "error": math.sqrt(lost / total) if total else 0.0,
            "targets": {
                w.target.name: {
                    "rank": w.rank,
                    "error": w.error,
                    "norm": math.sqrt(w.squared_norm),
                    "exact": w.exact,
                }
                for w in self.written
            },
            "whole": sorted(whole) if self.options.whole else [],
            "left_out": left_out,
            "unchanged": self.unchanged,
            "warnings": [
                f"{f.model}: {f.what}" for f in self.lineup.findings if f.level == "warning"
            ],
        }

    def _groups(self) -> Iterator[list[Target]]:
        """Targets that PEFT has all together or not at all: the routers, the experts."""
        together: dict[str, list[Target]] = {"router": [], "experts": []}
        for target in self.targets.factored:
            if target.kind in together:
                together[target.kind].append(target)
            else:
                yield [target]
        yield from filter(None, together.values())

    def _factor_group(self, group: Sequence[Target]) -> None:
        found = {target.name: self._factor(target) for target in group}
        if not any(found.values()):
            self.unchanged += sum(len(target.tensors) for target in group)
            return
        for target in group:
            self.written.append(found[target.name] or self._zeros(target))

    def _factor(self, target: Target) -> Written | None:
        """Write the factors of a target, None when it has not changed."""
        rank, uniform = self.options.rank, target.is_parameter
        all_a: list[Floats] = []
        all_b: list[Floats] = []
        norm = lost = 0.0
        ranks, exact = [0], True
        for number in range(target.experts):
            self.control.check()
            change = self._change(target, number)
            if target.transposed:
                change = change.T
            if change.any():
                key = f"{self.options.seed}\0{target.name}\0{number}".encode()
                seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
                factors = decompose(change, rank, self.options.energy, seed)
                a, b = (self._rounded(target, factor) for factor in (factors.a, factors.b))
                norm += squared_norm(change)
                lost += squared_error(change, b, a)
                ranks.append(len(a))
                exact = exact and factors.exact
            elif not uniform:
                return None
            else:
                a = np.zeros((0, change.shape[1]), np.float32)
                b = np.zeros((len(change), 0), np.float32)
            if uniform:  # PEFT warns of a pattern for a parameter: all have the adapter's rank
                a = np.pad(a, ((0, rank - len(a)), (0, 0)))
                b = np.pad(b, ((0, 0), (0, rank - b.shape[1])))
            all_a.append(a)
            all_b.append(b)
        if not norm:
            return None
        # PEFT has the experts' A one after the other and their B all in turn
        self._write(target, np.concatenate(all_a), np.stack(all_b, axis=2))
        return Written(target, max(ranks), exact, norm, lost)

    def _zeros(self, target: Target) -> Written:
        *_, rows, columns = self.shapes[target.tensors[0]]
        rows = sum(self.shapes[name][-2] for name in target.parts[0])
        if target.transposed:
            rows, columns = columns, rows
        rank = self.options.rank
        a = np.zeros((rank * target.experts, columns), np.float32)
        self._write(target, a, np.zeros((rows, rank * target.experts), np.float32))
        return Written(target, rank, True, 0.0, 0.0)

    def _write(self, target: Target, a: Floats, b: Floats) -> None:
        module = f"base_model.model.{target.module}"
        if target.kind == "experts":
            outer = {t.leaf for t in self.targets.factored if t.module == target.module}
            later = EXPERT_PARAMETERS[EXPERT_PARAMETERS.index(target.leaf) + 1 :]
            module += ".base_layer" * len(outer.intersection(later))
        b = b.reshape(len(b), -1)
        code = CODES[self.options.dtype]
        kind = "lora_embedding_{}" if target.kind == "embedding" else "lora_{}.weight"
        for side, factor in (("A", a), ("B", b)):
            raw, _ = _stored(factor, code)
            self.folder.add(f"{module}.{kind.format(side)}", code, factor.shape, raw)

    def _rounded(self, target: Target, factor: Floats) -> Floats:
        """Return what is left of a factor in the output's dtype, as float32."""
        code = CODES[self.options.dtype]
        raw, finite = _stored(factor, code)
        if not finite:
            raise UserError(
                "overflow",
                f"The factors of {target.name} do not fit {self.options.dtype}.",
                "They hold numbers beyond its range.",
                "Choose bfloat16 or float32.",
            )
        out = np.empty(factor.size, np.float32)
        widen(raw, code, out)
        return out.reshape(factor.shape)

    def _sources(self, name: str) -> tuple[Source, Source] | None:
        reference = self.lineup.source(name, self.lineup.reference)
        tuned = self.lineup.source(name, self.lineup.finetuned[0])
        if reference is None or tuned is None or tuned.same_bytes_as(reference):
            return None
        return reference, tuned

    def _change(self, target: Target, number: int) -> Floats:
        """Return matrix `number` of a target's task vector as it is stored, float32 [n, m]."""
        stacked = target.experts > 1 and len(target.parts) == 1
        names = target.parts[0 if stacked else number]
        width = self.shapes[names[0]][-1]
        rows = [self.shapes[name][-2] for name in names]
        out = np.zeros((sum(rows), width), np.float32)
        first = 0
        for name, n in zip(names, rows, strict=True):
            low = number * n * width if stacked else 0
            self._read_change(name, low, out[first : first + n].reshape(-1))
            first += n
        self.control.advance(0 if stacked and number else len(names), out.nbytes * 2)
        return out

    def _read_change(self, name: str, low: int, out: Floats) -> None:
        """Fill `out` with the task vector of the tensor `name` from element `low` on."""
        sources = self._sources(name)
        if sources is None:
            return
        reference, tuned = sources
        self.reader.read(tuned, low, low + out.size, out)
        for start in range(0, out.size, _READ):
            part = out[start : start + _READ]
            part -= self.reader.read(reference, low + start, low + start + part.size)
        if not np.isfinite(out).all():
            raise UserError(
                "not_finite",
                f"{name} holds NaN or Inf.",
                "What changed in it cannot be told.",
                "Use an intact copy of both models.",
            )

    def _norm_of_change(self, name: str) -> float:
        self.control.check()
        size, total = math.prod(self.shapes[name]), 0.0
        for low in range(0, size, _READ):
            part = np.zeros(min(_READ, size - low), np.float32)
            self._read_change(name, low, part)
            total += squared_norm(part[None])
        self.control.advance(1, size * 8)
        self.unchanged += not total
        return math.sqrt(total)

    def _write_whole(self, changed: dict[str, float]) -> None:
        """Write changed norms with all of their module, and changed biases by themselves."""
        factored = {w.target.module for w in self.written}
        modules = {
            module
            for module, _, leaf in (name.rpartition(".") for name in changed)
            if leaf == "weight"
        }
        for name in self.shapes:
            module, _, leaf = name.rpartition(".")
            if module in modules:
                self._write_tensor(name, name)
            elif name in changed:
                layer = f"{module}.base_layer" if module in factored else module
                self._write_tensor(name, f"{layer}.{leaf}")
                self.biases.append(name)
        self.modules = sorted(modules)

    def _write_tensor(self, name: str, stored: str) -> None:
        members = (self.lineup.finetuned[0], self.lineup.reference)
        source = next(s for m in members if (s := self.lineup.source(name, m)) is not None)
        values = self.reader.read(source, 0, math.prod(self.shapes[name]))
        code = source.checkpoint.index.dtype_of(source.row).code
        code = code if source.change is None and source.rows is None else "F32"
        raw, _ = _stored(values, code)
        self.folder.add(f"base_model.model.{stored}", code, self.shapes[name], raw)


def _stored(values: Floats, code: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return the bytes of `values` in the dtype `code`, and whether all are finite there."""
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(BY_CODE[code].nbytes(flat.size), np.uint8)
    return out, store(flat, code, out)
