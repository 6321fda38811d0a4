"""Turns a function from evidence to a subspace into a definition known everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from trimtab.errors import UserError
from trimtab.subspaces.evidence import Evidence
from trimtab.subspaces.subspace import Subspace

#: whose formula it is
Mode = Literal["paper", "authors' code", "ours"]
Need = Literal["alignment", "weight", "safety", "utility"]
Find = Callable[..., Subspace]


@dataclass(frozen=True)
class Param:
    """Annotation of a definition's parameter: its meaning and its range, both ends included."""

    title: str
    sentence: str
    minimum: float
    maximum: float
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter as shown in forms and help; `kind` is "integer", "number" or "choice"."""

    name: str
    title: str
    sentence: str
    kind: Literal["integer", "number", "choice"]
    default: int | float | str
    minimum: float
    maximum: float
    choices: tuple[str, ...]

    def check(self, value: object, of: str) -> int | float | str:
        """Return `value` if it fits; `UserError` with `parameter_out_of_range`."""
        if self.kind == "choice":
            if isinstance(value, str) and value in self.choices:
                return value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            whole = self.kind == "number" or float(value).is_integer()
            if whole and self.minimum <= value <= self.maximum:
                return float(value) if self.kind == "number" else int(value)
        wanted = " or ".join(self.choices) or f"{self.minimum:g} to {self.maximum:g}"
        raise UserError(
            "parameter_out_of_range",
            f"{self.name} is {value!r}.",
            f"{of} takes {wanted}.",
            "Choose a value in that range.",
        )


@dataclass(frozen=True)
class Definition:
    """A registered meaning of "safety subspace".

    `needs` is the evidence it goes by. What is `shown_only` is a measurement: taking it out of a
    model would strip the model's safety, so nothing that writes weights may use it.
    """

    name: str
    title: str
    sentence: str
    formula: str
    reference: str
    mode: Mode
    needs: tuple[Need, ...]
    parameters: tuple[Parameter, ...]
    is_projector: bool
    shown_only: bool
    function: Find

    def check(self, values: Mapping[str, object]) -> dict[str, int | float | str]:
        """Return `values` completed by defaults.

        Raises `UserError` with `unknown_parameter` or `parameter_out_of_range`.
        """
        known = {p.name for p in self.parameters}
        for name in values:
            if name not in known:
                raise UserError(
                    "unknown_parameter",
                    f"{self.title} has no parameter {name}.",
                    f"It has: {', '.join(sorted(known)) or 'none'}.",
                    "Leave it out.",
                )
        return {p.name: p.check(values.get(p.name, p.default), self.title) for p in self.parameters}

    def find(self, evidence: Evidence, **values: object) -> Subspace:
        """Return the subspace for one weight; `UserError` with `evidence_missing` and as `check`.

        `evidence` is of a weight [out, in]: what is stored [in, out] is transposed first.
        """
        return self.function(evidence, **self.check(values))

    def for_writing(self) -> Definition:
        """Return this; `UserError` with `shown_only` where it must not change a model."""
        if not self.shown_only:
            return self
        raise UserError(
            "shown_only",
            f"{self.title} is only measured.",
            "Writing a model without it would strip the model of its safety.",
            "Choose another subspace.",
        )

    def described(self) -> dict[str, Any]:
        """Return all texts and parameters, ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "sentence": self.sentence,
            "formula": self.formula,
            "reference": self.reference,
            "mode": self.mode,
            "needs": list(self.needs),
            "is_projector": self.is_projector,
            "shown_only": self.shown_only,
            "parameters": [
                {
                    "name": p.name, "title": p.title, "sentence": p.sentence, "kind": p.kind,
                    "default": p.default, "minimum": p.minimum, "maximum": p.maximum,
                    "choices": list(p.choices),
                }
                for p in self.parameters
            ],
        }  # fmt: skip


_REGISTRY: dict[str, Definition] = {}


def subspace(
    *,
    title: str,
    formula: str,
    reference: str,
    mode: Mode,
    needs: tuple[Need, ...],
    is_projector: bool = True,
    shown_only: bool = False,
) -> Callable[[Find], Find]:
    """Register the decorated function f(evidence, *, parameters) -> Subspace under its own name.

    Keyword-only parameters carry `Annotated[type, Param(...)]`; the first line of the docstring is
    the sentence.
    """

    def register(function: Find) -> Find:
        name = getattr(function, "__name__", "")
        if name in _REGISTRY:
            raise TypeError(f"two subspaces are called {name}")
        sentence = (inspect.getdoc(function) or "").split("\n")[0]
        _REGISTRY[name] = Definition(
            name, title, sentence, formula, reference, mode, needs, _parameters(function),
            is_projector, shown_only, function,
        )  # fmt: skip
        return function

    return register


def _parameters(function: Find) -> tuple[Parameter, ...]:
    hints = get_type_hints(function, include_extras=True)
    found = []
    for key, value in inspect.signature(function).parameters.items():
        if value.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if get_origin(hints[key]) is not Annotated:
            raise TypeError(f"parameter {key} needs Annotated[type, Param(...)]")
        of, *notes = get_args(hints[key])
        param = next(note for note in notes if isinstance(note, Param))
        kinds: dict[object, Literal["integer", "number", "choice"]] = {
            int: "integer", float: "number", str: "choice",
        }  # fmt: skip
        found.append(
            Parameter(
                key, param.title, param.sentence, kinds[of], value.default, param.minimum,
                param.maximum, param.choices,
            )
        )  # fmt: skip
    return tuple(found)


def subspaces() -> tuple[Definition, ...]:
    """Return all definitions by name."""
    return tuple(_REGISTRY[name] for name in sorted(_REGISTRY))


def get_subspace(name: str) -> Definition:
    """Return the definition called `name`; `UserError` with `unknown_subspace`."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise UserError(
            "unknown_subspace",
            f"There is no subspace called {name}.",
            f"Known are: {', '.join(sorted(_REGISTRY))}.",
            "Choose one of these.",
        ) from None
