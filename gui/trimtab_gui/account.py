"""A plan as the window shows it: every tensor's account in columns that sort and filter fast."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_gui import texts

ACTIONS = ("merged", "converted", "copied")
_MOST_TOLD = 4
_LEVELS = ("error", "warning", "note")
Order = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Share:
    """Tensors that fare alike: how many, and their bytes in the output."""

    action: str
    count: int
    n_bytes: int


@dataclass(frozen=True)
class Account:
    """What a merge will do, as its plan says."""

    method: str
    reference: str
    device: str
    bytes_in: int
    bytes_out: int
    memory_bytes: int
    shards: int
    notes: tuple[str, ...]
    findings: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...]
    table: TensorTable

    @classmethod
    def load(cls, path: Path) -> Account:
        """Read what the job `plan` wrote; OSError, ValueError or KeyError when it is damaged."""
        said = json.loads(path.read_text(encoding="utf-8"))
        table = TensorTable(said["tensors"], said["data_bytes"])
        return cls(
            said["method"], said["reference"], said["device"], said["bytes_in"], said["bytes_out"],
            said["memory_bytes"], len(said["shards"]), tuple(said.get("notes", ())),
            tuple((f["level"], f"{f['model']}: {f['what']} {f['effect']}")
                  for f in said["findings"]),
            table.shares(), table,
        )  # fmt: skip

    def told(self) -> list[str]:
        """Return what there is to say besides numbers, in a few lines, the gravest first."""
        lines = [text for _, text in sorted(self.findings, key=lambda f: _LEVELS.index(f[0]))]
        lines += self.notes
        if len(lines) > _MOST_TOLD:
            lines = [*lines[: _MOST_TOLD - 1], f"and {len(lines) - _MOST_TOLD + 1} more"]
        return [f"·  {line}" for line in lines]


class TensorTable:
    """One row a tensor, as texts to be read and keys to be sorted by."""

    headers = ("Tensor", "Shape", "Type", "Size", "What", "From", "Ratio", "Parameters")
    NAME, SHAPE, DTYPE, SIZE, ACTION, SOURCES, RATIO, PARAMETERS = range(8)

    def __init__(self, tensors: Sequence[Mapping[str, Any]], n_bytes: Sequence[int]) -> None:
        self.names = [str(t["name"]) for t in tensors]
        self.actions = [str(t["action"]) for t in tensors]
        self.whys = [str(t["why"]) for t in tensors]
        self.n_bytes = np.array(n_bytes, dtype=np.int64)
        self.columns: tuple[list[str], ...] = (
            self.names,
            [texts.shape(t["shape"]) for t in tensors],
            [str(t["dtype"]) for t in tensors],
            [texts.size(n) for n in n_bytes],
            self.actions,
            [_sources(t) for t in tensors],
            [_named(t["ratios"]) for t in tensors],
            [_named(t["parameters"]) for t in tensors],
        )
        numel = np.array([int(np.prod(t["shape"], dtype=np.int64)) for t in tensors])
        ratio = np.array([max(map(abs, t["ratios"].values()), default=0.0) for t in tensors])
        self._keys: dict[int, npt.NDArray[Any]] = {
            self.SHAPE: numel, self.SIZE: self.n_bytes, self.RATIO: ratio,
        }  # fmt: skip
        self._haystack = [
            "\n".join((name, action, why, *(c[i] for c in self.columns[5:]))).casefold()
            for i, (name, action, why) in enumerate(
                zip(self.names, self.actions, self.whys, strict=True)
            )
        ]

    def __len__(self) -> int:
        return len(self.names)

    def shares(self) -> tuple[Share, ...]:
        """Return the tensors by what happens to them, what there is none of left out."""
        found = []
        for action in ACTIONS:
            rows = [i for i, a in enumerate(self.actions) if a == action]
            if rows:
                found.append(Share(action, len(rows), int(self.n_bytes[rows].sum())))
        return tuple(found)

    def order(self, column: int, descending: bool) -> Order:
        """Return all rows in the order of a column; those alike stay in the output's order."""
        keys = self._keys.get(column)
        if keys is None:
            _, keys = np.unique(np.array(self.columns[column], dtype=object), return_inverse=True)
        order: Order = np.argsort(-keys if descending else keys, kind="stable")
        return order

    def matching(self, words: str, actions: frozenset[str]) -> npt.NDArray[np.bool_]:
        """Return which rows hold every word and fare in one of the ways asked for, bool [n]."""
        wanted = words.casefold().split()
        return np.fromiter(
            (
                action in actions and all(word in text for word in wanted)
                for action, text in zip(self.actions, self._haystack, strict=True)
            ),
            dtype=np.bool_,
            count=len(self),
        )

    def row(self, i: int) -> list[str]:
        """Return one row for a file: sizes are bytes, and why is told."""
        cells = [column[i] for column in self.columns]
        cells[self.SIZE] = str(int(self.n_bytes[i]))
        return [*cells, self.whys[i]]

    @property
    def file_headers(self) -> list[str]:
        """Return the names of what `row` gives."""
        return [h.lower() if h != "Size" else "bytes" for h in self.headers] + ["why"]


def _sources(tensor: Mapping[str, Any]) -> str:
    """Return the models; the tensor's name there only where it is another."""
    own = f": {tensor['name']}"
    return " + ".join(str(s).replace(own, "", 1) for s in tensor["sources"])


def _named(values: Mapping[str, Any]) -> str:
    return " · ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return _value(value[0]) if len(set(map(str, value))) == 1 else ", ".join(map(_value, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}".replace("-", "−") if isinstance(value, int | float) else str(value)
