"""Maps a PEFT LoRA adapter onto the tensors of the model it was trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.checkpoints.adapter_names import (
    bare_parameters,
    expert_tensors,
    is_transposed,
    malformed,
    stored_name,
    unsupported,
)
from trimtab.checkpoints.index import Checkpoint
from trimtab.errors import UserError

_PREFIX = re.compile(r"^base_model\.model\.")
_WRAPPERS = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_FACTOR = re.compile(
    r"^(?P<module>.+)\.lora_(?:(?P<kind>embedding_)?(?P<side>[AB])|(?P<magnitude>magnitude_vector))"
    r"(?:\.default)?(?:\.(?P<leaf>weight|bias))?$"
)
_DEPTH = re.compile(r"(?:\.base_layer)*$")
_TOKENS = re.compile(r"^(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?$")


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: `scale * B @ A`, transposed when the layer stores [in, out].

    `a` and `b` are rows of the adapter's index; A is [rank, in], B is [out, rank]. With
    `magnitude` (DoRA, Liu et al. 2024, eq. 5), a row of the index that holds [out], the changed
    weight is scaled so that its part for each output has that norm: `out` means the rows, or the
    columns where it is transposed.

    Of stacked experts the factors hold all: A [experts * rank, in], B [out, rank * experts]. The
    stored tensor is then [experts, ...], or with `expert` that expert's alone, which begins at
    row `first_out` of its B.
    """

    a: int
    b: int
    rank: int
    scale: float
    transposed: bool
    magnitude: int | None = None
    experts: int = 1
    expert: int | None = None
    first_out: int = 0

    @property
    def label(self) -> str:
        """Short text for plans, such as "LoRA r=32"."""
        return f"{'LoRA' if self.magnitude is None else 'DoRA'} r={self.rank}"


@dataclass(frozen=True)
class AddedBias:
    """The change of one bias: plus `scale` times row `row` of the adapter's index, [out]."""

    row: int
    scale: float

    @property
    def label(self) -> str:
        """Short text for plans."""
        return "LoRA bias"


@dataclass(frozen=True)
class TokenRows:
    """New rows of an embedding: row `tokens[i]` becomes row i of `row` of the adapter's index."""

    row: int
    tokens: tuple[int, ...]

    @property
    def label(self) -> str:
        """Short text for plans, such as "3 trained tokens"."""
        return f"{len(self.tokens)} trained token{'s' if len(self.tokens) > 1 else ''}"


Change = LowRank | AddedBias | TokenRows


@dataclass(frozen=True)
class AdapterMap:
    """What an adapter does, by name of the target tensor: a change or a replacement.

    With both for one name, the replacement is what the change is added to.
    """

    changes: Mapping[str, Change]
    replaced: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.changes.keys() | self.replaced.keys())


