"""Mask files: packed bits or soft values of each tensor, with how and from what they were made."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.checkpoints.header import Entry, Header, read_header, unreadable
from trimtab.errors import UserError
from trimtab.masks.bits import Bits, Halves, clear_tail, constant, count, n_bytes, shifted

SUFFIX = ".mask.safetensors"
FORMAT = "1"
#: the key of the metadata that says a safetensors file is a mask, and of which format
_MARK = "trimtab_mask"
#: bytes of a file read at once
_STRIDE = 1 << 24

Kind = Literal["bits", "soft", "all", "none"]
Mode = Literal["paper", "authors' code", "ours"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompts(_Part):
    """Prompts that a mask was found with: a set's name, its digest, and the ids used of it."""

    name: str
    digest: str = ""
    ids: tuple[str, ...] = ()


class MaskAbout(_Part):
    """Where a mask is from.

    `builder` made it, in `mode`: the paper's formula, the authors' code, or ours; `parameters` are
    JSON. `lineup` is the fingerprint of the lineup it was made for, `prompts` what it was
    calibrated or trained on: what may not be among the prompts it is measured by.
    """

    builder: str
    mode: Mode = "ours"
    parameters: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    lineup: str = ""
    prompts: tuple[Prompts, ...] = ()


class _Tensor(_Part):
    kind: Kind
    shape: tuple[int, ...]


class MaskFile:
    """A mask file, opened by its header; entries are read when they are asked for.

    Safe to use from several threads; no file stays open.
    """

    def __init__(self, header: Header, about: MaskAbout, tensors: Mapping[str, _Tensor]):
        self.path = header.path
        self.about = about
        self._header = header
        self._tensors = tensors
        self._entries = {entry.name: entry for entry in header.entries}

    @classmethod
    def open(cls, path: Path) -> MaskFile:
        """Read and check the header of `path`.

        Raises `UserError` as `read_header` does, and with `not_a_mask`, `mask_too_new`, `bad_mask`.
        """
        header = read_header(Path(path))
        version = header.metadata.get(_MARK)
        if version is None:
            raise UserError(
                "not_a_mask",
                f"{header.path.name} is not a mask.",
                "It is a safetensors file, and nothing in it says which entries survive.",
                f"Masks are made by 'trimtab mask'; their names end in {SUFFIX}.",
                details=str(header.path),
            )
        if version != FORMAT:
            raise UserError(
                "mask_too_new",
                f"{header.path.name} is a mask of another format.",
                f"It has format {version[:20]}; this program knows {FORMAT}.",
                "Use the version of Trimtab that made it, or a newer one.",
                details=str(header.path),
            )
        try:
            about = MaskAbout.model_validate_json(header.metadata.get("about", ""))
            said = json.loads(header.metadata.get("tensors", ""))
            if not isinstance(said, dict):
                raise ValueError("the list of tensors is no table")
            tensors = {name: _Tensor.model_validate(value) for name, value in said.items()}
        except (ValidationError, ValueError, RecursionError) as error:
            raise _bad(header.path, f"Its metadata cannot be understood: {error}.") from error
        _check(header, tensors)
        return cls(header, about, tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """The masked tensors' names, in the order in which they were written."""
        return tuple(self._tensors)

    def kind(self, name: str) -> Kind:
        """Return how a tensor is masked; one that the file does not name is kept: "all"."""
        tensor = self._tensors.get(name)
        return "all" if tensor is None else tensor.kind

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The masked tensors' shapes by name."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of the masked tensor, None for one that the file does not name."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.shape

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes when the mask does: header, size, time, 64 samples."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self._header.raw)
        digest.update(f"{self._header.file_bytes} {self._header.mtime_ns}".encode())
        with self._opened() as file:
            for place in np.linspace(8, max(8, self._header.file_bytes - 4096), 64).astype(int):
                file.seek(int(place))
                digest.update(file.read(4096))
        return digest.hexdigest()

    def read_bits(self, name: str, low: int, high: int) -> Bits:
        """Return entries [low, high) as packed bits, uint8 [ceil((high - low) / 8)].

        Bit 0 is entry `low`; bits after the last are 0. For tensors of kind "bits", "all", "none".
        Raises `UserError` with `mask_changed`, `truncated`, `unreadable`.
        """
        kind = self.kind(name)
        if kind in ("all", "none"):
            return constant(high - low, kind == "all")
        if kind != "bits":
            raise ValueError(f"the mask of {name} is soft")
        first, last = low // 8, n_bytes(high)
        raw = np.frombuffer(self._read(self._entries[name], first, last), dtype=np.uint8)
        return shifted(raw, low - 8 * first, high - low)

    def read_soft(self, name: str, low: int, high: int) -> Halves:
        """Return entries [low, high) as values in [0, 1], float16 [high - low], of any kind.

        Raises `UserError` as `read_bits`, and with `bad_mask` for a value outside [0, 1].
        """
        if self.kind(name) != "soft":
            bits = self.read_bits(name, low, high)
            return np.unpackbits(bits, count=high - low, bitorder="little").astype(np.float16)
        raw = self._read(self._entries[name], 2 * low, 2 * high)
        values: Halves = np.frombuffer(raw, dtype="<f2").astype(np.float16, copy=False)
        if not ((values >= 0) & (values <= 1)).all():
            raise _bad(self.path, f"{name} has values outside 0 to 1.")
        return values

    def _opened(self) -> io.FileIO:
        try:
            file = io.FileIO(self.path)
        except OSError as error:
            raise unreadable(self.path, error) from error
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) == (self._header.file_bytes, self._header.mtime_ns):
            return file
        file.close()
        raise UserError(
            "mask_changed",
            f"{self.path.name} changed while it was in use.",
            "Another program wrote it anew.",
            "Begin again with the file as it is now.",
            details=str(self.path),
        )

    def _read(self, entry: Entry, first: int, last: int) -> bytearray:
        """Return bytes [first, last) of a stored tensor."""
        out = bytearray(last - first)
        view = memoryview(out)
        with self._opened() as file:
            try:
                file.seek(entry.start + first)
                filled = 0
                while filled < len(out):
                    got = file.readinto(view[filled:])
                    if not got:
                        raise _bad(self.path, "It became shorter while it was read.")
                    filled += got
            except OSError as error:
                raise unreadable(self.path, error) from error
        return out


