"""Opens checkpoints by their headers alone and lists their tensors in numpy columns."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.dtypes import DTYPE_ID, DTYPES, DType
from trimtab.checkpoints.header import Header, read_header, unreadable
from trimtab.checkpoints.naming import natural_key
from trimtab.errors import UserError

INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")

Kind = Literal["folder", "file", "adapter"]


@dataclass(frozen=True, eq=False)
class TensorIndex:
    """The tensors of a checkpoint in natural order of their names, one row each.

    `dtype` is uint8 [n] (position in `dtypes.DTYPES`), `file` int32 [n], `start` and `stop`
    int64 [n] byte positions in that file, `numel` int64 [n]; `shapes` a tuple per tensor.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: npt.NDArray[np.uint8]
    file: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    numel: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._row_of

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def row(self, name: str) -> int:
        """Return the row of `name`; KeyError when it is not there."""
        return self._row_of[name]

    def dtype_of(self, row: int) -> DType:
        """Return the element type of a row."""
        return DTYPES[int(self.dtype[row])]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A set of named tensors on disk, known by its headers; equal only to itself.

    `config` is the model's config.json (of an adapter: adapter_config.json), empty when there is
    none. `notes` says in plain words what was left aside while opening.
    """

    path: Path
    kind: Kind
    files: tuple[Path, ...]
    headers: tuple[Header, ...] = field(repr=False)
    index: TensorIndex = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's or file's own name, as shown on cards."""
        return self.path.stem if self.kind == "file" else self.path.name

    @property
    def folder(self) -> Path:
        """Where the companions (config, tokenizer) are."""
        return self.path.parent if self.kind == "file" else self.path

    @property
    def n_bytes(self) -> int:
        """Bytes of all weight files together."""
        return sum(header.file_bytes for header in self.headers)

    @property
    def n_parameters(self) -> int:
        """Number of elements in all tensors."""
        return int(self.index.numel.sum())

    @cached_property
    def dtype_label(self) -> str:
        """The element type that most parameters have, such as "bf16"."""
        if not len(self.index):
            return "empty"
        weights = np.bincount(self.index.dtype, self.index.numel, minlength=len(DTYPES))
        return DTYPES[int(weights.argmax())].label

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes when the weights do: headers, sizes, times, 64 samples a file.

        A full hash would cost a read of the whole checkpoint just to find a cached result.
        """
        digest = hashlib.blake2b(digest_size=16)
        for header in self.headers:
            digest.update(len(header.raw).to_bytes(8, "little"))
            digest.update(header.raw)
            digest.update(header.file_bytes.to_bytes(8, "little"))
            digest.update(header.mtime_ns.to_bytes(8, "little", signed=True))
            with open(header.path, "rb") as file:
                for position in np.linspace(8, max(8, header.file_bytes - 4096), 64).astype(int):
                    digest.update(os.pread(file.fileno(), 4096, int(position)))
        if self.kind == "adapter":
            # scale and rank live in the config, not in the weights
            digest.update(json.dumps(self.config, sort_keys=True, default=str).encode())
        digest.update(bytes([self.ties_embeddings]))
        return digest.hexdigest()

    @property
    def ties_embeddings(self) -> bool:
        """Whether a missing output head is the input embedding: so unless the config denies it."""
        return bool(self.config.get("tie_word_embeddings", True))


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a model folder, a `.safetensors` file, an index json or a PEFT adapter folder.

    Reads headers and small json files only. Raises `UserError` with the codes of
    `header.read_header` and `not_found`, `empty_folder`, `not_a_model`, `pickle_refused`,
    `bad_json`, `leaves_folder`, `missing_shard`, `missing_tensors`, `duplicate_names`.
    """
    # os.path: the Path version fails where a name begins with ~ and is no user
    path = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111
    try:
        return _open(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _open(path: Path) -> Checkpoint:
    if not path.exists():
        raise UserError(
            "not_found",
            f"{path.name} is not there.",
            f"Nothing was found at {path}.",
            "It may have been moved or renamed: choose it again.",
        )
    if path.is_dir():
        return _open_folder(path)
    if path.name.endswith(".safetensors.index.json"):
        return _open_folder(path.parent, path.name)
    if path.suffix == ".safetensors":
        if path.name == ADAPTER_WEIGHTS and (path.parent / ADAPTER_CONFIG).exists():
            return _open_folder(path.parent)
        return _checkpoint(path, "file", [path], {}, {}, [])
    if path.suffix in _PICKLES:
        raise _pickle_refused(path)
    raise UserError(
        "not_a_model",
        f"{path.name} is not a model.",
        f"Files ending in {path.suffix or 'nothing'} hold no tensors that can be read.",
        "Choose a model folder, a .safetensors file or an adapter.",
    )


def _pickle_refused(path: Path) -> UserError:
    return UserError(
        "pickle_refused",
        f"{path.name} is a pickle file and was not opened.",
        "Loading a pickle can run any code that its author put there.",
        "Use the safetensors version of the model.",
        details=str(path),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "bad_json",
            f"{path.name} cannot be read.",
            f"The parser says: {error}.",
            "The file is damaged: get it again.",
            details=str(path),
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            "bad_json",
            f"{path.name} is malformed.",
            "It must hold a JSON object.",
            "The file is damaged: get it again.",
            details=str(path),
        )
    return content


def _open_folder(folder: Path, chosen_index: str = "") -> Checkpoint:
    names = sorted((entry.name for entry in folder.iterdir()), key=natural_key)
    if not names:
        raise UserError(
            "empty_folder",
            f"{folder.name} is empty.",
            "A model folder holds config.json and .safetensors files.",
            "Choose the folder that holds the model.",
            details=str(folder),
        )
    if ADAPTER_CONFIG in names and not chosen_index:
        return _open_adapter(folder, names)
    index_name = chosen_index or INDEX_NAME
    notes: list[str] = []
    weight_map: dict[str, str] = {}
    present = [name for name in names if name.endswith(".safetensors")]
    if index_name in names:
        weight_map = _read_weight_map(folder / index_name)
        shards = sorted(set(weight_map.values()), key=natural_key)
        missing = [name for name in shards if name not in names]
        if missing:
            raise _missing_shards(folder, missing)
    elif "model.safetensors" in present:
        shards = ["model.safetensors"]
    else:
        shards = _numbered_shards(folder, present) or present
    if not shards:
        raise _no_weights(folder, names)
    ignored = [name for name in present if name not in shards]
    if ignored:
        notes.append(f"Not part of the model, left aside: {', '.join(ignored)}.")
    config = _read_json(folder / "config.json") if "config.json" in names else {}
    if not config:
        notes.append("There is no config.json: the tensors can be merged, not run.")
    return _checkpoint(
        folder, "folder", [folder / name for name in shards], config, weight_map, notes
    )


def _no_weights(folder: Path, names: list[str]) -> UserError:
    for name in names:
        if name.endswith(_PICKLES):
            return _pickle_refused(folder / name)
    return UserError(
        "not_a_model",
        f"{folder.name} is not a model folder.",
        "It holds no .safetensors file.",
        "Choose the folder that holds config.json and the .safetensors files.",
        details=str(folder),
    )


def _missing_shards(folder: Path, missing: list[str]) -> UserError:
    return UserError(
        "missing_shard",
        f"{folder.name} is incomplete.",
        f"Missing: {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}.",
        "Finish the download, then open the folder again.",
        details="\n".join(missing),
    )


def _numbered_shards(folder: Path, present: list[str]) -> list[str]:
    """Return the shards of a `-00001-of-00003` series, which must be whole."""
    series: dict[str, dict[int, str]] = {}
    for name in present:
        match = _NUMBERED.search(name)
        if match:
            key = f"{name[: match.start()]}-{{:05d}}-of-{match.group(2)}.safetensors"
            series.setdefault(key, {})[int(match.group(1))] = name
    if not series:
        return []
    key = min(series, key=lambda k: (not k.startswith("model-"), k))
    total = int(key.split("-of-")[-1].removesuffix(".safetensors"))
    missing = [key.format(i) for i in range(1, total + 1) if i not in series[key]]
    if missing:
        raise _missing_shards(folder, missing)
    return [series[key][i] for i in range(1, total + 1)]


def _read_weight_map(path: Path) -> dict[str, str]:
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(value, str) for value in weight_map.values()
    ):
        raise UserError(
            "bad_json",
            f"{path.name} is malformed.",
            "Its weight_map must map tensor names to file names.",
            "The file is damaged: get it again.",
            details=str(path),
        )
    for value in sorted(set(weight_map.values())):
        if not value or value in (".", "..") or "/" in value or "\\" in value or "\0" in value:
            raise UserError(
                "leaves_folder",
                f"{path.name} points outside the model folder.",
                f"Its weight_map names the file {value!r}.",
                "Do not use this model: such an index is broken or made to harm.",
                details=str(path),
            )
    return weight_map