def _refuse_other_kinds(name: str, config: Mapping[str, Any]) -> None:
    kind = str(config.get("peft_type", "LORA"))
    if kind != "LORA":
        raise unsupported(name, f"the adapter type {kind}")
    start = str(config.get("init_lora_weights", True)).casefold()
    if start.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise unsupported(name, f"{start} factors, which belong to a changed copy of the base")
    for key, feature in (
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
            raise unsupported(name, feature)


def _pattern_value(pattern: Mapping[str, Any], module: str, default: Any) -> float:
    """Look `module` up as PEFT does: a key is a suffix of the module path, or a regex for one."""
    for key, value in pattern.items():
        if re.match(rf"(?:.*\.)?(?:{key})$", module):
            return float(value)
    return float(default)


def adapter_map(
    adapter: Checkpoint,
    targets: Mapping[str, tuple[int, ...]],
    model_config: Mapping[str, Any] | None = None,
) -> AdapterMap:
    """Work out what `adapter` does to a model with the tensors `targets` (name -> shape).

    dW = (alpha / r) B A, with rank-stabilised scaling alpha / sqrt(r) (Hu et al. 2021, eq. 3;
    Kalajdzievski 2023); everything else as PEFT merges it. `model_config` is the model's
    config.json: where a matrix is square, only the kind of model tells how it is stored. Raises
    `UserError` with `adapter_unsupported`, `adapter_malformed` and `adapter_other_base` when a
    target is missing or the shapes do not fit.
    """
    _refuse_other_kinds(adapter.name, adapter.config)
    mapper = _Mapper(adapter, targets, model_config or {})
    modules: dict[tuple[str, int], dict[str, int]] = {}
    for row, name in enumerate(adapter.index.names):
        bare = _PREFIX.sub("", name)
        if match := _FACTOR.match(bare):
            module = _WRAPPERS.sub("", match["module"] + ".")[:-1]
            # parameters of one module are wrapped one around the other
            depth = len(re.findall(r"\.base_layer", _DEPTH.findall(match["module"])[0]))
            part = match["side"] or "magnitude"
            if match["leaf"] == "bias":
                part += " bias"
            elif match["kind"]:
                part = f"embedding {part}"
            modules.setdefault((module, depth), {})[part] = row
        elif match := _TOKENS.match(bare):
            mapper.add_tokens(_WRAPPERS.sub("", match["module"] + ".")[:-1], row)
        else:
            mapper.replace(_WRAPPERS.sub("", bare), row)
    bare_targets = bare_parameters(adapter.name, adapter.config, modules.keys(), targets)
    for key, parts in modules.items():
        mapper.add_factors(key[0], parts, bare_targets.get(key))
    return AdapterMap(mapper.changes, mapper.replaced)


class _Mapper:
    """Collects changes and replacements, and checks that each fits its target."""

    def __init__(
        self,
        adapter: Checkpoint,
        targets: Mapping[str, tuple[int, ...]],
        model_config: Mapping[str, Any],
    ):
        self.changes: dict[str, Change] = {}
        self.replaced: dict[str, int] = {}
        self._adapter = adapter
        self._name = adapter.name
        self._config = adapter.config
        self._shapes = adapter.index.shapes
        self._targets = targets
        self._model_config = model_config

    def replace(self, name: str, row: int) -> None:
        """The tensor `name` is `row` of the adapter."""
        target = stored_name(name, self._targets)
        self._require(target, self._shapes[row])
        self.replaced[target] = row

    def add_tokens(self, module: str, row: int) -> None:
        """Some rows of the embedding `module` are those of `row` of the adapter."""
        target = stored_name(module + ".weight", self._targets)
        given = self._config.get("trainable_token_indices")
        if isinstance(given, Mapping):
            given = next((v for key, v in given.items() if f".{module}".endswith(f".{key}")), None)
        shape, rows = self._targets.get(target, ()), self._shapes[row]
        if len(rows) != 2:
            raise malformed(self._name, f"The rows it holds for {target} are {list(rows)}.")
        self._require(target, (*shape[:1], rows[1]))
        if (
            not isinstance(given, list)
            or not all(type(t) is int and 0 <= t < shape[0] for t in given)
            or len(set(given)) != len(given)
            or len(given) != rows[0]
        ):
            raise malformed(
                self._name,
                f"It holds {rows[0]} rows for {target}, and its "
                "trainable_token_indices do not say which.",
            )
        self.changes[target] = TokenRows(row, tuple(given))

    def add_factors(self, module: str, parts: Mapping[str, int], parameter: str | None) -> None:
        """The factors of `module`, or of its bare parameter `parameter`."""
        embedding = "embedding A" in parts or "embedding B" in parts
        kind = "embedding " if embedding else ""
        leaf = parameter or "weight"
        target = stored_name(f"{module}.{leaf}", self._targets)
        if not {f"{kind}A", f"{kind}B"} <= parts.keys():
            raise UserError(
                "adapter_malformed",
                f"{self._name} is incomplete.",
                f"Of the two factors for {target} one is missing.",
                "Save or download the adapter again.",
            )
        a, b = parts[f"{kind}A"], parts[f"{kind}B"]
        if any(len(self._shapes[row]) != 2 for row in (a, b)):
            raise unsupported(self._name, f"LoRA on {target}, which is no matrix")
        named = f"{module}.{parameter}" if parameter else module
        if parameter:
            self._add_parameter(named, target, a, b)
            return
        rank, scale = self._rank_and_scale(named, target, a, b, 1)
        straight = (self._shapes[b][0], self._shapes[a][1])
        transposed = embedding or is_transposed(
            module, straight, self._targets.get(target), self._config, self._model_config
        )
        self._require(target, straight[::-1] if transposed else straight)
        magnitude = parts.get("magnitude")
        self._check_magnitude(target, magnitude, straight[0])
        self.changes[target] = LowRank(a, b, rank, scale, transposed, magnitude)
        if (bias := parts.get("B bias")) is not None:
            self._add_bias(module, bias, scale)

    def _rank_and_scale(
        self, named: str, target: str, a: int, b: int, experts: int
    ) -> tuple[int, float]:
        config, shapes = self._config, (self._shapes[a], self._shapes[b])
        rank, rest = divmod(shapes[0][0], experts)
        try:
            declared = _pattern_value(
                config.get("rank_pattern") or {}, named, config.get("r") or rank
            )
            alpha = _pattern_value(
                config.get("alpha_pattern") or {}, named, config.get("lora_alpha", rank)
            )
            scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        except (re.error, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise malformed(self._name, f"Its rank or alpha for {target}: {error}.") from error
        if rest or declared != rank or shapes[1][1] != shapes[0][0] or not math.isfinite(scale):
            raise malformed(
                self._name,
                f"For {target} the config says rank {declared:g} and alpha {alpha:g}; the factors "
                f"have {list(shapes[0])} and {list(shapes[1])}.",
            )
        return rank, scale

    def _check_magnitude(self, target: str, magnitude: int | None, out: int) -> None:
        if bool(self._config.get("use_dora")) != (magnitude is not None):
            raise malformed(
                self._name,
                f"Its config says {'' if magnitude is None else 'not '}to use DoRA, and for "
                f"{target} it has {'no' if magnitude is None else 'a'} vector of magnitudes.",
            )
        if magnitude is not None and self._shapes[magnitude] != (out,):
            raise malformed(
                self._name,
                f"The magnitudes for {target} are {list(self._shapes[magnitude])}; {out} are due.",
            )

    def _add_bias(self, module: str, row: int, scale: float) -> None:
        target = stored_name(module + ".bias", self._targets)
        if target not in self._targets:
            raise unsupported(self._name, f"a bias for {module}, which has none in the model")
        self._require(target, self._shapes[row])
        self.changes[target] = AddedBias(row, scale)

    def _add_parameter(self, named: str, target: str, a: int, b: int) -> None:
        """The change of a bare parameter: a matrix, or experts stacked or stored one by one."""
        from_experts = expert_tensors(named, self._targets)
        out, width = self._shapes[b][0], self._shapes[a][1]
        shape = self._targets.get(target, ())
        if from_experts:
            experts = len(from_experts)
        else:
            experts = max(1, shape[0]) if len(shape) == 3 else 1
        rank, scale = self._rank_and_scale(named, target, a, b, experts)
        if not from_experts:
            transposed = len(shape) == 3 and is_transposed(
                named, (out, width), shape[1:], self._config, self._model_config, stacked=True
            )
            fits = (width, out) if transposed else (out, width)
            self._require(target, (*shape[:-2], *fits))
            self.changes[target] = LowRank(a, b, rank, scale, transposed, experts=experts)
            return
        for expert, names in enumerate(from_experts):
            first = 0
            for name in names:
                rows = (self._targets[name] or (0,))[0]
                self._require(name, (rows, width))
                self.changes[name] = LowRank(
                    a, b, rank, scale, False, experts=experts, expert=expert, first_out=first
                )
                first += rows
            if first != out:
                self._require(target, (experts, out, width))

    def _require(self, name: str, shape: tuple[int, ...]) -> None:
        found = self._targets.get(name)
        if found == tuple(shape):
            return
        why = f"It changes {name}, " + (
            "which this model does not have as a tensor of its own."
            if found is None
            else f"which has shape {list(found)} here and {list(shape)} there."
        )
        base = self._config.get("base_model_name_or_path")
        raise UserError(
            "adapter_other_base",
            f"{self._name} was made for another model.",
            why,
            f"Open it beside its own base{f', {base}' if base else ''}.",
        )
