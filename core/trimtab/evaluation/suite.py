"""A suite is a versioned set of prompts, read from files and told from others by its digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import trimtab_resources
from trimtab.errors import UserError
from trimtab.evaluation.suite_domains import domain_of
from trimtab.evaluation.suite_files import (
    PromptFile,
    as_header,
    is_prompt_file,
    read_object,
    read_prompt_file,
    stem,
)
from trimtab.evaluation.suite_formats import find_format
from trimtab.evaluation.suite_prompt import KINDS, Prompt, PromptKind

__all__ = [
    "KINDS",
    "TOY_LANGUAGE",
    "FileRead",
    "Prompt",
    "PromptKind",
    "Suite",
    "core_suite",
    "demo_suite",
    "load_suite",
    "read_suite",
]

_FOLDER_HEADER = "suite.json"
#: the language of the demo models
TOY_LANGUAGE = "x-demo"


@dataclass(frozen=True)
class Suite:
    """Prompts in a fixed order, with the name, version, licence and source they go by.

    An empty licence means that the file states none. Raises `UserError` with `suite_duplicate_id`
    where two prompts have one id.
    """

    name: str
    version: str
    licence: str
    source: str
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.id in seen:
                raise _twice(prompt.id, f"The suite {self.name}")
            seen.add(prompt.id)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of every field of the suite and of its prompts, in their order."""
        content = [self.name, self.version, self.licence, self.source]
        content += [_json(prompt.every_field()) for prompt in self.prompts]
        return hashlib.sha256(_json(content).encode()).hexdigest()

    def by_kind(self, kind: PromptKind) -> tuple[Prompt, ...]:
        """The prompts of one kind, in the suite's order."""
        return tuple(prompt for prompt in self.prompts if prompt.kind == kind)

    def save(self, path: Path) -> None:
        """Write the suite as JSONL, a header line first; the file appears whole or not at all.

        Reading it again gives an equal suite with an equal digest. Raises `UserError` with
        `cannot_write`, also for a name that does not end in .jsonl: it could not be read again.
        """
        path = Path(path)
        if path.suffix != ".jsonl":
            raise _cannot_write(path, "Suites are written as JSONL.", "Give it a name in .jsonl.")
        header = {
            "name": self.name,
            "version": self.version,
            "licence": self.licence,
            "source": self.source,
        }
        lines = [header, *(prompt.to_dict() for prompt in self.prompts)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            why = f"{error.strerror or error}."
            raise _cannot_write(path, why, "Choose another place.") from error


@dataclass(frozen=True)
class FileRead:
    """How one file of a suite was understood: its format, its rows, the prompts they became."""

    path: Path
    format: str
    title: str
    rows: int
    prompts: int
    left_out: str = ""

    def __str__(self) -> str:
        left_out = f"; left out: {self.left_out}" if self.left_out else ""
        took = "" if self.prompts == self.rows else f", {self.prompts:,} prompts"
        return f"{self.path.name}: {self.title} format, {self.rows:,} rows{took}{left_out}"


def load_suite(path: str | Path, format: str | None = None) -> Suite:
    """Read a suite from a file or a folder; see `read_suite`, which also says how it went."""
    return read_suite(path, format)[0]


def read_suite(path: str | Path, format: str | None = None) -> tuple[Suite, tuple[FileRead, ...]]:
    """Read a suite from a JSONL, CSV or Parquet file, or from all such files of a folder.

    The format of each file is recognised, or is `format`, a name of `suite_formats.FORMATS`. Name,
    version, licence and source are those of the header, which is the first line of a JSONL file or
    the file suite.json in a folder; without one the name is the file's, the source names the
    formats, version and licence are empty. Files are taken in the order of their names, without
    those of subfolders.

    Raises `UserError`: `suite_row` with file, line and what is wrong; `suite_unreadable`,
    `suite_format`, `suite_empty`, `suite_duplicate_id`, `suite_headers`, `suite_needs_pyarrow`,
    `suite_needs_images`.
    """
    path = Path(path)
    files = [read_prompt_file(file) for file in _files(path)]
    prompts: list[Prompt] = []
    owner: dict[str, Path] = {}
    reads: list[FileRead] = []
    for file in files:
        form = find_format(file, format)
        converted = form.convert(file)
        if not converted.prompts:
            raise UserError(
                "suite_empty",
                f"{file.path.name} holds no prompts.",
                f"Its rows were left out: {converted.left_out}."
                if converted.left_out
                else "There is a header and no row below it.",
                "Choose another file, or say which format it has.",
                details=str(file.path),
            )
        prompts += converted.prompts
        for prompt in converted.prompts:
            if prompt.id in owner:
                raise _twice(prompt.id, f"{owner[prompt.id].name} and {file.path.name}")
            owner[prompt.id] = file.path
        taken = len(converted.prompts)
        rows = file.count - (1 if file.cells and not form.headerless else 0)
        reads.append(FileRead(file.path, form.name, form.title, rows, taken, converted.left_out))
    titles = dict.fromkeys(read.title for read in reads if read.format != "trimtab")
    header = {
        "name": path.name if path.is_dir() else stem(path),
        "version": "",
        "licence": "",
        "source": "; ".join(titles),
        **_header(path, files),
    }
    return Suite(**header, prompts=tuple(prompts)), tuple(reads)


def core_suite() -> Suite:
    """Our own small set: 11 policy categories, lookalikes, utility and texts for perplexity."""
    return load_suite(trimtab_resources.path("prompts", "trimtab-core-1.jsonl"))


def demo_suite() -> Suite:
    """The held-out prompts of the demo models, in their invented language.

    330 harmful prompts (30 of each category), 220 lookalikes, and 220 of task A as utility, with
    the one right answer of each as its reference.
    """
    folder = trimtab_resources.path("demo")
    kinds: dict[str, PromptKind] = {
        "harmful": "harmful",
        "lookalike": "lookalike",
        "task-a": "utility",
    }
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return Suite(
        name="trimtab-demo",
        version=str(manifest["language_version"]),
        licence="Apache-2.0",
        source="Trimtab, the held-out prompts of the demo models",
        prompts=tuple(
            Prompt(
                id=row.fields["id"],
                kind=kind,
                text=row.fields["prompt"],
                category=row.fields["category"] or name,
                domain=domain_of(row.fields["category"]),
                language=TOY_LANGUAGE,
                reference=row.fields["reference"] if kind == "utility" else None,
            )
            for name, kind in kinds.items()
            for row in read_prompt_file(folder / "prompts" / f"{name}.jsonl").named
        ),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [file for file in path.iterdir() if file.is_file() and is_prompt_file(file)]
    if not found:
        below = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise UserError(
            "suite_empty",
            f"There are no prompt files in the folder {path.name}.",
            f"Its subfolders are {', '.join(below[:8])}." if below else "It holds no such file.",
            "Choose the folder that holds the files themselves.",
            details=str(path),
        )
    return sorted(found, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[str | int]:
    # numbers in names count as numbers, so that category_10 comes after category_9
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _header(path: Path, files: list[PromptFile]) -> dict[str, str]:
    """The header of a suite; that of suite.json counts before those in the files."""
    own = path / _FOLDER_HEADER
    if path.is_dir() and own.is_file():
        return as_header(own, 1, read_object(own))
    headers = [file.header for file in files if file.header is not None]
    if any(header != headers[0] for header in headers):
        raise UserError(
            "suite_headers",
            f"The files in {path.name} belong to different suites.",
            "Their first lines give different names, versions, licences or sources.",
            f"Say in {_FOLDER_HEADER} what the suite they form together is, or load one of them.",
            details=str(path),
        )
    return headers[0] if headers else {}


def _twice(id: str, where: str) -> UserError:
    return UserError(
        "suite_duplicate_id",
        f"{where}: the id {id!r} stands there twice.",
        "Answers and judgements are matched to prompts by their ids.",
        "Give each prompt an id of its own.",
    )


def _cannot_write(path: Path, why: str, fix: str) -> UserError:
    return UserError("cannot_write", f"The suite cannot be written to {path}.", why, fix)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
