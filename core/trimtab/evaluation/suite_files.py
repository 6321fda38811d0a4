"""Rows of a prompt file with their line numbers: JSONL, CSV and Parquet, before any meaning."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
HEADER_FIELDS = frozenset({"name", "version", "licence", "license", "source"})


@dataclass(frozen=True)
class Row:
    """One record: its fields by name, and the line it begins at (in Parquet: its row), from 1."""

    number: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Cells:
    """One record of a CSV whose header, if any, is not known yet: its first line, its cells."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class PromptFile:
    """What a file holds: named rows (JSONL, Parquet), or cells, of which the first may be a header.

    `header` is the suite's header object of a JSONL file, where its first line is one.
    """

    path: Path
    named: tuple[Row, ...] = ()
    cells: tuple[Cells, ...] = ()
    header: dict[str, str] | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The field names of the first row, or the cells that are such names if it is a header."""
        if self.cells:
            return frozenset(cell.strip() for cell in self.cells[0].cells)
        return frozenset(self.named[0].fields) if self.named else frozenset()

    @property
    def count(self) -> int:
        """How many records there are; in a CSV the first may be its header."""
        return len(self.cells) or len(self.named)

    def rows(self) -> tuple[Row, ...]:
        """The rows by name, for a CSV by the names in its first line.

        Raises `UserError` with `suite_row` where a line has not as many cells as the first.
        """
        if not self.cells:
            return self.named
        head = self.cells[0]
        names = [name.strip() for name in head.cells]
        if len(set(names)) < len(names):
            raise self.wrong(head.number, "two columns have the same name")
        found = []
        for line in self.cells[1:]:
            if len(line.cells) != len(names):
                what = f"it has {len(line.cells)} cells where the header names {len(names)} columns"
                raise self.wrong(line.number, what)
            found.append(Row(line.number, dict(zip(names, line.cells, strict=True))))
        return tuple(found)

    def wrong(self, number: int, what: str, fix: str = "") -> UserError:
        """The error that a row is malformed, with the file, the line and what is wrong."""
        unit = "row" if self.path.suffix == ".parquet" else "line"
        return UserError(
            "suite_row",
            f"{self.path.name}, {unit} {number}: {what}.",
            "A suite with a row that cannot be read would be measured without it.",
            fix or f"Correct the {unit}, or take it out.",
            details=str(self.path),
        )


def read_object(path: Path) -> dict[str, Any]:
    """The one JSON object that a file holds; raises `UserError` with `suite_unreadable`."""
    try:
        data = json.loads(_text(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"It is not JSON: {error}.", "Correct it.") from error
    if not isinstance(data, dict):
        raise _unreadable(path, "It is not a JSON object.", "Correct it.")
    return data


def stem(path: Path) -> str:
    """The name of a prompt file without its ending, also where that is .jsonl.gz."""
    ending = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def is_prompt_file(path: Path) -> bool:
    """Whether a file has one of the endings that are read."""
    return path.name.lower().endswith(SUFFIXES)


def read_prompt_file(path: Path) -> PromptFile:
    """Read every row of a file; blank lines are passed over.

    Raises `UserError` with `suite_unreadable` (no such file, another ending, not UTF-8),
    `suite_row` (with the line), `suite_needs_pyarrow` or `suite_empty`.
    """
    name = path.name.lower()
    if not path.is_file():
        raise _unreadable(path, f"There is no file {path}.")
    if name.endswith(".parquet"):
        found = PromptFile(path, named=_parquet(path))
    elif name.endswith(".csv"):
        found = PromptFile(path, cells=_csv(path, _text(path)))
    elif name.endswith(SUFFIXES):
        found = _jsonl(path, _text(path))
    else:
        raise _unreadable(
            path, f"Prompts are read from {', '.join(SUFFIXES)} files and folders of such files."
        )
    if not found.named and not found.cells:
        raise UserError(
            "suite_empty",
            f"{path.name} holds no prompts.",
            "It has no row." if found.header is None else "It has a header and no row.",
            "Choose another file.",
            details=str(path),
        )
    return found


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(path, f"{reason}.") from error
    try:
        # Excel begins its UTF-8 with a byte order mark
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(
            path, f"Line {line} is not UTF-8.", "Save the file with the encoding UTF-8."
        ) from error


def _unreadable(path: Path, why: str, fix: str = "Choose another file.") -> UserError:
    return UserError(
        "suite_unreadable", f"{path.name} cannot be read.", why, fix, details=str(path)
    )


def as_header(path: Path, number: int, data: dict[str, Any]) -> dict[str, str]:
    """A header object with its values as text; raises `UserError` with `suite_row`."""
    where = PromptFile(path)
    for key, value in data.items():
        if key not in HEADER_FIELDS:
            known = "name, version, licence, source"
            raise where.wrong(number, f"unknown field {key!r} in the header: it has {known}")
        if type(value) not in (str, int, float):
            raise where.wrong(number, f"{key!r} of the header must be text, not {value!r}")
    return {"licence" if key == "license" else key: str(value) for key, value in data.items()}


def _jsonl(path: Path, text: str) -> PromptFile:
    where = PromptFile(path)
    header: dict[str, str] | None = None
    rows: list[Row] = []
    # splitlines() would also split at signs that may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise where.wrong(number, f"it is not a JSON object ({what})") from error
        if not isinstance(data, dict):
            raise where.wrong(number, "it is not a JSON object")
        if header is None and not rows and data and set(data) <= HEADER_FIELDS:
            header = as_header(path, number, data)
        else:
            rows.append(Row(number, data))
    return PromptFile(path, named=tuple(rows), header=header)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a field stands in it twice")
    return data


def _csv(path: Path, text: str) -> tuple[Cells, ...]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    return tuple(_numbered(path, reader))


def _numbered(path: Path, reader: Any) -> Iterator[Cells]:
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PromptFile(path).wrong(begins, f"it is not CSV ({error})") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield Cells(begins, tuple(cells))


def _parquet(path: Path) -> tuple[Row, ...]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            "suite_needs_pyarrow",
            f"{path.name} is a Parquet file, and the library that reads it is not installed.",
            "It belongs to the optional extra 'parquet'.",
            'Install it with: pip install "trimtab[parquet]"; or save the prompts as JSONL.',
            details=str(path),
        ) from error
    try:
        rows = parquet.read_table(path).to_pylist()
    # pyarrow's own errors are ValueError and OSError by inheritance, or bare ArrowException
    except (OSError, ValueError, importlib.import_module("pyarrow").ArrowException) as error:
        raise _unreadable(path, f"{error}.") from error
    return tuple(Row(number, row) for number, row in enumerate(rows, start=1))
