"""Judgements made elsewhere: read from CSV or JSONL, matched to prompts by their ids."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.errors import UserError
from trimtab.evaluation.judges import Measure, Outcome, Verdict
from trimtab.evaluation.rubric import outcome_of
from trimtab.evaluation.suite import Prompt

# Spellings of an outcome in files of others: XSTest's classes, guards' words, plain booleans.
_LABELS: dict[str, Outcome] = {
    **dict.fromkeys(("refused", "refusal", "full refusal", "2_full_refusal", "reject"), "refused"),
    **dict.fromkeys(("partial", "partial refusal", "3_partial_refusal"), "partial"),
    **dict.fromkeys(
        ("complied", "compliance", "full compliance", "1_full_compliance", "answered"), "complied"
    ),
    **dict.fromkeys(("failed", "error", "unparsed"), "failed"),
}
_HARM: dict[str, Outcome] = {
    **dict.fromkeys(("safe", "harmless", "not harmful", "not jailbroken"), "refused"),
    **dict.fromkeys(("unsafe", "harmful", "jailbroken"), "complied"),
}

_ID = ("id", "prompt_id")
_TARGET = ("target",)
_SCORE = ("score", "gpt4_score")
_LABEL = ("label", "outcome", "verdict", "judgement", "judgment")
_REASON = ("reason", "explanation")
_ANSWER = ("answer", "response", "completion")


@dataclass(frozen=True)
class ImportedJudge:
    """Verdicts of one file as a judge of the very answers that were judged there.

    A prompt that the file lacks, and an answer that differs from the one the file names, is
    "failed". `unmatched` are ids of the file that the suite has not, `missing` the reverse.
    `nameless` says whether some row tells neither whose answer was judged nor the answer.
    """

    name: str
    measures: frozenset[Measure]
    verdicts: Mapping[str, Verdict]
    unmatched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    nameless: bool = False

    def judge(self, prompt: Prompt, answer: str) -> Verdict:
        """Return what the file says of the answer to this prompt."""
        verdict = self.verdicts.get(prompt.id)
        if verdict is None:
            return Verdict("failed", reason="the file has no judgement of this prompt")
        judged = self.answers.get(prompt.id)
        if judged is not None and judged.strip() != answer.strip():
            return Verdict("failed", reason="the file judges another answer to this prompt")
        return verdict


def load_judgements(path: Path, prompt_ids: Collection[str], target: str = "") -> ImportedJudge:
    """Read judgements from `path`, CSV with a header line or JSONL.

    Columns: `id`, and `score` (1 to 5), `label` (refused, partial, complied, failed; safe or
    unsafe; XSTest's three classes) or both; perhaps `reason`, `answer`, the text that was judged,
    and `target`, the name of the model that gave it. Of rows that name one, those of `target` are
    taken; without it, all. A row without score and label is a failed judgement. A score alone
    gives the outcome as the rubric does. Raises `UserError` with `bad_judgements` that names the
    line.
    """
    path = Path(path)
    verdicts: dict[str, Verdict] = {}
    answers: dict[str, str] = {}
    guarded = scored = nameless = found = False
    for line, row in _rows(path):
        key = _text(row, _ID)
        if not key:
            raise _bad(path, line, "there is no id")
        whose = _text(row, _TARGET)
        mine = not whose or not target or whose == target
        if mine and key in verdicts:
            raise _bad(path, line, f"the id {key!r} was judged before")
        label = _text(row, _LABEL).lower()
        if label and label not in _LABELS and label not in _HARM:
            raise _bad(path, line, f"the label {label!r} is not known")
        score = _score(_text(row, _SCORE), path, line)
        if label:
            outcome = _LABELS.get(label) or _HARM[label]
            guarded |= label in _HARM
        else:
            outcome = "failed" if score is None else outcome_of(score)
        scored |= score is not None
        found = True
        answer = _text(row, _ANSWER)
        nameless |= not whose and not answer
        if mine:
            verdicts[key] = Verdict(outcome, score, _text(row, _REASON))
        if mine and answer:
            answers[key] = answer
    if not found:
        raise _bad(path, 1, "there is no row")
    # One row in a guard's words is enough: then refusal was not what was judged.
    measures: set[Measure] = {"harm"} if guarded else {"refusal"}
    if scored:
        measures |= {"harm", "severity"}
    known = set(prompt_ids)
    return ImportedJudge(
        name=f"imported from {path.name}",
        measures=frozenset(measures),
        verdicts=verdicts,
        unmatched=tuple(key for key in verdicts if key not in known),
        missing=tuple(key for key in prompt_ids if key not in verdicts),
        answers=answers,
        nameless=nameless,
    )


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "It is not UTF-8 text"
        raise UserError(
            "bad_judgements",
            f"The judgements in {path} cannot be read.",
            f"{why}.",
            "Choose a CSV or JSONL file.",
        ) from error
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in reader:
                yield reader.line_num, _lowered(row)
        except csv.Error as error:
            raise _bad(path, reader.line_num, f"it is not CSV: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            raise _bad(path, number, "it is not JSON") from None
        if not isinstance(data, dict):
            raise _bad(path, number, "it is not a JSON object")
        yield number, _lowered(data)


def _lowered(row: Mapping[Any, Any]) -> dict[str, Any]:
    # csv puts what is beyond the header under None.
    return {str(name).strip().lower(): value for name, value in row.items() if name is not None}


def _text(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""


def _score(text: str, path: Path, line: int) -> int | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number not in (1, 2, 3, 4, 5):
        raise _bad(path, line, f"the score {text!r} is no whole number from 1 to 5")
    return int(number)


def _bad(path: Path, line: int, why: str) -> UserError:
    return UserError(
        "bad_judgements",
        f"Line {line} of {path} is no judgement.",
        f"{why[0].upper()}{why[1:]}.",
        "Each row needs an id, and a score from 1 to 5 or a label such as refused or complied.",
    )
