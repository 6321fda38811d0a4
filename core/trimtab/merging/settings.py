"""Values that change over layers and tensor names, and what a recipe says of its tokenizer."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _plain(value: object) -> object:
    """Refuse what is no number; read the "1e-5" that YAML 1.1 takes for text as a number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("write a finite number")
    return value


#: a number, a switch or one of a parameter's words
Scalar = Annotated[bool | int | float | str, BeforeValidator(_plain)]


class Filtered(_Part):
    """A value, or a gradient, for the tensors whose name contains `filter`; None or "*": all."""

    filter: str | None = None
    value: Scalar | list[Scalar]

    def matches(self, tensor: str) -> bool:
        """Whether the value is meant for a tensor of this name."""
        return self.filter in (None, "*") or str(self.filter) in tensor


def _one_message(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler([value] if isinstance(value, dict | Filtered) else value)
    except ValidationError:
        raise ValueError(
            "write a finite number, a word or true/false; a list of these over the layers; "
            "or a list of {filter: part of the name, value: ...}"
        ) from None


#: one value, a gradient over the layers, or values by tensor name of which the first match counts
Setting = Annotated[Scalar | list[Scalar] | list[Filtered], WrapValidator(_one_message)]


def evaluate(setting: Any, tensor: str, t: float) -> bool | int | float | str | None:
    """Return what a `Setting` amounts to for one tensor, None where it says nothing about it.

    `t` in [0, 1] is the layer's place in its slice: index / (layers - 1), 1 for a slice of one
    layer, 0 for tensors outside the layers. Numbers of a gradient are interpolated linearly;
    switches and words are not: the entry at or before `t` counts. As mergekit defines it.
    """
    if not isinstance(setting, list):
        return setting  # type: ignore[no-any-return]
    for entry in setting:
        if not isinstance(entry, Filtered):
            return _along(setting, t)
        if entry.matches(tensor):
            return _along(entry.value, t) if isinstance(entry.value, list) else entry.value
    return None


def _along(values: list[Any], t: float) -> bool | int | float | str | None:
    if not values:
        return None
    place = t * (len(values) - 1)
    low = int(place)
    if any(isinstance(value, bool | str) for value in values):
        return values[low]  # type: ignore[no-any-return]
    high = min(low + 1, len(values) - 1)
    return float((1 - (place - low)) * values[low] + (place - low) * values[high])


class ModelToken(_Part):
    """The row of one token in one model, by the token or by its number."""

    kind: Literal["model_token"]
    model: str
    token: str | None = None
    token_id: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelToken:
        if (self.token is None) == (self.token_id is None):
            raise ValueError("give either token or token_id")
        return self


class ZeroRow(_Part):
    """A row of zeros."""

    kind: Literal["zero"]


class TokenSource(_Part):
    """Where the row of one token comes from in models that lack the token.

    `source` is the name of a model, a token of a model, or zeros; `force` takes it in models
    that have the token as well.
    """

    source: ModelToken | ZeroRow | str | None = None
    force: bool = False


class Tokenizer(_Part):
    """The merged model's tokenizer.

    `source` is "union", "base" (the reference model's), or the name or folder of a model.
    `tokens` are added where they are missing. The vocabulary axis of every tensor is made as
    long as the vocabulary, rounded up to a multiple of `pad_to_multiple_of`.
    """

    source: str = "union"
    tokens: dict[str, TokenSource] = Field(default_factory=dict)
    pad_to_multiple_of: Annotated[int, Field(ge=1)] | None = None
