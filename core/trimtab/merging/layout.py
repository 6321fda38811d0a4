"""Lays the output's tensors out in shards, as the reference has them or by a chosen size."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trimtab.checkpoints import Checkpoint
from trimtab.checkpoints.dtypes import BY_CODE


@dataclass(frozen=True)
class Shard:
    """One file of the output: its name, complete header, and the tensor rows it holds."""

    name: str
    header: bytes = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    nbytes: int


#: a tensor to be laid out: its name, shape and safetensors dtype
Entry = tuple[str, tuple[int, ...], str]
_DEFAULT_SHARD = 5 * 10**9


def lay_out(
    reference: Checkpoint, entries: Sequence[Entry], shard_size: int | str
) -> tuple[tuple[Shard, ...], list[tuple[int, int]]]:
    """Return the shards and, for each entry, its shard and byte position in that file.

    With `shard_size` "reference" each tensor stays in the file, and in the order, that it has in
    the reference; where the output has other tensors than the reference, in shards of 5 GB.
    """
    index = reference.index
    native = [name for name, _, _ in entries] == list(index.names) and all(
        shape == index.shapes[row] for row, (_, shape, _) in enumerate(entries)
    )
    order = list(range(len(entries)))
    if native:
        order = [int(row) for row in np.lexsort((index.start, index.file))]
    if native and shard_size == "reference":
        names = [path.name for path in reference.files]
        groups: list[list[int]] = [[] for _ in names]
        for row in order:
            groups[int(index.file[row])].append(row)
    else:
        limit = _DEFAULT_SHARD if shard_size == "reference" else int(shard_size)
        groups = _by_size(entries, order, limit)
        total = len(groups)
        names = ["model.safetensors"] if total == 1 else [
            f"model-{i:05d}-of-{total:05d}.safetensors" for i in range(1, total + 1)
        ]  # fmt: skip
    shards = []
    positions: dict[int, tuple[int, int]] = {}
    for number, (name, rows) in enumerate(zip(names, groups, strict=True)):
        same = native and all(index.dtype_of(r).code == entries[r][2] for r in rows)
        if same and shard_size == "reference":
            # nothing moves: the very header of the reference, however its writer spelt it
            raw, size = reference.headers[number].raw, reference.headers[number].file_bytes
            header = len(raw).to_bytes(8, "little") + raw
            offsets = {row: int(index.start[row]) for row in rows}
        else:
            header, offsets, size = _header(entries, rows, _metadata(reference, name))
        shards.append(Shard(name, header, tuple(rows), size))
        positions.update({row: (number, offset) for row, offset in offsets.items()})
    return tuple(shards), [positions[row] for row in range(len(entries))]


def _metadata(reference: Checkpoint, name: str) -> dict[str, str]:
    for path, header in zip(reference.files, reference.headers, strict=True):
        if path.name == name:
            return header.metadata
    return {"format": "pt"}


def _nbytes(entry: Entry) -> int:
    return BY_CODE[entry[2]].nbytes(math.prod(entry[1]))


def _by_size(entries: Sequence[Entry], order: Sequence[int], limit: int) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    filled = 0
    for row in order:
        size = _nbytes(entries[row])
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(row)
        filled += size
    return groups


def _header(
    entries: Sequence[Entry], rows: Sequence[int], metadata: dict[str, str]
) -> tuple[bytes, dict[int, int], int]:
    content: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    position = 0
    relative: dict[int, int] = {}
    for row in rows:
        name, shape, dtype = entries[row]
        size = _nbytes(entries[row])
        content[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        relative[row] = position
        position += size
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    header = len(text).to_bytes(8, "little") + text
    start = len(header)
    return header, {row: start + offset for row, offset in relative.items()}, start + position


def index_json(shards: Sequence[Shard], names: Sequence[str]) -> str | None:
    """Return the text of `model.safetensors.index.json`, None for a single unnumbered file."""
    if len(shards) == 1 and "-of-" not in shards[0].name:
        return None
    weight_map = {names[row]: shard.name for shard in shards for row in shard.rows}
    total = sum(shard.nbytes - len(shard.header) for shard in shards)
    return json.dumps(
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
        indent=2,
    )


def is_weights(path: Path) -> bool:
    """Whether a file of a model folder holds weights, in any format, or names such files."""
    return path.name.endswith(
        (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx",
         ".safetensors.index.json", ".bin.index.json")
    )  # fmt: skip
