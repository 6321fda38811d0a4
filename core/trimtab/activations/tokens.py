"""Calibration examples as tokens, in batches that need no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from trimtab.activations.calibration import Calibration, Example
from trimtab.errors import UserError

Template = Literal["model", "plain", "alpaca"]
#: tokens that go through a block together
_TOGETHER = 4096
_LONGEST = 2048
# Taori et al., Stanford Alpaca: the prompt for an instruction without an input
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{prompt}\n\n### Response:"
)


@dataclass(frozen=True)
class Tokens:
    """An example's tokens; those from `answer` on are the answer's, its end token included."""

    ids: tuple[int, ...]
    answer: int

    @property
    def answered(self) -> int:
        """How many of the tokens are the answer's."""
        return len(self.ids) - self.answer


@dataclass(frozen=True)
class Batch:
    """Examples of one length that go through a block together.

    `ids` int64 [rows, tokens]; `answer` bool [rows, tokens], true where a token is the answer's;
    `places` says which examples of the calibration set the rows are. `given` is what the model is
    told besides, such as a mask, by the names that it has for it.
    """

    ids: torch.Tensor
    answer: torch.Tensor
    places: tuple[int, ...]
    given: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows times tokens."""
        return self.ids.numel()


def encode(
    tokenizer: Any,
    calibration: Calibration,
    template: Template = "model",
    positions: int | None = None,
) -> list[Tokens]:
    """Put a calibration set into a model's own tokens, in the set's order.

    The prompt goes into the model's chat template, with `template` "alpaca" into the prompt of
    Stanford Alpaca, with "plain" nowhere; the answer follows as the model itself would write it.
    What is longer than 2048 tokens, or the model's `positions`, is cut at its end. Raises
    `UserError` with `no_chat_template`, `template_refused` or `calibration_too_long`.
    """
    room = min(_LONGEST, positions or _LONGEST)
    found = []
    for example in calibration.examples:
        asked, said = _texts(tokenizer, example, template)
        special = template != "model"
        prompt = _ids(tokenizer, asked, special)
        ids = (*prompt, *(_ids(tokenizer, said, False) if said else ()))[:room]
        if not ids or (said and len(prompt) >= room):
            raise UserError(
                "calibration_too_long",
                f"The example {example.id} does not fit into the model.",
                f"Its prompt has {len(prompt):,} tokens of the {room:,} there is room for.",
                "Leave it out of the calibration set.",
            )
        found.append(Tokens(ids, min(len(prompt), len(ids))))
    return found


def batches(tokens: Sequence[Tokens], together: int = _TOGETHER) -> list[Batch]:
    """Return examples in batches of one length and at most `together` tokens, or one example.

    Without padding no token is looked at that is not there, and a batch gives what its examples
    would give alone.
    """
    order = sorted(range(len(tokens)), key=lambda i: (len(tokens[i].ids), i))
    groups: list[list[int]] = []
    for place in order:
        length = len(tokens[place].ids)
        last = groups[-1] if groups else []
        same = last and len(tokens[last[0]].ids) == length
        if same and (len(last) + 1) * length <= together:
            last.append(place)
        else:
            groups.append([place])
    return [_batch(tokens, group) for group in groups]


def _batch(tokens: Sequence[Tokens], places: Sequence[int]) -> Batch:
    ids = torch.tensor([tokens[i].ids for i in places], dtype=torch.long)
    starts = torch.tensor([tokens[i].answer for i in places])
    answer = torch.arange(ids.shape[1])[None, :] >= starts[:, None]
    return Batch(ids, answer, tuple(places))


def need_answers(tokens: Sequence[Tokens], calibration: Calibration) -> None:
    """Raise `UserError` with `no_answers` where an example has none."""
    for token, example in zip(tokens, calibration.examples, strict=True):
        if token.answered == 0:
            raise UserError(
                "no_answers",
                f"The example {example.id} has no answer.",
                "What is to be measured lies in the tokens of the answers.",
                "Give each prompt the answer that the model is to be measured on.",
            )


def _texts(tokenizer: Any, example: Example, template: Template) -> tuple[str, str]:
    """Return what the model is shown, and what it says after it."""
    if template == "model":
        return _framed(tokenizer, example)
    asked = f"{example.system}\n\n{example.prompt}" if example.system else example.prompt
    said = example.answer
    if template == "alpaca":
        asked = _ALPACA.format(prompt=asked)
    if said:
        said = f" {said}{tokenizer.eos_token or ''}"
    return asked, said


def _framed(tokenizer: Any, example: Example) -> tuple[str, str]:
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "no_chat_template",
            "The model has no chat template.",
            "Without one there is no telling how it wants to be asked.",
            "Choose the template plain or alpaca.",
        )
    said = [{"role": "system", "content": example.system}] if example.system else []
    said.append({"role": "user", "content": example.prompt})

    def text(messages: list[dict[str, str]], prompt: bool) -> str:
        framed: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt
        )
        return framed

    try:
        asked = text(said, True)
        if not example.answer:
            return asked, ""
        whole = text([*said, {"role": "assistant", "content": example.answer}], False)
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(
            "template_refused",
            f"The example {example.id} does not go into the model's chat template.",
            f"It says: {error}.",
            "Some templates know no system text: leave it away, or choose the template plain.",
        ) from error
    if whole.startswith(asked):
        return asked, whole[len(asked) :].rstrip("\n")
    # some templates show a finished answer otherwise than they ask for one
    return asked, example.answer + (tokenizer.eos_token or "")


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
