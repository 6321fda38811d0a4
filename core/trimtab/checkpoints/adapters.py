"""Maps a PEFT LoRA adapter onto the tensors of the model it was trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.checkpoints.index import Checkpoint
from trimtab.errors import UserError

_PREFIX = re.compile(r"^base_model\.model\.")
_WRAPPERS = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_FACTOR = re.compile(
    r"^(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.default)?(?:\.weight)?$"
)


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: `scale * B @ A`, transposed when the layer stores [in, out].

    `a` and `b` are rows of the adapter's index; A is [rank, in], B is [out, rank].
    """

    a: int
    b: int
    rank: int
    scale: float
    transposed: bool

    @property
    def label(self) -> str:
        """Short text for plans, such as "LoRA r=32"."""
        return f"LoRA r={self.rank}"


@dataclass(frozen=True)
class AdapterMap:
    """What an adapter does, by name of the target tensor: a low-rank change or a replacement."""

    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, int]


def _unsupported(name: str, feature: str) -> UserError:
    return UserError(
        "adapter_unsupported",
        f"{name} uses {feature}, which Trimtab cannot apply yet.",
        "Applying the rest without it would give wrong weights.",
        "Merge the adapter into its model with PEFT first, then open the result.",
    )


def _refuse_other_kinds(name: str, config: Mapping[str, Any]) -> None:
    kind = str(config.get("peft_type", "LORA"))
    if kind != "LORA":
        raise _unsupported(name, f"the adapter type {kind}")
    start = str(config.get("init_lora_weights", True)).casefold()
    if start.startswith(("pissa", "olora", "corda", "loftq", "mica", "lora_ga")):
        raise _unsupported(name, f"{start} factors, which belong to a changed copy of the base")
    for key, feature in (
        ("use_dora", "DoRA"),
        ("lora_bias", "LoRA biases"),
        ("trainable_token_indices", "trained token rows"),
        ("target_parameters", "LoRA on bare parameters"),
        ("layer_replication", "layer replication"),
        ("alora_invocation_tokens", "activated LoRA"),
        ("use_qalora", "QALoRA"),
        ("use_bdlora", "block-diagonal LoRA"),
        ("arrow_config", "Arrow routing"),
        ("kasa_config", "KaSA"),
        ("monteclora_config", "MonteCLoRA"),
        ("velora_config", "VeLoRA"),
    ):
        if config.get(key):
            raise _unsupported(name, feature)
    if config.get("bias", "none") != "none":
        raise _unsupported(name, "trained biases")


def _pattern_value(pattern: Mapping[str, Any], module: str, default: Any) -> float:
    """Look `module` up as PEFT does: a key is a suffix of the module path, or a regex for one."""
    for key, value in pattern.items():
        if re.match(rf"(?:.*\.)?(?:{key})$", module):
            return float(value)
    return float(default)


def _malformed(name: str, why: str) -> UserError:
    return UserError(
        "adapter_malformed",
        f"{name} contradicts itself.",
        why,
        "Config and weights belong to different adapters: get both from one place.",
    )


def adapter_map(adapter: Checkpoint, targets: Mapping[str, tuple[int, ...]]) -> AdapterMap:
    """Work out what `adapter` does to a model with the tensors `targets` (name -> shape).

    dW = (alpha / r) B A, with rank-stabilised scaling alpha / sqrt(r) (Hu et al. 2021, eq. 3;
    Kalajdzievski 2023). Raises `UserError` with `adapter_unsupported`, `adapter_malformed` and
    `adapter_other_base` when a target is missing or the shapes do not fit.
    """
    config = adapter.config
    _refuse_other_kinds(adapter.name, config)
    sides: dict[str, dict[str, int]] = {}
    embedding: set[str] = set()
    replaced: dict[str, int] = {}
    for row, name in enumerate(adapter.index.names):
        bare = _PREFIX.sub("", name)
        match = _FACTOR.match(bare)
        if match:
            target = _WRAPPERS.sub("", match["module"] + ".weight")
            sides.setdefault(target, {})[match["side"]] = row
            if match["kind"]:
                embedding.add(target)
        else:
            replaced[_WRAPPERS.sub("", bare)] = row
    low_rank = {
        target: _low_rank(adapter, target, rows, target in embedding, targets.get(target))
        for target, rows in sides.items()
    }
    _check_fit(adapter, low_rank, replaced, targets)
    return AdapterMap(low_rank, replaced)


def _low_rank(
    adapter: Checkpoint,
    target: str,
    rows: Mapping[str, int],
    embedding: bool,
    shape: tuple[int, ...] | None,
) -> LowRank:
    config = adapter.config
    if set(rows) != {"A", "B"}:
        raise UserError(
            "adapter_malformed",
            f"{adapter.name} is incomplete.",
            f"Of the two factors for {target} one is missing.",
            "Save or download the adapter again.",
        )
    a, b = (adapter.index.shapes[rows[side]] for side in "AB")
    if len(a) != 2 or len(b) != 2:
        raise _unsupported(adapter.name, f"LoRA on {target}, which is no matrix")
    module, rank = target.removesuffix(".weight"), a[0]
    try:
        declared = _pattern_value(config.get("rank_pattern") or {}, module, config.get("r") or rank)
        alpha = _pattern_value(
            config.get("alpha_pattern") or {}, module, config.get("lora_alpha", rank)
        )
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    except (re.error, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _malformed(adapter.name, f"Its rank or alpha for {target}: {error}.") from error
    if declared != rank or b[1] != rank or not math.isfinite(scale):
        raise _malformed(
            adapter.name,
            f"For {target} the config says rank {declared:g} and alpha {alpha:g}; the factors "
            f"have {list(a)} and {list(b)}.",
        )
    # PEFT transposes by the kind of layer, and one config may cover both kinds
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    straight = (b[0], a[1])
    if not embedding and shape in (straight, straight[::-1]) and straight[0] != straight[1]:
        transposed = shape != straight
    return LowRank(rows["A"], rows["B"], rank, scale, transposed)


def _check_fit(
    adapter: Checkpoint,
    low_rank: Mapping[str, LowRank],
    replaced: Mapping[str, int],
    targets: Mapping[str, tuple[int, ...]],
) -> None:
    for name, change in low_rank.items():
        fits = (adapter.index.shapes[change.b][0], adapter.index.shapes[change.a][-1])
        expected = fits[::-1] if change.transposed else fits
        _require(adapter, name, expected, targets)
    for name, row in replaced.items():
        _require(adapter, name, adapter.index.shapes[row], targets)


def _require(
    adapter: Checkpoint, name: str, shape: tuple[int, ...], targets: Mapping[str, tuple[int, ...]]
) -> None:
    if targets.get(name) == tuple(shape):
        return
    found = targets.get(name)
    why = f"It changes {name}, " + (
        "which this model does not have."
        if found is None
        else f"which has shape {list(found)} here and {list(shape)} there."
    )
    base = adapter.config.get("base_model_name_or_path")
    raise UserError(
        "adapter_other_base",
        f"{adapter.name} was made for another model.",
        why,
        f"Open it beside its own base{f', {base}' if base else ''}.",
    )
