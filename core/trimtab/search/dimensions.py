"""The dimensions of a space over one recipe, and the recipe that a point of it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.checkpoints import Lineup
from trimtab.checkpoints.naming import module_key, parse
from trimtab.errors import UserError
from trimtab.masks.entries import Chance, MaskEntry
from trimtab.merging.recipe import FineTuned, Recipe
from trimtab.methods import get_method
from trimtab.methods.registry import Parameter
from trimtab.search.baselines import taking_part
from trimtab.search.space import (
    GROUPS,
    Dimension,
    MaskVaries,
    MethodVaries,
    ParameterVaries,
    RatioVaries,
    Space,
    Value,
    bad_space,
)

Params = Mapping[str, Value]
#: a recipe, as the fields that differ from the one searched around
_Change = Callable[[Recipe, Params], Recipe]
_OFF = "off"


@dataclass(frozen=True)
class Searched:
    """A space laid over a recipe: `dimensions`, and `recipe(params)` for a point of it."""

    around: Recipe
    dimensions: tuple[Dimension, ...]
    changes: tuple[_Change, ...]

    def recipe(self, params: Params) -> Recipe:
        """Return the recipe of a point; `params` holds a value for every dimension."""
        found = self.around
        for change in self.changes:
            found = change(found, params)
        return found

    @property
    def start(self) -> dict[str, Value] | None:
        """The point where the recipe stands; None where it lies outside the space."""
        return _whole({d.name: d.start for d in self.dimensions})

    def flat(self, ratio: float) -> dict[str, Value] | None:
        """Return the point with every ratio so, as far as ratios vary, and else as the recipe;
        None where that lies outside the space.
        """
        wanted = {"ratio": ratio, "factor": 1.0}
        return _whole(
            {
                d.name: _inside(wanted[d.role], d.low, d.high) if d.role else d.start
                for d in self.dimensions
            }
        )


def _whole(point: Mapping[str, Value | None]) -> dict[str, Value] | None:
    known = {name: value for name, value in point.items() if value is not None}
    return known if len(known) == len(point) else None


def lay_out(space: Space, recipe: Recipe, lineup: Lineup) -> Searched:
    """Lay a space over a recipe.

    Raises `UserError` with `bad_space` for what does not fit it: unknown models, modules,
    parameters, values out of range, the same thing twice; with
    `unknown_method`.
    """
    if recipe.slices or recipe.towers:
        raise bad_space(
            "A recipe that stacks layers anew cannot be searched.",
            "Its layers are not those of the models that are loaded.",
            "Search around a recipe without slices, then put its ratios into this one.",
        )
    places = [parse(name) for name in lineup.names]
    n_layers = 1 + max((place.layer for place in places if place.layer is not None), default=-1)
    modules = sorted({place.module for place in places if place.zone == "layer"}, key=module_key)
    names = [ref.name or member.name
             for ref, member in zip(recipe.finetuned, lineup.finetuned, strict=True)]  # fmt: skip
    methods = tuple(
        dict.fromkeys(
            [
                recipe.method,
                *(c for v in space.varies if isinstance(v, MethodVaries) for c in v.choices),
            ]
        )
    )
    for name in methods:
        get_method(name)
    dimensions: list[Dimension] = []
    changes: list[_Change] = []
    # factors are put on the curves that other entries draw, whatever the order they are named in
    for varies in sorted(space.varies, key=lambda v: getattr(v, "by", "") == "modules"):
        if isinstance(varies, MethodVaries):
            added: list[tuple[list[Dimension], _Change]] = [_method(varies, recipe)]
        elif isinstance(varies, ParameterVaries):
            chosen = [_index(varies.model, names)] if varies.model else [None]
            added = [_parameter(varies, recipe, methods, i, names) for i in chosen]
        else:
            added = []
            for i in _models(varies.model, recipe, names):
                if isinstance(varies, MaskVaries):
                    added.append(_mask(varies, recipe.finetuned[i], i, names[i]))
                elif varies.by == "all":
                    added.append(_ratio(varies, recipe.finetuned[i], i, names[i]))
                elif varies.by == "layers":
                    added.append(_curve(varies, recipe.finetuned[i], i, names[i], n_layers))
                else:
                    added.append(_factors(varies, recipe.finetuned[i], i, names[i], modules))
        for more, change in added:
            dimensions += more
            changes.append(change)
    found = [dimension.name for dimension in dimensions]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise bad_space(f"{twice} varies twice.", "A trial sets each thing once.", "Name it once.")
    changes.append(lambda recipe, params: _without_strangers(recipe))
    return Searched(recipe, tuple(dimensions), tuple(changes))


def _models(name: str, recipe: Recipe, names: list[str]) -> list[int]:
    if name:
        return [_index(name, names)]
    return taking_part(recipe)


def _index(name: str, names: list[str]) -> int:
    if name not in names:
        raise bad_space(
            f"There is no fine-tuned model {name}.",
            f"The recipe has: {', '.join(names)}.",
            "Name one of these, or none for all that take part.",
        )
    return names.index(name)


def _with(recipe: Recipe, i: int, **update: Any) -> Recipe:
    models = list(recipe.finetuned)
    models[i] = models[i].model_copy(update=update)
    return recipe.model_copy(update={"finetuned": tuple(models)})


def _inside(value: float, low: float, high: float) -> float | None:
    return value if low <= value <= high else None


# --- ratios ----------------------------------------------------------------------------------


def _ratio(
    varies: RatioVaries, model: FineTuned, i: int, name: str
) -> tuple[list[Dimension], _Change]:
    key = f"{name} · ratio"
    start = None if model.layers else _inside(model.ratio, varies.low, varies.high)

    def change(recipe: Recipe, params: Params) -> Recipe:
        return _with(recipe, i, ratio=_number(params[key]), layers={})

    return [Dimension(key, varies.low, varies.high, start=start, role="ratio")], change


def knot_places(knots: int, layers: int) -> list[float]:
    """Return where the knots of a curve over so many layers lie, from 0 to the last layer."""
    return [k * (layers - 1) / (knots - 1) for k in range(knots)]


def curve(heights: list[float], layers: int) -> dict[int, float]:
    """Return the ratio of each layer: straight lines between heights at evenly spread knots."""
    found = {}
    for layer in range(layers):
        place = layer * (len(heights) - 1) / (layers - 1) if layers > 1 else 0.0
        low = min(int(place), len(heights) - 2)
        share = place - low
        found[layer] = round((1 - share) * heights[low] + share * heights[low + 1], 6)
    return found


def _curve(
    varies: RatioVaries, model: FineTuned, i: int, name: str, layers: int
) -> tuple[list[Dimension], _Change]:
    if layers < 2:
        raise bad_space(
            "There is no curve over fewer than two layers.",
            f"These models have {layers}.",
            "Let the ratio vary as one number: --vary ratio.",
        )
    knots = min(varies.knots, layers)
    keys = [f"{name} · layer {place:.3g}" for place in knot_places(knots, layers)]
    outside = f"{name} · outside the layers"
    dimensions = []
    for key, place in zip(keys, knot_places(knots, layers), strict=True):
        height = model.layers.get(round(place), model.ratio)
        start = _inside(height, varies.low, varies.high)
        dimensions.append(Dimension(key, varies.low, varies.high, start=start, role="ratio"))
    start = _inside(model.ratio, varies.low, varies.high)
    dimensions.append(Dimension(outside, varies.low, varies.high, start=start, role="ratio"))

    def change(recipe: Recipe, params: Params) -> Recipe:
        heights = [_number(params[key]) for key in keys]
        return _with(recipe, i, ratio=_number(params[outside]), layers=curve(heights, layers))

    return dimensions, change


def _factors(
    varies: RatioVaries, model: FineTuned, i: int, name: str, modules: list[str]
) -> tuple[list[Dimension], _Change]:
    members: dict[str, list[str]] = {}
    for wanted in varies.modules:
        of_group = [m for m in GROUPS.get(wanted, (wanted,)) if m in modules]
        if of_group:
            members[f"{name} · {wanted}"] = of_group
        elif wanted not in GROUPS:
            raise bad_space(
                f"These models have no module {wanted}.",
                f"They have: {', '.join(modules)}.",
                "Name some of these, or attention and mlp for all of those.",
            )
    dimensions = [
        Dimension(
            key, varies.low, varies.high,
            start=_inside(model.modules.get(of_group[0], 1.0), varies.low, varies.high),
            role="factor",
        )
        for key, of_group in members.items()
    ]  # fmt: skip

    def change(recipe: Recipe, params: Params) -> Recipe:
        factors = dict(recipe.finetuned[i].modules)
        for key, of_group in members.items():
            factors |= dict.fromkeys(of_group, _number(params[key]))
        return _with(recipe, i, modules=factors)

    return dimensions, change


def _number(value: Value) -> float:
    # what a recipe shows is what was tried: more digits would be noise to whoever reads it
    return round(float(value), 6)


# --- methods and their parameters ------------------------------------------------------------


def _method(varies: MethodVaries, recipe: Recipe) -> tuple[list[Dimension], _Change]:
    start = recipe.method if recipe.method in varies.choices else None

    def change(recipe: Recipe, params: Params) -> Recipe:
        return recipe.model_copy(update={"method": str(params["method"])})

    return [Dimension("method", choices=varies.choices, start=start)], change


def _parameter(
    varies: ParameterVaries,
    recipe: Recipe,
    methods: tuple[str, ...],
    model: int | None,
    names: list[str],
) -> tuple[list[Dimension], _Change]:
    owners = [
        p for name in methods for p in get_method(name).parameters if p.name == varies.name
    ]  # fmt: skip
    if not owners:
        known = sorted({p.name for name in methods for p in get_method(name).parameters})
        raise bad_space(
            f"There is no parameter {varies.name}.",
            f"Of {' and '.join(methods)} there are: {', '.join(known) or 'none'}.",
            "Name one of these.",
        )
    if model is not None and not any(p.per_model for p in owners):
        raise bad_space(
            f"{varies.name} is one for all models.", "No model has one of its own.",
            f"Name it without {names[model]}/.",
        )  # fmt: skip
    key = varies.name if model is None else f"{names[model]} · {varies.name}"
    held = recipe.parameters if model is None else recipe.finetuned[model].parameters
    given = held.get(varies.name, owners[0].default)
    dimension = _dimension(varies, owners[0], key, given if not isinstance(given, list) else None)

    def change(recipe: Recipe, params: Params) -> Recipe:
        own = recipe.parameters if model is None else recipe.finetuned[model].parameters
        merged = {**own, varies.name: params[key]}
        if model is not None:
            return _with(recipe, model, parameters=merged)
        return recipe.model_copy(update={"parameters": merged})

    return [dimension], change


def _dimension(
    varies: ParameterVaries, parameter: Parameter, key: str, given: Value | None
) -> Dimension:
    choices: tuple[Value, ...] = varies.choices
    if not choices and parameter.kind == "switch":
        choices = (False, True)
    if not choices and parameter.kind == "choice":
        choices = tuple(parameter.choices)
    try:
        for choice in choices:
            parameter.check(choice, "It")
        if choices:
            return Dimension(key, choices=choices, start=given if given in choices else None)
        low = parameter.minimum if varies.low is None else varies.low
        high = parameter.maximum if varies.high is None else varies.high
        parameter.check(low, "It")
        parameter.check(high, "It")
    except UserError as error:
        raise bad_space(f"In {key}: {error.what}", error.why, error.fix) from error
    if not (math.isfinite(low) and math.isfinite(high)) or not low < high:
        raise bad_space(
            f"{key} has no range.", f"It would go from {low:g} to {high:g}.",
            f"Write one: {key}:LOW..HIGH.",
        )  # fmt: skip
    if varies.log and low <= 0:
        raise bad_space(
            f"{key} cannot be searched by its logarithm.", f"It begins at {low:g}.",
            "Give a low end above 0.",
        )  # fmt: skip
    number = isinstance(given, int | float) and not isinstance(given, bool)
    start = _inside(float(given), low, high) if number and given is not None else None
    return Dimension(key, low, high, varies.log, parameter.kind == "integer", start=start)


def _without_strangers(recipe: Recipe) -> Recipe:
    """Leave out parameters that the recipe's method does not have: they are another one's."""
    method = get_method(recipe.method)
    known = {p.name for p in method.parameters} | ({"weight"} if method.weighted else set())

    def kept(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in known}

    models = tuple(
        m.model_copy(update={"parameters": kept(m.parameters)}) for m in recipe.finetuned
    )
    return recipe.model_copy(update={"parameters": kept(recipe.parameters), "finetuned": models})


# --- masks -----------------------------------------------------------------------------------


def _mask(
    varies: MaskVaries, model: FineTuned, i: int, name: str
) -> tuple[list[Dimension], _Change]:
    key = f"{name} · mask {varies.entry}"
    there = model.masks[varies.entry] if varies.entry < len(model.masks) else None
    if there is None and (varies.entry > len(model.masks) or not (varies.files or varies.keep)):
        raise bad_space(
            f"{name} has no mask {varies.entry} in the recipe.",
            f"It has {len(model.masks)}; the first is 0.",
            "Name one that it has, or files to choose from.",
        )
    if varies.files:
        now = there.path if there is not None and there.on else _OFF
        start: Value | None = now if now in varies.files else None
        dimension = Dimension(key, choices=varies.files, start=start)
    elif varies.keep is not None:
        chance = there.random if there is not None else None
        start = None if chance is None else _inside(chance.keep, *varies.keep)
        dimension = Dimension(key, *varies.keep, start=start)
    else:
        dimension = Dimension(key, choices=(True, False), start=there.on if there else None)

    def entry(value: Value) -> MaskEntry:
        if varies.keep is not None:
            chance = (there.random if there is not None else None) or Chance(keep=1.0)
            random = chance.model_copy(update={"keep": _number(value)})
            return (there or MaskEntry(random=random)).model_copy(
                update={"random": random, "path": "", "rule": None, "on": True}
            )
        if not varies.files:
            assert there is not None
            return there.model_copy(update={"on": bool(value)})
        if value == _OFF:
            first = next(file for file in varies.files if file != _OFF)
            return (there or MaskEntry(path=first)).model_copy(update={"on": False})
        chosen = {"path": str(value), "rule": None, "random": None, "on": True, "name": ""}
        return (there or MaskEntry(path=str(value))).model_copy(update=chosen)

    def change(recipe: Recipe, params: Params) -> Recipe:
        masks = list(recipe.finetuned[i].masks)
        masks[varies.entry : varies.entry + 1] = [entry(params[key])]
        return _with(recipe, i, masks=tuple(masks))

    return [dimension], change
