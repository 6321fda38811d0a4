"""Turns a pure function with documented parameters into a merge method known everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Param:
    """Annotation of a method's parameter: what it means and its range."""

    title: str
    sentence: str
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Parameter:
    """A method's parameter as shown in forms, help and recipes."""

    name: str
    title: str
    sentence: str
    default: float
    minimum: float
    maximum: float


#: The tensor function of a method, called as f(reference, models, ratios, **parameters):
#: `reference` and each of `models` are float32 tensors of one shape, `ratios` has one number a
#: model. All of them may be overwritten; the result is float32 and may be one of them.
Combine = Callable[..., "Tensor"]
Coefficients = Callable[..., Floats]


@dataclass(frozen=True)
class MergeMethod:
    """A registered method.

    `coefficients(ratios, **parameters)` maps ratios float64 [n, m] to the c [n, m] of
    merged = reference + sum_i c_i tau_i: the plan's shortcuts and the live redraw rest on it.
    """

    name: str
    title: str
    sentence: str
    formula: str
    reference: str
    parameters: tuple[Parameter, ...]
    combine: Combine
    coefficients: Coefficients

    def check(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return `values` completed by defaults; `UserError` for unknown names and bad ranges."""
        known = {p.name: p for p in self.parameters}
        for name, value in values.items():
            if name not in known:
                raise UserError(
                    "unknown_parameter",
                    f"{self.title} has no parameter {name}.",
                    f"It has: {', '.join(known) or 'none'}.",
                    "Remove it from the recipe's parameters.",
                )
            low, high = known[name].minimum, known[name].maximum
            if not low <= value <= high:
                raise UserError(
                    "parameter_out_of_range",
                    f"{name} is {value:g}.",
                    f"{self.title} takes {low:g} to {high:g}.",
                    "Choose a value in that range.",
                )
        return {p.name: float(values.get(p.name, p.default)) for p in self.parameters}


_REGISTRY: dict[str, MergeMethod] = {}


def merge_method(
    *, title: str, formula: str, reference: str, coefficients: Coefficients
) -> Callable[[Combine], Combine]:
    """Register the decorated function under its own name.

    Its keyword-only parameters, annotated with `Annotated[float, Param(...)]`, become the
    method's parameters; the first line of its docstring becomes the sentence.
    """

    def register(function: Combine) -> Combine:
        name = getattr(function, "__name__", "")
        hints = get_type_hints(function, localns={"Tensor": Any}, include_extras=True)
        found = []
        for key, value in inspect.signature(function).parameters.items():
            if value.kind is not inspect.Parameter.KEYWORD_ONLY:
                continue
            if get_origin(hints[key]) is not Annotated:
                raise TypeError(f"{name}: parameter {key} needs Annotated[float, Param(...)]")
            param = next(a for a in get_args(hints[key]) if isinstance(a, Param))
            found.append(
                Parameter(
                    key, param.title, param.sentence, value.default, param.minimum, param.maximum
                )
            )
        sentence = (inspect.getdoc(function) or "").split("\n")[0]
        _REGISTRY[name] = MergeMethod(
            name, title, sentence, formula, reference, tuple(found), function, coefficients
        )
        return function

    return register


def methods() -> tuple[MergeMethod, ...]:
    """Return all registered methods by name."""
    return tuple(_REGISTRY[name] for name in sorted(_REGISTRY))


def get_method(name: str) -> MergeMethod:
    """Return the method called `name`; `UserError` with `unknown_method` when there is none."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise UserError(
            "unknown_method",
            f"There is no merge method called {name}.",
            f"Known are: {', '.join(sorted(_REGISTRY))}.",
            "Change the recipe's method.",
        ) from None
