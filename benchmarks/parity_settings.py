"""Reads mergekit documents: which tensors and parameters make up a tensor of the output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from small_models import LAYERS

_LAYER = re.compile(r"\.(layers|h)\.(\d+)\.")
_LAST = ("model.norm.", "lm_head.", "transformer.ln_f.")
_VOCABULARY = ("embed_tokens.", "lm_head.", ".wte.")

#: methods by family: parameters that belong to each model
EACH = ("weight", "density", "gamma", "epsilon", "scale")


@dataclass(frozen=True)
class Input:
    """A tensor that takes part: whose, under which name, as the base or not, with what settings."""

    model: str
    tensor: str
    is_base: bool
    own: Mapping[str, Any]


def has_vocabulary(tensor: str) -> bool:
    """Whether an axis of a tensor counts tokens."""
    return any(part in tensor for part in _VOCABULARY)


def _evaluated(setting: Any, tensor: str, t: float) -> Any:
    if not isinstance(setting, list):
        return setting
    if not isinstance(setting[0], dict):
        place = t * (len(setting) - 1)
        low = int(place)
        high = min(low + 1, len(setting) - 1)
        return (1 - (place - low)) * setting[low] + (place - low) * setting[high]
    for entry in setting:
        if entry.get("filter", "*") in ("*", tensor) or entry["filter"] in tensor:
            return _evaluated(entry["value"], tensor, t)
    return None


def _first(name: str, scopes: Iterable[Mapping[str, Any]], tensor: str, t: float) -> Any:
    for scope in scopes:
        if name in scope:
            value = _evaluated(scope[name], tensor, t)
            if value is not None:
                return value
    return None


def inputs_of(document: Mapping[str, Any], tensor: str) -> tuple[list[Input], dict[str, Any]]:
    """Return what makes one output tensor: its inputs, and the parameters of the whole merge."""
    base = document.get("base_model")
    everywhere = document.get("parameters", {})
    match = _LAYER.search(tensor)
    if "models" in document:
        listed = [(m["model"], m.get("parameters", {}), 0) for m in document["models"]]
        if base and base not in [name for name, *_ in listed]:
            listed.append((base, {}, 0))
        scopes = [everywhere]
        length, offset = LAYERS, int(match[2]) if match else 0
    else:
        part, offset, length = _slice(document["slices"], match, tensor)
        listed = [
            (s["model"], s.get("parameters", {}), s["layer_range"][0]) for s in part["sources"]
        ]
        scopes = [part.get("parameters", {}), everywhere]
    t = (offset / (length - 1) if length > 1 else 1.0) if match else 0.0
    inputs = []
    for name, own, start in listed:
        source = _LAYER.sub(rf".\1.{start + offset}.", tensor, count=1) if match else tensor
        values = {key: _first(key, [own, *scopes], source, t) for key in EACH}
        held = {key: value for key, value in values.items() if value is not None}
        inputs.append(Input(name, source, name == base, held))
    shared = {
        key: _first(key, scopes, tensor, t) for scope in scopes for key in scope if key not in EACH
    }
    # ram and ramplus_tl have one epsilon for the whole merge
    shared["epsilon"] = _first("epsilon", scopes, tensor, t)
    return inputs, {key: value for key, value in shared.items() if value is not None}


def _slice(
    slices: list[dict[str, Any]], match: re.Match[str] | None, tensor: str
) -> tuple[dict[str, Any], int, int]:
    if match is None:
        return slices[-1 if tensor.startswith(_LAST) else 0], 0, 0
    layer = int(match[2])
    for part in slices:
        first, last = part["sources"][0]["layer_range"]
        if layer < last - first:
            return part, layer, last - first
        layer -= last - first
    raise ValueError(f"{tensor} is in no slice")
