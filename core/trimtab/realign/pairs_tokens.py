"""Preference pairs as tokens in a model's own chat template, and the likelihood of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from trimtab.activations.calibration import Calibration, Example
from trimtab.activations.tokens import Template, Tokens, encode
from trimtab.errors import UserError
from trimtab.realign.preferences import Preference

#: chosen and rejected of a pair
Row = tuple[Tokens, Tokens]
_LONGEST = 2048


def pair_rows(tokenizer: Any, pairs: Sequence[Preference], positions: int | None) -> list[Row]:
    """Return chosen and rejected of each pair as tokens, prompt and answer.

    In the model's chat template, or as plain text where it has none. Raises `UserError` as
    `encode` does, and with `pair_too_long` for 2048 tokens or as many as the model has positions:
    an answer that is cut short would teach another preference.
    """
    template: Template = "model" if getattr(tokenizer, "chat_template", None) else "plain"
    room = min(_LONGEST, positions or _LONGEST)
    sides = []
    for kind in ("chosen", "rejected"):
        examples = tuple(Example(p.id, p.prompt, getattr(p, kind)) for p in pairs)
        calibration = Calibration("pairs", examples)
        sides.append(encode(tokenizer, calibration, template, room + 1))
    rows = list(zip(*sides, strict=True))
    for pair, row in zip(pairs, rows, strict=True):
        longest = max(len(side.ids) for side in row)
        if longest >= room:
            raise UserError(
                "pair_too_long",
                f"The pair {pair.id} does not fit in the model.",
                f"It has {longest:,} tokens or more; there is room for {room - 1:,}.",
                "Leave it out of the file.",
            )
    return rows


def log_likelihoods(
    model: PreTrainedModel,
    parameters: Mapping[str, torch.Tensor],
    rows: Sequence[Tokens],
    device: str,
) -> torch.Tensor:
    """Return log p(answer | prompt) of each row in nats, float32 [rows], with gradients.

    The model runs with `parameters` in place of its own of these names.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    counted = torch.zeros((len(rows), width - 1))
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        counted[i, row.answer - 1 : len(row.ids) - 1] = 1.0
    ids, counted = ids.to(device), counted.to(device)
    # padding stands on the right, where no token that counts sees it
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    logits = torch.func.functional_call(model, dict(parameters), (), inputs).logits[:, :-1]
    chosen = torch.gather(logits.float().log_softmax(-1), 2, ids[:, 1:, None])[..., 0]
    return (chosen * counted).sum(-1)
