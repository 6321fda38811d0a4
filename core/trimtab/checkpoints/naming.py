"""Tells from a tensor's name which layer, module and expert it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Zone = Literal["in", "layer", "out"]

#: row order of the heatmap; anything not named here follows in alphabetical order
MODULE_ORDER = (
    "q", "k", "v", "qkv", "o", "router", "gate", "up", "gate_up", "fc1", "down", "fc2",
    "norm", "embed", "position", "head",
)  # fmt: skip

# Leaf component -> module, for the llama, qwen, mistral, gemma, phi, gpt2, gpt-neox and mixtral
# families as transformers names them. Norms are recognised by pattern below.
_LEAF = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "qkv_proj": "qkv", "c_attn": "qkv", "query_key_value": "qkv", "Wqkv": "qkv", "qkv": "qkv",
    "dense": "o", "wq": "q", "wk": "k", "wv": "v", "wo": "o",
    "query": "q", "key": "k", "value": "v",
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "gate_up_proj": "gate_up",
    "w1": "gate", "w3": "up", "w2": "down",
    "fc1": "fc1", "fc2": "fc2", "c_fc": "fc1",
    "dense_h_to_4h": "fc1", "dense_4h_to_h": "fc2",
    "embed_tokens": "embed", "wte": "embed", "embed_in": "embed", "word_embeddings": "embed",
    "tok_embeddings": "embed",
    "wpe": "position", "embed_positions": "position",
    "lm_head": "head", "embed_out": "head", "output": "head",
    "router": "router", "shared_expert_gate": "router",
}  # fmt: skip

# five digits: a longer number is no layer's, and would not fit the columns
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks?|layer)\.([0-9]{1,5})\.")
_EXPERT = re.compile(r"(?:^|\.)experts\.([0-9]{1,5})\.")
_NORM = re.compile(r"(?:^|_)(?:norm|layernorm|ln|rmsnorm)(?:$|_|\d)|layer_norm|^ln_|norm$")
_TOWER = re.compile(r"(?:^|\.)(vision\w*|visual|audio\w*|multi_modal_projector|mm_projector)\.")
_PARTS = frozenset({"weight", "bias"})


@dataclass(frozen=True)
class TensorName:
    """A tensor's place in the model.

    `zone` is "in" before the first block, "layer" inside one and "out" behind the last;
    `layer` and `expert` are None where there is none; `module` is a short name such as "q".
    """

    zone: Zone
    layer: int | None
    module: str
    expert: int | None

    @property
    def row(self) -> str:
        """The heatmap row: the module, with its expert where it has one."""
        return self.module if self.expert is None else f"{self.module} e{self.expert}"

    @property
    def label(self) -> str:
        """A short label such as "L18 · down" for captions."""
        return self.row if self.layer is None else f"L{self.layer} · {self.row}"


# a plan is made of the same names again with every move of a slider
@lru_cache(maxsize=1 << 16)
def parse(name: str) -> TensorName:
    """Place `name`; a name of no known family keeps its last component as the module."""
    tower_match = _TOWER.search(name)
    block = _BLOCK.search(name)
    expert_match = _EXPERT.search(name)
    rest = name[block.end() :] if block else name
    components = rest.split(".")
    if len(components) > 1 and components[-1] in _PARTS:
        components.pop()
    module = _module(components)
    expert = int(expert_match.group(1)) if expert_match else None
    if tower_match:
        # a tower's own blocks are not the text model's layers: one row for all of it
        return TensorName("in", None, tower_match.group(1), None)
    if block:
        return TensorName("layer", int(block.group(1)), module, expert)
    return TensorName("in" if module in ("embed", "position") else "out", None, module, expert)


def _module(components: list[str]) -> str:
    leaf = components[-1]
    parent = components[-2] if len(components) > 1 else ""
    if leaf == "gate":
        return "router"
    if leaf == "c_proj":
        return "o" if "attn" in parent else "fc2"
    if _NORM.search(leaf):
        return "norm"
    return _LEAF.get(leaf, leaf)


_NUMBERS = re.compile(r"([0-9]+)")
NaturalKey = tuple[list[str], str]


def natural_key(name: str) -> NaturalKey:
    """Sort key in which "layers.2" comes before "layers.10"; no two names share one."""
    parts = _NUMBERS.split(name)
    # a number as text that sorts like it: its length first, whatever that length is
    parts[1::2] = [f"{len(digits):08d}{digits}" for digits in (p.lstrip("0") for p in parts[1::2])]
    return parts, name


def module_key(row: str) -> tuple[int, NaturalKey]:
    """Sort key for heatmap rows: the known modules in reading order, then the rest."""
    module = row.split(" e")[0]
    rank = MODULE_ORDER.index(module) if module in MODULE_ORDER else len(MODULE_ORDER)
    return rank, natural_key(row)
