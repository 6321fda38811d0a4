"""Preference pairs, read from files: a prompt, a wanted answer and one that is not wanted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trimtab.errors import UserError
from trimtab.evaluation.suite_files import PromptFile, Row, read_prompt_file, stem

_SAFE_RLHF = ("response_0", "response_1", "is_response_0_safe", "is_response_1_safe")


@dataclass(frozen=True)
class Preference:
    """One pair: of two answers to `prompt`, `chosen` is preferred to `rejected`."""

    id: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Preferences:
    """Pairs in a fixed order; `left_out` says in words which rows became none."""

    name: str
    pairs: tuple[Preference, ...]
    left_out: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of every field of the pairs, in their order."""
        text = json.dumps([asdict(pair) for pair in self.pairs], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def split(self, share: float) -> tuple[Preferences, Preferences]:
        """Return pairs to learn from, and about `share` of them to look at what was learned.

        All pairs of one prompt fall on one side; which one follows from a hash of the prompt, so
        that more pairs do not move those there are.
        """
        kept: list[Preference] = []
        aside: list[Preference] = []
        for pair in self.pairs:
            digest = hashlib.blake2b(pair.prompt.encode(), digest_size=8).digest()
            part = int.from_bytes(digest, "little") / 2**64
            (aside if part < share else kept).append(pair)
        return Preferences(self.name, tuple(kept)), Preferences(self.name, tuple(aside))

    def save(self, path: Path) -> None:
        """Write as JSONL, whole or not at all. Raises `UserError` with `cannot_write`."""
        text = "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in self.pairs)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise UserError(
                "cannot_write",
                f"{path.name} could not be written.",
                f"The system says: {error.strerror}.",
                "Choose another place.",
                details=str(path),
            ) from error


def read_preferences(path: Path) -> Preferences:
    """Read pairs from a JSONL, CSV or Parquet file.

    Rows have `prompt`, `chosen` and `rejected`, as texts or as conversations whose last turn is the
    answer; or they are PKU-SafeRLHF's, with two responses and whether each is safe. There a row
    counts where exactly one of them is safe: that one is chosen. Raises `UserError` as
    `read_prompt_file` does, and with `pairs_format` and `pairs_empty`.
    """
    file = read_prompt_file(path)
    name = stem(path)
    if file.columns.issuperset(("prompt", *_SAFE_RLHF)):
        found = _safe_rlhf(file, name)
    elif file.columns.issuperset(("chosen", "rejected")):
        found = Preferences(name, tuple(_plain(file, row, name) for row in file.rows()))
    else:
        raise UserError(
            "pairs_format",
            f"{path.name} holds no preference pairs that are known.",
            f"Its columns are {', '.join(sorted(file.columns)[:12])}.",
            "Pairs have prompt, chosen and rejected, or the columns of PKU-SafeRLHF.",
            details=str(path),
        )
    if not found.pairs:
        raise UserError(
            "pairs_empty",
            f"{path.name} has no pair to learn from.",
            f"Left out: {found.left_out}.",
            "Choose another file.",
            details=str(path),
        )
    return found


def _safe_rlhf(file: PromptFile, name: str) -> Preferences:
    pairs = []
    for row in file.rows():
        safe = [_flag(file, row, f"is_response_{i}_safe") for i in range(2)]
        if safe[0] == safe[1]:
            continue
        answers = [_text(file, row, f"response_{i}") for i in range(2)]
        better = 0 if safe[0] else 1
        prompt = _text(file, row, "prompt")
        pairs.append(
            Preference(f"{name}-{row.number}", prompt, answers[better], answers[1 - better])
        )
    out = len(file.rows()) - len(pairs)
    return Preferences(name, tuple(pairs), f"{out:,} rows without one safe and one unsafe answer")


def _plain(file: PromptFile, row: Row, name: str) -> Preference:
    given, chosen, rejected = (row.fields.get(k) for k in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, list) and isinstance(rejected, list):
        prompts = [_turns(file, row, given if given else side[:-1]) for side in (chosen, rejected)]
        if prompts[0] != prompts[1]:
            raise file.wrong(row.number, "'chosen' and 'rejected' answer different prompts")
        prompt = prompts[0]
        chosen, rejected = (_turns(file, row, side[-1:]) for side in (chosen, rejected))
    else:
        prompt = _turns(file, row, given) if isinstance(given, list) else _text(file, row, "prompt")
        chosen, rejected = _text(file, row, "chosen"), _text(file, row, "rejected")
    number = row.fields.get("id")
    made = f"{name}-{row.number}" if number in (None, "") else str(number)
    return Preference(made, prompt, chosen, rejected)


def _turns(file: PromptFile, row: Row, turns: Any) -> str:
    """Return the one text of a conversation of one turn."""
    if isinstance(turns, str) and turns.strip():
        return turns
    one = turns[0] if isinstance(turns, Sequence) and len(turns) == 1 else None
    if not isinstance(one, Mapping) or not isinstance(one.get("content"), str):
        what = "a conversation must be one prompt and one answer, each with its 'content'"
        raise file.wrong(row.number, what)
    return str(one["content"])


def _text(file: PromptFile, row: Row, name: str) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise file.wrong(row.number, f"{name!r} must be text and not empty, not {value!r}")
    return value


def _flag(file: PromptFile, row: Row, name: str) -> bool:
    value = row.fields.get(name)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"  # a CSV knows no other way
    if type(value) is not bool:
        raise file.wrong(row.number, f"{name!r} must be true or false, not {value!r}")
    return value


def ids_of(pairs: Iterable[Preference]) -> tuple[str, ...]:
    """Return the pairs' ids, in their order."""
    return tuple(pair.id for pair in pairs)