def _open_adapter(folder: Path, names: list[str]) -> Checkpoint:
    config = _read_json(folder / ADAPTER_CONFIG)
    if ADAPTER_WEIGHTS not in names:
        if "adapter_model.bin" in names:
            raise _pickle_refused(folder / "adapter_model.bin")
        raise _missing_shards(folder, [ADAPTER_WEIGHTS])
    return _checkpoint(folder, "adapter", [folder / ADAPTER_WEIGHTS], config, {}, [])


def _checkpoint(
    path: Path,
    kind: Kind,
    files: list[Path],
    config: Mapping[str, Any],
    weight_map: Mapping[str, str],
    notes: list[str],
) -> Checkpoint:
    headers = tuple(read_header(file) for file in files)
    index = _build_index(path, headers)
    if weight_map:
        lacking = [name for name in weight_map if name not in index]
        if lacking:
            raise UserError(
                "missing_tensors",
                f"{path.name} lacks {len(lacking)} of its tensors.",
                f"The index names {lacking[0]}, and no shard holds it.",
                "A shard belongs to another version of the model: download it again.",
                details="\n".join(lacking[:100]),
            )
        extra = sum(name not in weight_map for name in index.names)
        if extra:
            notes.append(f"{extra} tensors are in the shards and not in the index; they are used.")
        moved = sum(
            files[file].name != weight_map.get(name, files[file].name)
            for name, file in zip(index.names, index.file.tolist(), strict=True)
        )
        if moved:
            notes.append(f"{moved} tensors are in another shard than the index says.")
    return Checkpoint(path, kind, tuple(files), headers, index, config, tuple(notes))


def _build_index(path: Path, headers: Iterable[Header]) -> TensorIndex:
    rows = [(e, number) for number, header in enumerate(headers) for e in header.entries]
    rows.sort(key=lambda row: natural_key(row[0].name))
    names = tuple(entry.name for entry, _ in rows)
    if len(set(names)) != len(names):
        twice = next(a for a, b in pairwise(names) if a == b)
        raise UserError(
            "duplicate_names",
            f"{path.name} holds a tensor twice.",
            f"{twice} is in more than one shard.",
            "The folder mixes two models: keep the shards of one of them.",
        )
    return TensorIndex(
        names=names,
        shapes=tuple(entry.shape for entry, _ in rows),
        dtype=np.array([DTYPE_ID[entry.dtype.code] for entry, _ in rows], dtype=np.uint8),
        file=np.array([number for _, number in rows], dtype=np.int32),
        start=np.array([entry.start for entry, _ in rows], dtype=np.int64),
        stop=np.array([entry.stop for entry, _ in rows], dtype=np.int64),
        numel=np.array([entry.numel for entry, _ in rows], dtype=np.int64),
    )
