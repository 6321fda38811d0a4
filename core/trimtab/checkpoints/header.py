"""Reads the header of one safetensors file and trusts nothing in it."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.checkpoints.dtypes import BY_CODE, DType
from trimtab.errors import UserError

#: the limit of the format's own library
MAX_HEADER_BYTES = 100_000_000
_MOST = 2**62


@dataclass(frozen=True)
class Entry:
    """One tensor as its header describes it; `start` and `stop` are positions in the file."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    numel: int
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """A checked header: entries tile the data section without hole or overlap."""

    path: Path
    raw: bytes
    entries: tuple[Entry, ...]
    metadata: dict[str, str]
    file_bytes: int
    mtime_ns: int


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a file or folder that the system does not let be read."""
    return UserError(
        "unreadable",
        f"{path.name} cannot be read.",
        f"The system says: {error.strerror}.",
        "Check that it is still there and that you may read it.",
        details=str(path),
    )


def _bad(code: str, path: Path, what: str, why: str, fix: str = "") -> UserError:
    return UserError(
        code,
        f"{path.name}: {what}",
        why,
        fix or "The file is damaged or not safetensors: download or save it again.",
        details=str(path),
    )


class _Duplicate(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return found


def _open_unblocked(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))


def read_header(path: Path) -> Header:
    """Read and check the header of `path`; the tensors' bytes are not touched.

    Raises `UserError` with the codes `unreadable`, `not_safetensors`, `header_too_long`,
    `header_not_json`, `duplicate_names`, `bad_header`, `offsets_overlap`, `offsets_outside` and
    `truncated`.
    """
    try:
        # a pipe or device under this name must not block or be read
        with open(path, "rb", opener=_open_unblocked) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _bad(
                    "not_safetensors", path, "this is not a file", "It is a pipe or a device."
                )
            prefix = file.read(8)
            if len(prefix) < 8:
                raise _bad(
                    "not_safetensors",
                    path,
                    "this is not a safetensors file",
                    f"It has {status.st_size} bytes; even an empty one needs a header of 8.",
                )
            length = int.from_bytes(prefix, "little")
            if length > status.st_size - 8:
                raise _bad(
                    "header_too_long",
                    path,
                    "the header is longer than the file",
                    f"It claims {length:,} bytes and the file has {status.st_size:,}.",
                )
            if length > MAX_HEADER_BYTES:
                raise _bad(
                    "header_too_long",
                    path,
                    "the header is longer than the format allows",
                    f"It claims {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}.",
                )
            raw = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    return _checked(path, raw, status.st_size, status.st_mtime_ns)


def _checked(path: Path, raw: bytes, file_bytes: int, mtime_ns: int) -> Header:
    try:
        # decoded here: json.loads would also take UTF-16 and lone surrogates
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except _Duplicate as error:
        raise _bad(
            "duplicate_names",
            path,
            "a tensor name appears twice in the header",
            f"The name is {_shown(str(error))}.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _bad(
            "header_not_json", path, "the header is not JSON", f"The parser says: {error}."
        ) from error
    if not isinstance(content, dict):
        raise _bad("bad_header", path, "the header is not a table", "It must be a JSON object.")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(v, str) and _is_text(k + v) for k, v in metadata.items()
    ):
        raise _bad("bad_header", path, "the metadata is malformed", "It must map text to text.")
    data_start = 8 + len(raw)
    entries = [_entry(path, name, value, data_start) for name, value in content.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_tiling(path, entries, data_start, file_bytes)
    return Header(path, raw, tuple(entries), metadata, file_bytes, mtime_ns)


def _is_count(value: object) -> bool:
    # type(), since bool is an int too
    return type(value) is int and 0 <= value < _MOST


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """A short, printable form of what a header says, however large it is."""
    if isinstance(value, list):
        inner = ("[…]" if isinstance(v, list) else _shown(v) for v in value[:8])
        return f"[{', '.join(inner)}{', …' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        return "{…}"
    if type(value) is int and abs(value) >= _MOST:
        return "a huge number"  # Python refuses to print integers of many digits
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _entry(path: Path, name: str, value: object, data_start: int) -> Entry:
    def malformed(why: str) -> UserError:
        return _bad("bad_header", path, f"the entry of {_shown(name)} is malformed", why)

    if not name.isascii() and not _is_text(name):
        raise malformed("Its name is not valid Unicode.")
    if not isinstance(value, dict):
        raise malformed("It must be a JSON object.")
    code = value.get("dtype")
    dtype = BY_CODE.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise malformed(f"The dtype {_shown(code)} is unknown.")
    shape, offsets = value.get("shape"), value.get("data_offsets")
    if not isinstance(shape, list) or not all(_is_count(size) for size in shape):
        raise malformed(f"The shape is {_shown(shape)}.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise malformed(f"The data_offsets are {_shown(offsets)}.")
    numel = 1
    for size in shape:
        numel *= size
        if numel >= _MOST:
            raise malformed(f"No file holds a tensor of shape {_shown(shape)}.")
    if offsets[1] - offsets[0] != dtype.nbytes(numel):
        raise malformed(
            f"Shape {_shown(shape)} of {dtype.label} takes {dtype.nbytes(numel):,} bytes "
            f"and the offsets span {offsets[1] - offsets[0]:,}."
        )
    return Entry(name, dtype, tuple(shape), numel, data_start + offsets[0], data_start + offsets[1])


def _check_tiling(path: Path, entries: list[Entry], data_start: int, file_bytes: int) -> None:
    position = data_start
    before = "the header"
    for entry in entries:
        if entry.start < position:
            raise _bad(
                "offsets_overlap",
                path,
                f"{_shown(entry.name)} overlaps {_shown(before)}",
                "Two tensors claim the same bytes.",
            )
        if entry.start > position:
            raise _bad(
                "offsets_outside",
                path,
                f"there is a hole before {_shown(entry.name)}",
                f"{entry.start - position:,} bytes belong to no tensor.",
            )
        position, before = entry.stop, entry.name
    if position > file_bytes:
        raise _bad(
            "truncated",
            path,
            "the file is shorter than its header says",
            f"{position - file_bytes:,} of {position:,} bytes are missing.",
            "The download or copy broke off: get the file again.",
        )
    if position < file_bytes:
        raise _bad(
            "offsets_outside",
            path,
            "there are bytes after the last tensor",
            f"{file_bytes - position:,} bytes belong to no tensor.",
        )