class MaskWriter:
    """Writes a mask tensor by tensor; the file appears under its name at `finish`, or not at all.

    Use as a context manager. A tensor whose entries turn out all alike is only named, whichever
    call gave it: a mask has one form. Raises `UserError` with `cannot_write` when the disk does not
    take it.
    """

    def __init__(self, path: Path, about: MaskAbout):
        self._path = Path(path)
        self._about = about
        self._tensors: dict[str, dict[str, Any]] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._size = 0
        if not self._path.name.endswith(SUFFIX):
            raise _cannot_write(self._path, f"The names of masks end in {SUFFIX}.")
        try:
            self._data = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
        except OSError as error:
            raise _cannot_write(self._path, f"The system says: {error.strerror}.") from error

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data.close()

    def bits(self, name: str, shape: Sequence[int], packed: Bits | Iterable[Bits]) -> None:
        """Add a tensor's packed bits: uint8 [ceil(n / 8)], whole or in pieces in their order.

        A piece ends on a whole byte of the tensor, so its entries are a multiple of 8 but for the
        last one's.
        """
        size = math.prod(shape)
        left, kept = n_bytes(size), 0
        for piece in [packed] if isinstance(packed, np.ndarray) else packed:
            left -= piece.size
            # a copy: the last byte's spare bits are cleared, and the caller's are not ours
            part = clear_tail(piece.copy(), size) if left == 0 and piece.size else piece
            kept += count(part)
            self._append(part.tobytes())
        if left:
            raise ValueError(f"{name} takes {n_bytes(size)} bytes of bits")
        kind: Kind = "all" if kept == size else "none" if kept == 0 else "bits"
        self._named(name, shape, kind, "U8", [n_bytes(size)])

    def soft(self, name: str, shape: Sequence[int], values: Halves | Iterable[Halves]) -> None:
        """Add a tensor's soft values in [0, 1]: float16 of its size, whole or in flat pieces."""
        left, lowest, highest = math.prod(shape), 1.0, 0.0
        for piece in [values] if isinstance(values, np.ndarray) else values:
            if piece.dtype != np.float16 or not ((piece >= 0) & (piece <= 1)).all():
                raise ValueError(f"soft values of {name} are float16 in [0, 1]")
            left -= piece.size
            if piece.size:
                lowest, highest = min(lowest, piece.min()), max(highest, piece.max())
            self._append(piece.astype("<f2", copy=False).tobytes())
        if left:
            raise ValueError(f"{name} takes {math.prod(shape)} values")
        kind: Kind = "all" if lowest == 1 else "none" if highest == 0 else "soft"
        self._named(name, shape, kind, "F16", list(shape))

    def constant(self, name: str, shape: Sequence[int], keep: bool) -> None:
        """Add a tensor that is kept, or removed, as a whole."""
        self._named(name, shape, "all" if keep else "none", "U8", [])

    def finish(self) -> None:
        """Write the header and give the file its name."""
        tensors = json.dumps(self._tensors, ensure_ascii=False, separators=(",", ":"))
        metadata = {_MARK: FORMAT, "about": self._about.model_dump_json(), "tensors": tensors}
        header = json.dumps(
            {"__metadata__": metadata, **self._entries}, ensure_ascii=False
        ).encode()
        header += b" " * (-len(header) % 8)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        try:
            self._data.seek(0)
            with partial.open("wb") as file:
                file.write(len(header).to_bytes(8, "little") + header)
                shutil.copyfileobj(self._data, file, _STRIDE)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise _cannot_write(self._path, f"The system says: {error.strerror}.") from error

    def _append(self, raw: bytes) -> None:
        try:
            self._data.write(raw)
        except OSError as error:
            raise _cannot_write(self._path, f"The system says: {error.strerror}.") from error

    def _named(
        self, name: str, shape: Sequence[int], kind: Kind, code: str, stored: list[int]
    ) -> None:
        if name in self._tensors or name == "__metadata__":
            raise ValueError(f"{name} cannot be added to a mask, or was already")
        self._tensors[name] = {"kind": kind, "shape": list(shape)}
        if kind in ("bits", "soft"):
            stop = self._data.tell()
            entry = {"dtype": code, "shape": stored, "data_offsets": [self._size, stop]}
            self._entries[name] = entry
            self._size = stop
        else:
            self._data.seek(self._size)
            self._data.truncate()


