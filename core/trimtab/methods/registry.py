"""Turns a pure function with documented parameters into a merge method known everywhere."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError
from trimtab.kernels.piece import Array, Outline, Pass

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Scalar = bool | int | float | str
Kind = Literal["number", "integer", "switch", "choice"]
#: how much of a tensor a method must see at once
Scope = Literal["element", "row", "tensor"]
#: what a method takes the reference for: the origin of task vectors, one more model of the mean,
#: the other end of an interpolation, or nothing but the output's layout
Part = Literal["origin", "member", "layout"]
#: the group of entry points under which other packages offer their methods
ENTRY_POINTS = "trimtab.methods"


@dataclass(frozen=True)
class Param:
    """Annotation of a method's parameter: its meaning, its range, whether each model has one."""

    title: str
    sentence: str
    minimum: float = 0.0
    maximum: float = 1.0
    per_model: bool = False
    choices: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Parameter:
    """A method's parameter as shown in forms, help and recipes.

    `kind` tells what it takes: a "number" or an "integer" from `minimum` to `maximum`, a "switch"
    (bool), or a "choice" of the keys of `choices`, whose values are their titles. With `per_model`
    each model may have a value of its own.
    """

    name: str
    title: str
    sentence: str
    kind: Kind
    default: Scalar
    minimum: float
    maximum: float
    choices: Mapping[str, str]
    per_model: bool

    def check(self, value: object, method: str) -> Scalar:
        """Return `value` in this parameter's type; `UserError` for another kind or bad range."""
        if self.kind == "switch" and isinstance(value, bool):
            return value
        if self.kind == "choice" and value in self.choices:
            return str(value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind in ("number", "integer") and number:
            assert isinstance(value, int | float)
            whole = self.kind == "number" or float(value).is_integer()
            if whole and self.minimum <= value <= self.maximum:
                return float(value) if self.kind == "number" else int(value)
        raise UserError(
            "parameter_out_of_range",
            f"{self.name} is {value:g}." if number else f"{self.name} is {value!r}.",
            f"{method} takes {self.range_text}.",
            "Choose a value in that range.",
        )

    @property
    def range_text(self) -> str:
        """What it takes, in words."""
        if self.kind == "switch":
            return "true or false"
        if self.kind == "choice":
            return " or ".join(self.choices)
        whole = "whole numbers " if self.kind == "integer" else ""
        return f"{whole}{self.minimum:g} to {self.maximum:g}"


#: f(piece, **parameters) -> the merged piece; see `Piece` for what it may overwrite
Combine = Callable[..., Array]
Coefficients = Callable[..., Floats | None]
#: f(gram, weights, **parameters) -> (first, factors): merged = first · ref + Σ factorsᵢ τᵢ; None
#: where these parameters make it something else
Form = Callable[..., tuple[float, Floats] | None]
Passes = Callable[..., Sequence[Pass]]
#: f(**parameters) -> scope
ScopeFor = Callable[..., Scope]


@dataclass(frozen=True)
class MergeMethod:
    """A registered method.

    `combine` works on pieces whose extent `scope` bounds, after the passes that `passes(outline,
    **parameters)` asks for. `coefficients(ratios, **parameters)`, where a method has it, maps
    ratios float64 [n, m] to the c [n, m] of merged = reference + Σ cᵢ τᵢ: the plan's shortcuts and
    the live redraw rest on it. `form(gram, weights, **parameters)`, where a merge is linear once
    the inner products of [reference, τ₁, …] are known, says how; `gram` is None where the method
    has no pass of that kind. `takes` are the least and the most models; `part` says what the
    reference is for; `weighted` whether ratios count. `needs_base` asks for the base model besides:
    `Piece.base`. `last`, where the last model is no fine-tuned one like the others, says what it
    is. `backend` "torch" asks for torch tensors wherever the method runs.
    """

    name: str
    title: str
    sentence: str
    formula: str
    reference: str
    parameters: tuple[Parameter, ...]
    combine: Combine
    passes: Passes
    scope: ScopeFor
    part: Part
    takes: tuple[int, int | None]
    weighted: bool
    coefficients: Coefficients | None
    form: Form | None
    backend: Literal["any", "torch"]
    random: bool
    origin: str
    needs_base: bool = False
    last: str = ""

    def parameter(self, name: str) -> Parameter:
        """Return the parameter called `name`; `UserError` with `unknown_parameter`."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise UserError(
            "unknown_parameter",
            f"{self.title} has no parameter {name}.",
            f"It has: {', '.join(p.name for p in self.parameters) or 'none'}.",
            "Remove it from the recipe's parameters.",
        )

    def check(self, values: Mapping[str, object]) -> dict[str, Scalar]:
        """Return `values` completed by defaults; `UserError` for unknown names and bad ranges."""
        for name in values:
            self.parameter(name)
        return {p.name: p.check(values.get(p.name, p.default), self.title) for p in self.parameters}

    def check_models(self, count: int) -> None:
        """Raise `UserError` with `model_count` when the method cannot take so many models."""
        least, most = self.takes
        if least <= count and (most is None or count <= most):
            return
        wanted = f"exactly {least}" if least == most else (
            f"at least {least}" if most is None else f"{least} to {most}"
        )  # fmt: skip
        raise UserError(
            "model_count",
            f"{self.title} cannot take {count} model{'' if count == 1 else 's'}.",
            f"It takes {wanted} besides the reference.",
            "Add or remove models, or choose another method.",
        )

    def merge(
        self, reference: Tensor, models: Sequence[Tensor], weights: Sequence[float], **options: Any
    ) -> Tensor:
        """Merge whole tensors in memory; `kernels.whole.merge_tensors` says what it takes."""
        from trimtab.kernels.whole import merge_tensors

        merged: Tensor = merge_tensors(self, reference, models, weights, **options)
        return merged


_REGISTRY: dict[str, MergeMethod] = {}
#: top-level module -> "name version" of the packages that offer methods
_packages: dict[str, str] = {}
_problems: tuple[str, ...] | None = None


def _no_passes(outline: Outline, **parameters: Any) -> Sequence[Pass]:
    return ()


def merge_method(
    *,
    title: str,
    formula: str,
    reference: str,
    scope: Scope | ScopeFor = "tensor",
    part: Part = "origin",
    takes: tuple[int, int | None] = (1, None),
    weighted: bool = True,
    passes: Passes = _no_passes,
    coefficients: Coefficients | None = None,
    form: Form | None = None,
    backend: Literal["any", "torch"] = "torch",
    random: bool = False,
    needs_base: bool = False,
    last: str = "",
) -> Callable[[Combine], Combine]:
    """Register the decorated function under its own name.

    Its keyword-only parameters, annotated with `Annotated[type, Param(...)]` where the type is
    float, int, bool or str with choices, become the method's parameters; the first line of its
    docstring becomes the sentence. What a third party leaves unsaid is the safe choice: the whole
    tensor at once, as torch tensors.
    """

    def register(function: Combine) -> Combine:
        name = getattr(function, "__name__", "")
        module = getattr(function, "__module__", "")
        if name in _REGISTRY and _REGISTRY[name].origin != module:
            raise TypeError(f"two merge methods are called {name}: in {_REGISTRY[name].origin}"
                            f" and in {module}")  # fmt: skip
        sentence = (inspect.getdoc(function) or "").split("\n")[0]
        _REGISTRY[name] = MergeMethod(
            name, title, sentence, formula, reference, _parameters(name, function), function,
            passes, scope if callable(scope) else _always(scope), part, takes, weighted,
            coefficients, form, backend, random, module, needs_base, last,
        )  # fmt: skip
        return function

    return register


def _always(scope: Scope) -> ScopeFor:
    return lambda **parameters: scope


def _parameters(method: str, function: Combine) -> tuple[Parameter, ...]:
    hints = get_type_hints(function, include_extras=True)
    kinds: dict[object, Kind] = {float: "number", int: "integer", bool: "switch", str: "choice"}
    found = []
    for key, value in inspect.signature(function).parameters.items():
        if value.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if get_origin(hints[key]) is not Annotated:
            raise TypeError(f"{method}: parameter {key} needs Annotated[type, Param(...)]")
        of, *notes = get_args(hints[key])
        param = next(note for note in notes if isinstance(note, Param))
        default = value.default
        if param.per_model:
            of, default = get_args(of)[0], default[0]  # the function gets one for each model
        found.append(
            Parameter(
                key, param.title, param.sentence, kinds[of], default, param.minimum,
                param.maximum, param.choices or {}, param.per_model,
            )
        )  # fmt: skip
    return tuple(found)


def load_entry_points() -> tuple[str, ...]:
    """Import the methods that other packages offer, once; returns what went wrong, in words.

    A package that fails to import, or takes a name that another has, loses its own methods and
    nothing else. Runs other people's code: never in the window's process.
    """
    global _problems
    if _problems is not None:
        return _problems
    _problems = ()  # a package that asks for a method while it is imported does not come here again
    found = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.name
        _packages[point.module.partition(".")[0]] = package
        try:
            point.load()
        except (Exception, SystemExit) as error:  # whatever a third party's module raises
            _drop_unimported()
            found.append(f"{package} ({point.value}): {type(error).__name__}: {error}")
    _problems = tuple(found)
    return _problems


def load_no_entry_points() -> None:
    """From now on, know no other packages' methods: in a process that must not run their code."""
    global _problems
    _problems = ()


def package_of(method: MergeMethod) -> str:
    """Return name and version of the package that a method comes from; empty for our own."""
    return _packages.get(method.origin.partition(".")[0], "")


def _drop_unimported() -> None:
    """Forget the methods of modules whose import, or whose package's, has failed midway."""
    for name, method in list(_REGISTRY.items()):
        if not {method.origin, method.origin.partition(".")[0]} <= sys.modules.keys():
            del _REGISTRY[name]


def methods() -> tuple[MergeMethod, ...]:
    """Return all registered methods by name."""
    return tuple(_REGISTRY[name] for name in sorted(_REGISTRY))


def get_method(name: str) -> MergeMethod:
    """Return the method called `name`; `UserError` with `unknown_method` when there is none."""
    problems = load_entry_points() if name not in _REGISTRY else ()
    try:
        return _REGISTRY[name]
    except KeyError:
        left_out = f" Packages that could not be loaded: {'; '.join(problems)}." if problems else ""
        raise UserError(
            "unknown_method",
            f"There is no merge method called {name}.",
            f"Known are: {', '.join(sorted(_REGISTRY))}.{left_out}",
            "Change the recipe's method, or install the package that offers it.",
        ) from None
