"""Puts probes into a model's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.errors import UserError
from trimtab.evaluation.asking import messages, plain_text
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.preview_feeds import Feed, Row, pack, pad
from trimtab.evaluation.probes import ProbeSet
from trimtab.evaluation.suite_prompt import LETTERS, Prompt

#: the largest share of words that a tokenizer may not know
_UNKNOWN = 0.2
_LONGEST_TEXT = 512


@dataclass(frozen=True)
class Rows:
    """All probes as feeds, harmful ones first; `refusal` are the tokens that begin a refusal.

    `packed` are the same rows in the same order, laid out so that what they begin with alike goes
    through a model once. Probes that do not fit into the model's positions are left out.
    """

    padded: tuple[Feed, ...] = field(repr=False)
    packed: tuple[Feed, ...] = field(repr=False)
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
    harmful = [Row("harmful", tuple(asked(p))) for p in probes.harmful]
    tasks = [_task(p, asked(p), words, probes, tokenizer.eos_token_id) for p in probes.tasks]
    texts = [
        Row("text", tuple(ids[:-1]), tuple(ids[1:]))
        for p in probes.texts
        if len(ids := list(tokenizer(p.text)["input_ids"])[: min(_LONGEST_TEXT, positions)]) > 1
    ]
    _refuse_unknown([*harmful, *tasks, *texts], unknown, probes.suite)
    harmful = [row for row in harmful if len(row.ids) < positions]
    tasks = [row for row in tasks if len(row.ids) < positions]
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    feeds: list[Feed] = []
    shared: list[Row] = []
    for kind in ("harmful", "answer", "choice", "text"):
        # neighbours begin alike
        chosen = sorted(
            (row for row in (*harmful, *tasks, *texts) if row.kind == kind), key=lambda r: r.ids
        )
        feeds += pad(chosen, filler, vocabulary)
        if kind != "text":
            shared += chosen
    alone = [feed for feed in feeds if feed.groups[0].kind == "text"]
    packed = (*pack(shared, filler, vocabulary), *alone)
    refusal = _openings(probes.openings, words, tokenizer)
    return Rows(tuple(feeds), packed, refusal, len(harmful), len(tasks), len(texts), frame)


def _task(
    prompt: Prompt,
    asked: list[int],
    words: Callable[[str], list[int]],
    probes: ProbeSet,
    end: int | None,
) -> Row:
    if prompt.choices and prompt.answer is not None:
        letters = [words(letter)[-1] for letter in LETTERS[: len(prompt.choices)]]
        return Row("choice", tuple(asked), (), tuple(letters), prompt.answer)
    answer = words(prompt.reference or "")
    if probes.whole and end is not None:
        answer.append(end)
    return Row("answer", (*asked, *answer[:-1]), tuple(answer))


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


def _refuse_unknown(rows: Sequence[Row], unknown: int | None, suite: str) -> None:
    ids = [i for row in rows for i in (*row.ids, *row.targets)]
    missed = 0 if unknown is None else ids.count(unknown)
    if missed > _UNKNOWN * len(ids):
        raise UserError(
            "probes_not_understood",
            "The model does not know the words of the probes.",
            f"{missed / len(ids):.0%} of the words of {suite} are not in its vocabulary.",
            "Choose a suite in the model's language.",
        )
