"""Finds the stored tensors that an adapter's names of modules and parameters stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from trimtab.errors import UserError

#: the order in which a module of experts holds its parameters: PEFT wraps them from inside out
EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
# what the halves of a stacked parameter are called where each expert is stored alone
_EXPERT_PARTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
# models whose stacked experts are [expert, in, out]
_EXPERTS_IN_OUT = ("gpt_oss", "openai_privacy_filter", "aria", "aria_text")
# models with layers that store [in, out], and what those are called
_LAYERS_IN_OUT = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
_NAMES_IN_OUT = ("c_attn", "q_attn", "c_proj", "c_fc")


def unsupported(name: str, feature: str) -> UserError:
    """The error for an adapter that does what cannot be applied."""
    return UserError(
        "adapter_unsupported",
        f"{name} uses {feature}, which Trimtab cannot apply.",
        "Applying the rest without it would give wrong weights.",
        "Merge the adapter into its model with PEFT first, then open the result.",
    )


def malformed(name: str, why: str) -> UserError:
    """The error for an adapter whose config and weights do not fit each other."""
    return UserError(
        "adapter_malformed",
        f"{name} contradicts itself.",
        why,
        "Config and weights belong to different adapters: get both from one place.",
    )


def _spellings(name: str) -> Iterable[str]:
    """Return `name` and what transformers calls the same tensor in a file."""
    yield name
    # Mixtral's blocks; a checkpoint of the model without its head
    yield name.replace(".mlp.", ".block_sparse_moe.")
    for prefix in ("model.", "transformer."):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)


def stored_name(name: str, targets: Collection[str]) -> str:
    """Return the name that the tensor `name` has among `targets`, or `name` if it has none."""
    return next((spelling for spelling in _spellings(name) if spelling in targets), name)


def expert_tensors(parameter: str, targets: Collection[str]) -> list[tuple[str, ...]]:
    """Return the names of the tensors that the stacked `parameter` is stored as, per expert.

    Several where the parameter joins them along its outputs; none where it is stored as it is.
    """
    module, _, leaf = parameter.rpartition(".")
    if stored_name(parameter, targets) in targets:
        return []
    for spelling in _spellings(module):
        for parts in _EXPERT_PARTS.get(leaf, ()):
            found: list[tuple[str, ...]] = []
            while all(f"{spelling}.{len(found)}.{part}.weight" in targets for part in parts):
                found.append(tuple(f"{spelling}.{len(found)}.{part}.weight" for part in parts))
            if found:
                return found
    return []


def bare_parameters(
    adapter: str,
    config: Mapping[str, Any],
    modules: Collection[tuple[str, int]],
    targets: Collection[str],
) -> dict[tuple[str, int], str]:
    """Tell which factors belong to a bare parameter, and to which: (module, depth) -> its leaf.

    `depth` counts the wrappers around which a module's factors lie: PEFT names no parameter, but
    wraps one around the other. Raises `UserError` with `adapter_malformed` and
    `adapter_unsupported`.
    """
    given = config.get("target_parameters") or ()
    if not isinstance(given, list | tuple) or not all(isinstance(key, str) for key in given):
        raise malformed(adapter, "Its target_parameters are no list of names.")
    depths: dict[str, list[int]] = {}
    for module, depth in modules:
        depths.setdefault(module, []).append(depth)
    found: dict[tuple[str, int], str] = {}
    for module, levels in depths.items():
        leaves = {
            leaf
            for path, _, leaf in (key.rpartition(".") for key in given)
            if f".{module}".endswith(f".{path}" if path else "")
            and (
                stored_name(f"{module}.{leaf}", targets) in targets
                or expert_tensors(f"{module}.{leaf}", targets)
            )
        }
        if not leaves and levels == [0]:
            continue
        if len(leaves) > 1 and not leaves <= set(EXPERT_PARAMETERS):
            raise unsupported(adapter, f"LoRA on several bare parameters of {module}")
        if sorted(levels) != list(range(len(leaves))):
            raise malformed(
                adapter,
                f"It has {len(levels)} pairs of factors for parameters of {module}; "
                f"its target_parameters name {len(leaves)} that the model has.",
            )
        inside_out = sorted(leaves, key=EXPERT_PARAMETERS.index) if len(leaves) > 1 else leaves
        found |= {
            (module, depth): leaf
            for depth, leaf in zip(sorted(levels, reverse=True), inside_out, strict=True)
        }
    return found


def is_transposed(
    name: str,
    straight: tuple[int, ...],
    shape: tuple[int, ...] | None,
    config: Mapping[str, Any],
    model_config: Mapping[str, Any],
    stacked: bool = False,
) -> bool:
    """Whether the layer or parameter `name` stores [in, out] and not `straight`, [out, in].

    The shape tells, unless it is square; then the kind of model does, and at last the adapter's
    `fan_in_fan_out`, which PEFT changes as it meets layers of either kind.
    """
    if shape is not None and straight[0] != straight[1]:
        return shape != straight and shape == straight[::-1]
    kinds = {model_config.get("model_type")}
    if isinstance(text := model_config.get("text_config"), Mapping):
        kinds.add(text.get("model_type"))
    if stacked:
        return not kinds.isdisjoint(_EXPERTS_IN_OUT)
    if kinds != {None}:
        leaf = name.rpartition(".")[2]
        return leaf in _NAMES_IN_OUT and not kinds.isdisjoint(_LAYERS_IN_OUT)
    return bool(config.get("fan_in_fan_out"))
