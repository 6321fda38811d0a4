"""Says ratios of layers and modules in mergekit's terms: gradients, and filters on tensor names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.checkpoints.naming import parse
from trimtab.merging.mergekit_methods import chain
from trimtab.merging.recipe import Recipe
from trimtab.merging.settings import Filtered, evaluate

_BLOCK = re.compile(r"^(.*?(?:^|\.)(?:layers|h|blocks?|layer)\.)[0-9]{1,5}\.(.+)$")


def scaled(setting: Any, factor: float) -> Any:
    """Return a setting of numbers times `factor`."""
    if isinstance(setting, list):
        return [scaled(entry, factor) for entry in setting]
    if isinstance(setting, Filtered):
        return setting.model_copy(update={"value": scaled(setting.value, factor)})
    return setting if factor == 1 else setting * factor


def weight_setting(recipe: Recipe, model: int, names: Sequence[str]) -> Any:
    """Return the weight that mergekit must be given for fine-tuned model number `model`.

    By kinds of tensor where that gives each of the tensors `names` its weight, else by whole names.
    """
    own = recipe.finetuned[model]
    setting = chain(own.weight, recipe.parameters.get("weight"), 1.0)
    if not own.layers and not own.modules:
        return scaled(setting, own.ratio)
    places = [parse(name) for name in names]
    layers = np.array([-1 if p.layer is None else p.layer for p in places], dtype=np.int32)
    ratios = recipe.ratios(layers, tuple(p.module for p in places))[:, model]
    last = max(int(layers.max(initial=0)), 0)
    where = {
        name: 0.0 if layer < 0 else (float(layer) / last if last else 1.0)
        for name, layer in zip(names, layers.tolist(), strict=True)
    }
    wanted = {
        name: float(ratio) * float(evaluate(setting, name, where[name]) or 0.0)
        for name, ratio in zip(names, ratios.tolist(), strict=True)
    }
    short = _short(wanted, last + 1)
    if all(_same(evaluate(short, name, where[name]), wanted[name]) for name in names):
        return short
    # whole names, the longest first: none of them is then a part of one that comes later
    by_length = sorted(wanted, key=len, reverse=True)
    return [Filtered(filter=name, value=wanted[name]) for name in by_length]


def _same(found: object, wanted: float) -> bool:
    return isinstance(found, int | float) and abs(found - wanted) <= 1e-12 * (1 + abs(wanted))


def _short(wanted: Mapping[str, float], count: int) -> list[Filtered]:
    """Return the setting by kinds of tensor, each with one value or one gradient over layers."""
    curves: dict[str, dict[int, float]] = {}
    prefixes: dict[str, None] = {}
    outside: dict[str, float] = {}
    for name, value in wanted.items():
        block, layer = _BLOCK.match(name), parse(name).layer
        if block is None or layer is None:
            outside[name] = value
        else:
            prefixes.setdefault(block[1])
            curves.setdefault(block[2], {})[layer] = value
    filled = {
        part: tuple(curve.get(layer, next(iter(curve.values()))) for layer in range(count))
        for part, curve in curves.items()
    }
    setting: list[Filtered] = []
    if filled:
        usual = Counter(filled.values()).most_common(1)[0][0]
        setting += [
            Filtered(filter=part, value=_curve(curve))
            for part, curve in sorted(filled.items(), key=lambda item: -len(item[0]))
            if curve != usual
        ]
        setting += [Filtered(filter=prefix, value=_curve(usual)) for prefix in prefixes]
    if outside:
        rest = Counter(outside.values()).most_common(1)[0][0]
        setting += [
            Filtered(filter=name, value=value) for name, value in outside.items() if value != rest
        ]
        setting.append(Filtered(value=rest))
    return setting


def _curve(values: tuple[float, ...]) -> Any:
    return values[0] if len(set(values)) == 1 else list(values)
