"""How answers are drawn from a model: all of it stated, nothing left to a model's own defaults."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from trimtab.errors import UserError

Template = Literal["model", "plain"]


@dataclass(frozen=True)
class Decoding:
    """What an answer depends on besides model and prompt.

    `temperature` 0 is greedy: then `top_p` and `seed` do not count. `system` stands before every
    prompt that brings no system text of its own. `template` "model" is the model's own chat
    template, "plain" the bare text. A sample depends on the batch it is drawn in, so `batch_size`
    is part of the measurement. Raises `UserError` with `bad_decoding`.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 8
    system: str = ""
    template: Template = "model"

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise _bad(name, "a whole number from 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise _bad("temperature", "0, which is greedy, or more")
        if not 0 < self.top_p <= 1:
            raise _bad("top_p", "above 0, up to 1")
        if not 0 <= self.seed < 2**63:
            raise _bad("seed", "a whole number from 0, below 2^63")
        if self.template not in ("model", "plain"):
            raise _bad("template", "model or plain")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Decoding:
        """Return the decoding of values by name; `UserError` with `bad_decoding` for others."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise _bad(name, f"nothing: there are {', '.join(names)}")
        return cls(**given)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0

    @property
    def digest(self) -> str:
        """Hex digest of all of it."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """One line that says how answers were drawn."""
        how = (
            "greedy"
            if self.greedy
            else f"sampled at temperature {self.temperature:g}, top-p {self.top_p:g}, "
            f"seed {self.seed}"
        )
        frame = "the model's own chat template" if self.template == "model" else "no chat template"
        system = ", with a system text" if self.system else ""
        return (
            f"{how}, up to {self.max_new_tokens} tokens, batches of {self.batch_size}, "
            f"{frame}{system}"
        )


def _bad(name: str, wanted: str) -> UserError:
    return UserError(
        "bad_decoding",
        f"{name} cannot be that.",
        f"It must be {wanted}.",
        "Correct it and run again.",
    )
