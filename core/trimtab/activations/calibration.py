"""Calibration sets: prompts with their answers, told from other sets by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import trimtab_resources
from trimtab.errors import UserError

#: sets in the demo models' language, of prompts that none of its suites holds
SHIPPED = ("demo-refused", "demo-harmful", "demo-benign")

# what the parts of an example are called in the files that people have
_PROMPTS = ("prompt", "instruction", "question", "query", "text")
_ANSWERS = ("answer", "response", "output", "completion", "reference", "chosen")


@dataclass(frozen=True)
class Example:
    """A prompt, the answer that is laid in the model's mouth, and a system text, if any."""

    id: str
    prompt: str
    answer: str = ""
    system: str = ""


@dataclass(frozen=True)
class Calibration:
    """Examples in a fixed order. Raises `UserError` with `calibration_empty` for none."""

    name: str
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if not self.examples:
            raise UserError(
                "calibration_empty",
                f"The calibration set {self.name} is empty.",
                "Nothing can be measured on no text.",
                "Choose a file with a prompt and an answer in each line.",
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all examples in their order; the set's name has no part in it."""
        lines = [json.dumps(astuple(example), ensure_ascii=False) for example in self.examples]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def ids(self) -> tuple[str, ...]:
        """The examples' ids: what must not turn up among prompts that are evaluated on."""
        return tuple(example.id for example in self.examples)

    def spread(self, count: int | None) -> Calibration:
        """Return `count` of the examples, evenly spread; all of them for None or a larger one."""
        n = len(self.examples)
        if count is None or count >= n:
            return self
        chosen = tuple(self.examples[i * n // count] for i in range(count))
        return Calibration(self.name, chosen)


def load_calibration(path: str | Path) -> Calibration:
    """Read a JSONL file with a prompt and an answer in each line, or one of `SHIPPED` by its name.

    A line holds `prompt`, or what other projects call it (instruction with input, question, query,
    text), and `answer` (response, output, completion, reference, chosen), or `messages` of which
    the last is the assistant's. `id` and `system` may stand beside them; without an id an example
    is called by the file and its line. Raises `UserError` with `unreadable`, `calibration_row` and
    `calibration_empty`.
    """
    if path in SHIPPED:
        path = trimtab_resources.path("demo", "calibration", f"{path}.jsonl")
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "unreadable",
            f"{path.name} cannot be read.",
            f"The system says: {error}.",
            "Choose a JSONL file with a prompt and an answer in each line.",
            details=str(path),
        ) from error
    return Calibration(path.stem, tuple(_examples(lines, path)))


def _examples(lines: Iterable[str], path: Path) -> Iterable[Example]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            yield _example(row, f"{path.stem}:{number}")
        except (ValueError, RecursionError) as error:
            raise UserError(
                "calibration_row",
                f"Line {number} of {path.name} is no example.",
                f"What is wrong with it: {error}.",
                'Each line is to be like {"prompt": "…", "answer": "…"}.',
                details=str(path),
            ) from error


def _example(row: Mapping[str, Any], usual_id: str) -> Example:
    given = row.get("id", usual_id)
    if "messages" in row:
        system, prompt, answer = _conversation(row["messages"])
    else:
        prompt, answer = _text(row, _PROMPTS), _text(row, _ANSWERS)
        system = _text(row, ("system",))
        if more := _text(row, ("input",)):
            prompt = f"{prompt}\n\n{more}" if prompt else more
    if not prompt:
        raise ValueError("there is no prompt in it")
    return Example(str(given), prompt, answer, system)


def _text(row: Mapping[str, Any], names: Iterable[str]) -> str:
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be text, not {value!r}")
        return value
    return ""


def _conversation(messages: Any) -> tuple[str, str, str]:
    """Return system text, prompt and answer of a conversation of one turn."""
    said: dict[str, str] = {}
    if not isinstance(messages, list):
        raise ValueError("'messages' must be a list")
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise ValueError("each message must have a role and a content in words")
        if role in said:
            raise ValueError("only conversations of a single turn are understood")
        said[role] = content
    return said.get("system", ""), said.get("user", ""), said.get("assistant", "")
