"""The search space: what of a recipe may vary, as a file or a few words, and its dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trimtab.errors import UserError
from trimtab.merging.recipe import Finite, read_text

#: modules that one factor moves together
GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("q", "k", "v", "qkv", "o"),
    "mlp": ("gate", "up", "gate_up", "fc1", "down", "fc2", "router"),
}
#: places of a curve over the layers where nobody asks for another number
KNOTS = 5

Value = float | int | str | bool


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Range(_Part):
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _in_order(self) -> _Range:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


class RatioVaries(_Range):
    """A fine-tuned model's ratio.

    By "all" it is one number. By "layers" it is a curve through `knots` places, evenly spread from
    the first to the last layer and joined by straight lines, and one number outside the layers. By
    "modules" the recipe's ratio is multiplied by a factor for each of `modules`: names such as "q",
    or "attention" and "mlp" for all of those. `model` is a name, empty for every model whose ratio
    in the recipe is not 0.
    """

    vary: Literal["ratio"] = "ratio"
    model: str = ""
    by: Literal["all", "layers", "modules"] = "all"
    knots: int = Field(default=KNOTS, ge=2)
    modules: tuple[str, ...] = ("attention", "mlp")
    low: Finite = 0.0
    high: Finite = 1.0


class ParameterVaries(_Part):
    """A parameter of the method, within the method's own range where none is given.

    `model` names one fine-tuned model for a parameter that each has; empty for all together.
    With `choices` it is one of these.
    """

    vary: Literal["parameter"] = "parameter"
    name: str
    model: str = ""
    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()


class MethodVaries(_Part):
    """The merge method; parameters that the chosen one does not have count for nothing."""

    vary: Literal["method"] = "method"
    choices: tuple[str, ...] = Field(min_length=2)


class MaskVaries(_Part):
    """One entry of a model's masks, the first being 0.

    With `files` it is the mask of one of these files (masks of one score at several thresholds are
    a threshold that varies); "off" is no mask. With `keep` it is chance that keeps a share in this
    range. Without either it is switched on and off. An entry that the recipe lacks is added.
    """

    vary: Literal["mask"] = "mask"
    model: str = ""
    entry: int = Field(default=0, ge=0)
    files: tuple[str, ...] = ()
    keep: tuple[float, float] | None = None

    @field_validator("files", mode="before")
    @classmethod
    def _word_of_yaml(cls, value: object) -> object:
        # an unquoted off is a truth value to YAML
        if isinstance(value, list | tuple):
            return tuple("off" if each is False else each for each in value)
        return value

    @field_validator("keep")
    @classmethod
    def _share(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("a range of shares lies between 0 and 1")
        return value

    @model_validator(mode="after")
    def _one(self) -> MaskVaries:
        if self.files and self.keep is not None:
            raise ValueError("an entry varies by files or by keep, not by both")
        if self.files and len(self.files) < 2:
            raise ValueError("name at least two files, or one and off")
        return self


Varies = Annotated[
    RatioVaries | ParameterVaries | MethodVaries | MaskVaries, Field(discriminator="vary")
]


class Space(_Part):
    """What varies; everything else stays as the recipe has it."""

    trimtab_space: Literal[1] = 1
    varies: tuple[Varies, ...] = ()

    def absolute(self, folder: Path) -> Space:
        """Return a copy whose mask files are absolute paths; relative ones start at `folder`."""

        def whole(name: str) -> str:
            return name if name == "off" else str((folder / Path(name).expanduser()).absolute())

        return Space(
            varies=tuple(
                each.model_copy(update={"files": tuple(map(whole, each.files))})
                if isinstance(each, MaskVaries)
                else each
                for each in self.varies
            )
        )


@dataclass(frozen=True)
class Dimension:
    """One number or choice that a trial sets.

    `start` is where the recipe as it stands is, None where it lies outside the space. `role` is
    "ratio" for a model's ratio, "factor" for what that is multiplied by, and else empty.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()
    start: Value | None = None
    role: Literal["", "ratio", "factor"] = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader needs to know, ready for JSON."""
        bounds = (
            {"low": None, "high": None} if self.choices else {"low": self.low, "high": self.high}
        )
        return {"name": self.name, **bounds, "choices": list(self.choices) or None}


def default_space(method_weighted: bool) -> Space:
    """Return the space of a user who gives nothing but the recipe.

    A curve over the layers for each model that takes part, with a factor for attention and one for
    the MLPs; raises `UserError` with `bad_space` for a method to which ratios mean nothing.
    """
    if not method_weighted:
        raise bad_space(
            "This recipe's method takes no ratios.",
            "What else is to vary has to be said.",
            "Name it with --vary or --space, as in --vary density.",
        )
    # a factor near 0 would only undo the curve
    return Space(varies=(RatioVaries(by="layers"), RatioVaries(by="modules", low=0.5)))


def open_space(path: Path) -> Space:
    """Read a space from YAML. Raises `UserError` with `unreadable` and `bad_space`."""
    try:
        data = yaml.safe_load(read_text(path))
        space = Space.model_validate(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad_space(
            f"{path.name} is no search space.", _first_problem(error),
            "Begin with 'trimtab_space: 1', then list what varies.",
        ) from error  # fmt: skip
    if not space.varies:
        raise bad_space(
            f"{path.name} lets nothing vary.", "There is nothing to search.",
            "List what varies under 'varies'.",
        )  # fmt: skip
    return space.absolute(path.parent)


def parse_varies(texts: Sequence[str]) -> Space:
    """Return the space of a few words, each one thing that varies.

    ratio, curve or curve:KNOTS, modules or modules:q,k,…; method:A,B,…; mask:FILE,FILE,off; a
    parameter's name, alone, as NAME:LOW..HIGH or as NAME:A,B,…; before any of them MODEL/ for one
    model. Raises `UserError` with `bad_space`.
    """
    try:
        return Space.model_validate({"varies": [_parse(text) for text in texts]}).absolute(
            Path.cwd()
        )
    except (ValueError, KeyError) as error:
        raise bad_space(
            f"'{' '.join(texts)}' does not say what varies.", _first_problem(error),
            "Write as in: --vary curve:5 --vary density:0.2..1 --vary method:ties,dare_ties.",
        ) from error  # fmt: skip


def _parse(text: str) -> dict[str, Any]:
    head, _, rest = text.partition(":")
    model, _, what = head.rpartition("/")
    listed = tuple(part.strip() for part in rest.split(",") if part.strip())
    of = {"model": model} if model else {}
    if what == "ratio":
        return {"vary": "ratio", **of, **_range(rest)}
    if what == "curve":
        knots = {"knots": int(rest)} if rest else {}
        return {"vary": "ratio", "by": "layers", **of, **knots}
    if what == "modules":
        named = {"modules": listed} if rest else {}
        return {"vary": "ratio", "by": "modules", **of, **named}
    if what == "method":
        return {"vary": "method", "choices": listed, **of}
    if what == "mask":
        return {"vary": "mask", "files": listed, **of}
    if ".." in rest or not rest:
        return {"vary": "parameter", "name": what, **of, **_range(rest)}
    return {"vary": "parameter", "name": what, "choices": tuple(map(_scalar, listed)), **of}


def _range(text: str) -> dict[str, float]:
    if not text:
        return {}
    low, dots, high = text.partition("..")
    if not dots:
        raise ValueError(f"a range is LOW..HIGH, not {text}")
    return {"low": float(low), "high": float(high)}


def _scalar(text: str) -> Value:
    value = yaml.safe_load(text)
    return value if isinstance(value, bool | int | float) else text


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"At {place or 'its beginning'}: {first['msg']}."
    return f"The reader says: {' '.join(str(error).split())}."


def bad_space(what: str, why: str, fix: str) -> UserError:
    """Return the error for a space that cannot be searched."""
    return UserError("bad_space", what, why, fix)
