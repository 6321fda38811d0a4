"""How a model writes an answer: the settings it is given, and what hears of each token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from trimtab.control import Control
from trimtab.evaluation.decoding import Decoding

#: seconds between two times that what has been written is put into words
_PAUSE = 1 / 30


class TokenStream(BaseStreamer):
    """What transformers hands each token to; `heard` gets the text so far, thirty times a second
    at most and once at the end. Raises `JobCancelled` between tokens.
    """

    def __init__(self, tokenizer: Any, control: Control, heard: Callable[[str], None]):
        self._tokenizer = tokenizer
        self._control = control
        self._heard = heard
        self._ids: list[int] = []
        self._ends: frozenset[int] = frozenset(tokenizer.all_special_ids)
        self._begun = False
        self._last = 0.0

    @property
    def tokens(self) -> int:
        """How many tokens have been written."""
        return len(self._ids)

    @property
    def ended(self) -> bool:
        """Whether the last token ends the answer."""
        return bool(self._ids) and self._ids[-1] in self._ends

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt first, then a token at a time."""
        self._control.check()
        if not self._begun:
            self._begun = True
            return
        self._ids += value.reshape(-1).tolist()
        if time.monotonic() - self._last >= _PAUSE:
            self._tell()

    def end(self) -> None:
        """Tell the whole."""
        self._tell()

    def _tell(self) -> None:
        self._last = time.monotonic()
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # half of a character is no character yet
        self._heard(text.rstrip("\ufffd"))


def generation_settings(
    decoding: Decoding, model: PreTrainedModel, tokenizer: Any, room: int
) -> GenerationConfig:
    """Return `decoding` as transformers wants it: of the model's own settings the end tokens count.

    An answer has at most `room` tokens.
    """
    own = model.generation_config
    end = own.eos_token_id if own is not None and own.eos_token_id is not None else None
    common: dict[str, Any] = {
        "max_new_tokens": min(decoding.max_new_tokens, room),
        "do_sample": not decoding.greedy,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "eos_token_id": end if end is not None else tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    }
    if not decoding.greedy:
        common |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    return GenerationConfig(**common)