def _check(header: Header, tensors: Mapping[str, _Tensor]) -> None:
    """Raise `UserError` unless the stored tensors are those that the metadata speaks of."""
    stored = {entry.name: entry for entry in header.entries}
    for name, tensor in tensors.items():
        if min(tensor.shape, default=0) < 0:
            raise _bad(header.path, f"{name} cannot have the shape {list(tensor.shape)}.")
        entry = stored.pop(name, None)
        found = None if entry is None else (entry.dtype.code, entry.shape)
        wanted: dict[Kind, tuple[str, tuple[int, ...]]] = {
            "bits": ("U8", (n_bytes(math.prod(tensor.shape)),)),
            "soft": ("F16", tensor.shape),
        }
        if found != wanted.get(tensor.kind):
            raise _bad(
                header.path,
                f"{name} is said to be {tensor.kind!r} of shape {list(tensor.shape)}; "
                + (f"it is stored as {found[0]} {list(found[1])}." if found else "none is stored."),
            )
    if stored:
        raise _bad(header.path, f"{next(iter(stored))} is stored and not spoken of.")


def _bad(path: Path, why: str) -> UserError:
    return UserError(
        "bad_mask",
        f"{path.name} is a damaged mask.",
        why,
        "Make it again, or copy it again from where it came from.",
        details=str(path),
    )


def _cannot_write(path: Path, why: str) -> UserError:
    return UserError(
        "cannot_write",
        f"{path.name} could not be written.",
        why,
        "Choose another place or name.",
        details=str(path),
    )
