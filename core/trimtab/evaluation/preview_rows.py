"""Probes as tokens, in groups that go through a model together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch

from trimtab.errors import UserError
from trimtab.evaluation.asking import messages, plain_text
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.probes import ProbeSet
from trimtab.evaluation.suite_prompt import LETTERS, Prompt

Kind = Literal["harmful", "answer", "choice", "text"]
#: tokens, padding counted, and logits that go through a model together
_TOKENS = 4096
_LOGITS = 1 << 25
#: the largest share of words that a tokenizer may not know
_UNKNOWN = 0.2
_LONGEST_TEXT = 512


@dataclass(frozen=True)
class _Row:
    kind: Kind
    ids: tuple[int, ...]
    targets: tuple[int, ...] = ()
    options: tuple[int, ...] = ()
    answer: int = 0

    @property
    def keep(self) -> int:
        """How many of the last positions are looked at."""
        return len(self.targets) or 1


@dataclass(frozen=True)
class Group:
    """Rows of one kind, padded on the left; int64 tensors but for the masks.

    `ids`, `mask` and `positions` are [rows, tokens]; of the logits the last `keep` positions are
    looked at. `targets` [rows, keep] holds what is to come after each, −1 where nothing is, and
    `counted` where something is; `lengths` [rows] how many. `options` [rows, letters] are tokens,
    −1 where there is none, and `answers` [rows] the right ones' places.
    """

    kind: Kind
    keep: int
    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor
    lengths: torch.Tensor
    options: torch.Tensor
    answers: torch.Tensor

    def to(self, device: torch.device) -> Group:
        """Return the group on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Rows:
    """All probes as groups, harmful ones first; `refusal` are the tokens that begin a refusal.

    Probes that do not fit into the model's positions are left out.
    """

    groups: tuple[Group, ...] = field(repr=False)
    refusal: tuple[int, ...]
    n_harmful: int
    n_tasks: int
    n_texts: int
    template: Literal["model", "plain"]


def tokenise(probes: ProbeSet, tokenizer: Any, positions: int, vocabulary: int) -> Rows:
    """Put probes into the model's own words.

    With the model's chat template where it has one, else as bare text. Raises `UserError` with
    `probes_not_understood` where the tokenizer does not know the probes' words.
    """
    templated = bool(getattr(tokenizer, "chat_template", None))
    frame: Literal["model", "plain"] = "model" if templated else "plain"
    decoding = Decoding(template=frame)

    def asked(prompt: Prompt) -> list[int]:
        if not templated:
            return list(tokenizer(plain_text(prompt, decoding) + "\n")["input_ids"])
        text = tokenizer.apply_chat_template(
            messages(prompt, decoding), tokenize=False, add_generation_prompt=True
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def words(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    unknown = tokenizer.unk_token_id
    harmful = [_Row("harmful", tuple(asked(p))) for p in probes.harmful]
    tasks = [_task(p, asked(p), words, probes, tokenizer.eos_token_id) for p in probes.tasks]
    texts = [
        _Row("text", tuple(ids[:-1]), tuple(ids[1:]))
        for p in probes.texts
        if len(ids := list(tokenizer(p.text)["input_ids"])[: min(_LONGEST_TEXT, positions)]) > 1
    ]
    _refuse_unknown([*harmful, *tasks, *texts], unknown, probes.suite)
    harmful = [row for row in harmful if len(row.ids) < positions]
    tasks = [row for row in tasks if len(row.ids) < positions]
    groups: list[Group] = []
    for kind in ("harmful", "answer", "choice", "text"):
        chosen = [row for row in (*harmful, *tasks, *texts) if row.kind == kind]
        groups += [_padded(part, tokenizer) for part in _parts(chosen, vocabulary)]
    refusal = _openings(probes.openings, words, tokenizer)
    return Rows(tuple(groups), refusal, len(harmful), len(tasks), len(texts), frame)


def _task(
    prompt: Prompt,
    asked: list[int],
    words: Callable[[str], list[int]],
    probes: ProbeSet,
    end: int | None,
) -> _Row:
    if prompt.choices and prompt.answer is not None:
        letters = [words(letter)[-1] for letter in LETTERS[: len(prompt.choices)]]
        return _Row("choice", tuple(asked), (), tuple(letters), prompt.answer)
    answer = words(prompt.reference or "")
    if probes.whole and end is not None:
        answer.append(end)
    return _Row("answer", (*asked, *answer[:-1]), tuple(answer))


def _openings(
    openings: Sequence[str], words: Callable[[str], list[int]], tokenizer: Any
) -> tuple[int, ...]:
    """Return the first tokens of the openings, after a space and without, that say something."""
    found: list[int] = []
    for text in (form for opening in openings for form in (opening, f" {opening}")):
        ids = words(text)
        if ids and ids[0] != tokenizer.unk_token_id and tokenizer.decode([ids[0]]).strip():
            found.append(ids[0])
    return tuple(dict.fromkeys(found))


def _refuse_unknown(rows: Sequence[_Row], unknown: int | None, suite: str) -> None:
    ids = [i for row in rows for i in (*row.ids, *row.targets)]
    missed = 0 if unknown is None else ids.count(unknown)
    if missed > _UNKNOWN * len(ids):
        raise UserError(
            "probes_not_understood",
            "The model does not know the words of the probes.",
            f"{missed / len(ids):.0%} of the words of {suite} are not in its vocabulary.",
            "Choose a suite in the model's language.",
        )


def _parts(rows: Sequence[_Row], vocabulary: int) -> list[list[_Row]]:
    """Cut rows, in their order, so that no part is too large to go through together."""
    parts: list[list[_Row]] = []
    width = keep = 0
    for row in rows:
        width, keep = max(width, len(row.ids)), max(keep, row.keep)
        size = len(parts[-1]) + 1 if parts else 0
        if not parts or size * width > _TOKENS or size * keep * vocabulary > _LOGITS:
            parts.append([])
            width, keep = len(row.ids), row.keep
        parts[-1].append(row)
    return parts


def _padded(rows: Sequence[_Row], tokenizer: Any) -> Group:
    width = max(len(row.ids) for row in rows)
    keep = max(row.keep for row in rows)
    letters = max(1, *(len(row.options) for row in rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), keep), -1)
    options = torch.full((len(rows), letters), -1)
    for i, row in enumerate(rows):
        ids[i, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[i, width - len(row.ids) :] = 1
        if row.targets:
            targets[i, keep - len(row.targets) :] = torch.tensor(row.targets)
        if row.options:
            options[i, : len(row.options)] = torch.tensor(row.options)
    return Group(
        rows[0].kind,
        keep,
        ids,
        mask,
        (mask.cumsum(1) - 1).clamp(min=0),
        targets,
        targets >= 0,
        torch.tensor([row.keep for row in rows]),
        options,
        torch.tensor([row.answer for row in rows]),
    )
