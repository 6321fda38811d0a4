"""Decides, from names and shapes alone, how PEFT can hold the change of each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.checkpoints.adapter_names import EXPERT_PARAMETERS, expert_tensors, is_transposed
from trimtab.checkpoints.naming import parse

Kind = Literal["linear", "embedding", "router", "experts"]
_FIRST_EXPERT = re.compile(r"^(?P<module>.+\.experts)\.0\.")


@dataclass(frozen=True)
class Target:
    """Something that gets a pair of factors.

    `module` is its name in the model as PEFT knows it, `leaf` the parameter. Its change is one
    matrix [out, in], or one per expert: `parts` holds the names of the tensors that follow one
    another along the outputs, per matrix; where experts are stacked in one tensor, that one's
    name alone, and `experts` says how many there are.
    """

    kind: Kind
    module: str
    leaf: str
    parts: tuple[tuple[str, ...], ...]
    transposed: bool = False
    experts: int = 1

    @property
    def is_parameter(self) -> bool:
        """Whether PEFT must be told of a bare parameter, and not of a layer."""
        return self.kind in ("router", "experts")

    @property
    def name(self) -> str:
        """The name of the weight in the model."""
        return f"{self.module}.{self.leaf}"

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all stored tensors that it stands for."""
        return tuple(name for names in self.parts for name in names)


@dataclass
class Targets:
    """What gets factors, what can only be written whole, and what must be left out and why."""

    factored: list[Target] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_targets(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], embeddings: bool
) -> Targets:
    """Sort the tensors `shapes` (name -> shape) of a model with this config.json.

    Matrices become targets, those of the vocabulary only with `embeddings`.
    """
    found = Targets()
    taken: set[str] = set()
    for target in _expert_targets(shapes, config):
        found.factored.append(target)
        taken.update(target.tensors)
    for name, shape in shapes.items():
        if name in taken:
            continue
        module, _, leaf = name.rpartition(".")
        role = parse(name).module
        if leaf == "weight" and len(shape) == 2 and 0 not in shape:
            if role == "head" and config.get("tie_word_embeddings"):
                found.left_out[name] = "is tied to the embedding"
            elif role in ("embed", "position", "head") and not embeddings:
                found.left_out[name] = "belongs to the vocabulary"
            elif role in ("embed", "position"):
                found.factored.append(Target("embedding", module, leaf, ((name,),), True))
            elif role == "router":
                found.factored.append(Target("router", _in_model(module), leaf, ((name,),)))
            else:
                transposed = is_transposed(module, (0, 0), (0, 0), {}, config)
                found.factored.append(Target("linear", module, leaf, ((name,),), transposed))
        elif leaf in ("weight", "bias") and module:
            found.whole.append(name)
        else:
            found.left_out[name] = "is a parameter that PEFT cannot save by itself"
    return found


def _in_model(module: str) -> str:
    """Return the name that a module of a Mixtral file has in the model."""
    return module.replace(".block_sparse_moe.", ".mlp.")


def _expert_targets(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> list[Target]:
    """Return the stacked parameters of all modules of experts, however they are stored."""
    modules = dict.fromkeys(
        _in_model(match["module"]) for name in shapes if (match := _FIRST_EXPERT.match(name))
    )
    found = [
        Target("experts", module, leaf, tuple(parts), experts=len(parts))
        for module in modules
        for leaf in EXPERT_PARAMETERS
        if (parts := expert_tensors(f"{module}.{leaf}", shapes))
        and len({tuple(shapes[name] for name in names) for names in parts}) == 1
        and all(len(shapes[name]) == 2 for name in parts[0])
        and len({shapes[name][1] for name in parts[0]}) == 1
    ]
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if leaf in EXPERT_PARAMETERS and len(shape) == 3 and 0 not in shape:
            transposed = is_transposed(name, (0, 0), (0, 0), {}, config, stacked=True)
            found.append(Target("experts", module, leaf, ((name,),), transposed, shape[0]))
    return found
