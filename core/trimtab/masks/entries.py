"""What a recipe says of a mask: a stack of entries, each a file, a rule or chance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trimtab.checkpoints.naming import parse

Op = Literal["and", "or", "minus", "xor", "times"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Part):
    """Whole tensors: those for which all that is said here holds.

    `layers` are the first and the last one, both of them included; `modules` are names such as "q"
    or "gate e3"; `tensors` is a tensor's name in which * stands for anything; `cells` are painted
    ones, (layer, module), with layer -1 outside the blocks.
    """

    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    modules: tuple[str, ...] = ()
    tensors: str = ""
    cells: tuple[tuple[Annotated[int, Field(ge=-1)], str], ...] | None = None

    @field_validator("layers")
    @classmethod
    def _in_order(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("the first layer comes before the last")
        return value

    @cached_property
    def _painted(self) -> frozenset[tuple[int, str]] | None:
        # a whole model may be painted: thousands of cells are asked for each of its tensors
        return None if self.cells is None else frozenset(self.cells)

    def matches(self, name: str) -> bool:
        """Whether the tensor called `name` is one of these."""
        place = parse(name)
        layer = -1 if place.layer is None else place.layer
        if self.layers is not None and not self.layers[0] <= layer <= self.layers[1]:
            return False
        if self.modules and not {place.module, place.row} & set(self.modules):
            return False
        painted = self._painted
        if painted is not None and painted.isdisjoint(((layer, place.module), (layer, place.row))):
            return False
        pattern = ".*".join(map(re.escape, self.tensors.split("*")))
        return not self.tensors or re.fullmatch(pattern, name) is not None


class Chance(_Part):
    """Each entry is kept with probability `keep`; `seed` None is the recipe's own."""

    keep: Annotated[float, Field(ge=0, le=1)]
    seed: int | None = None


class MaskEntry(_Part):
    """One layer of a stack: a mask, and what it does to the mask so far.

    The mask is that of the file at `path`, of a `rule`, or `random`; with `invert` its complement.
    A stack starts with everything kept; `op` says what becomes of it: "and" keeps what both keep,
    "or" what either does, "minus" what this one does not, "xor" what exactly one does. Of soft
    values in [0, 1] these are min(a, b), max(a, b), min(a, 1 − b) and max(min(a, 1 − b),
    min(1 − a, b)) (Zadeh 1965), and "times" is a·b: for bits the same as "and". An entry that is
    not `on` counts as absent; `name` is what it is called.
    """

    path: str = ""
    rule: Rule | None = None
    random: Chance | None = None
    op: Op = "and"
    invert: bool = False
    on: bool = True
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _key_of_yaml(cls, data: Any) -> Any:
        # an unquoted `on` is a truth value to YAML
        if isinstance(data, Mapping) and True in data:
            return {"on" if key is True else key: value for key, value in data.items()}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> MaskEntry:
        if bool(self.path) + (self.rule is not None) + (self.random is not None) != 1:
            raise ValueError("a mask is one of path, rule and random")
        return self

    @property
    def title(self) -> str:
        """What it is called: its name, or what it is."""
        if self.name:
            return self.name
        if self.path:
            return self.path.replace("\\", "/").rsplit("/", 1)[-1]
        return "rule" if self.rule is not None else "random"
