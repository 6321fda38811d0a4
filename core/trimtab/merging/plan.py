"""What a merge is once it is worked out: its tensors, shards, pieces of work, and their account."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab import __version__
from trimtab.checkpoints import Lineup, Source
from trimtab.checkpoints.dtypes import BY_CODE
from trimtab.kernels.piece import Outline
from trimtab.masks.stack import TensorMask
from trimtab.merging.layout import Shard
from trimtab.merging.recipe import Recipe
from trimtab.methods import MergeMethod
from trimtab.methods.registry import package_of

#: elements per work item: what is journalled and resumed as one piece
ITEM = 1 << 22

Action = Literal["merged", "copied", "converted"]


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: what is done, from which models, and where its bytes go.

    `origin` is where it is copied from or, when it is merged, the reference. `base` is the base
    model's tensor for a method that asks for it. `ratios` and `keys`
    (of random masks) hold a number for each entry of `models`, `parameters` are the method's: one
    value, or a tuple with one for each model. `masks` are the models', () where none is masked;
    True keeps and False removes all of it. With `selects` the result is the one model's where its
    mask says so, and the reference's elsewhere. `offset` is in bytes from the start of the file of
    shard number `shard`.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    dtype: str
    action: Action
    why: str
    origin: Source
    models: tuple[Source, ...]
    ratios: tuple[float, ...]
    model_names: tuple[str, ...]
    keys: tuple[int, ...]
    parameters: Mapping[str, Any]
    shard: int = 0
    offset: int = 0
    base: Source | None = None
    masks: tuple[TensorMask | bool, ...] = ()
    selects: bool = False

    @property
    def masked(self) -> tuple[str, ...]:
        """What tells the models' masks from others, empty where none of them is masked."""
        return tuple(m.signature if isinstance(m, TensorMask) else str(m) for m in self.masks)

    @property
    def nbytes(self) -> int:
        """Bytes of this tensor in the output."""
        return BY_CODE[self.dtype].nbytes(self.numel)

    @property
    def outline(self) -> Outline:
        """What a method is told of it before it is read."""
        return Outline(self.shape, self.numel, self.ratios)


@dataclass(frozen=True)
class WorkItem:
    """Elements [low, high) of a planned tensor; `unit` is its place among the tensor's items."""

    number: int
    tensor: PlannedTensor
    low: int
    high: int
    unit: int


@dataclass(frozen=True)
class Plan:
    """A merge, worked out but not begun.

    `config` is what changes in the reference's config.json, `files` are made for the output beside
    it, such as a tokenizer's, and `dropped` are files of the reference's that it must not have.
    `vocabulary` is a digest of where the rows of a new vocabulary come from.
    """

    recipe: Recipe
    lineup: Lineup = field(repr=False)
    method: MergeMethod = field(repr=False)
    tensors: tuple[PlannedTensor, ...] = field(repr=False)
    shards: tuple[Shard, ...] = field(repr=False)
    items: tuple[WorkItem, ...] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    dropped: frozenset[str] = frozenset()
    vocabulary: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The recipe's own parameters: what a report says of the method."""
        return {k: _shown(v) for k, v in self.recipe.parameters.items()}

    @property
    def bytes_out(self) -> int:
        """Bytes of the weight files to be written."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def bytes_data(self) -> int:
        """Bytes of all tensors in the output: what is to be written but for the headers."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bytes_in(self) -> int:
        """Bytes of the inputs that count, each once; adapters' factors not counted."""
        return sum(stored_bytes(s) for t in self.tensors for s in sources_read(t))

    @property
    def counts(self) -> dict[str, int]:
        """Number of output tensors by what happens to them."""
        return dict(Counter(tensor.action for tensor in self.tensors))

    def digest(self) -> str:
        """Hex digest of all that the output's bytes depend on."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.lineup.fingerprint.encode())
        digest.update(
            f"{__version__} {ITEM} {self.method.name} {package_of(self.method)}\n".encode()
        )
        for shard in self.shards:
            digest.update(shard.name.encode() + shard.header)
        for tensor in self.tensors:
            digest.update(
                f"{tensor.action} {tensor.origin.checkpoint.fingerprint} {tensor.origin.row} "
                f"{tensor.model_names} {[s.row for s in tensor.models]} {tensor.ratios} "
                f"{'' if tensor.base is None else tensor.base.row} "
                f"{tensor.keys if self.method.random else ()} "
                f"{sorted(tensor.parameters.items())}"
                f"{f' {tensor.masked} {tensor.selects}' if tensor.masks else ''}\n".encode()
            )
        digest.update(self.vocabulary.encode())
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


def _shown(setting: Any) -> Any:
    if isinstance(setting, list):
        return [v if not hasattr(v, "model_dump") else v.model_dump() for v in setting]
    return setting


def stored_bytes(source: Source) -> int:
    """Return the bytes of the stored tensor behind a source."""
    index = source.checkpoint.index
    return int(index.stop[source.row] - index.start[source.row])


def sources_read(tensor: PlannedTensor) -> tuple[Source, ...]:
    """Return the stored tensors that making `tensor` reads, each once."""
    if tensor.action != "merged":
        return (tensor.origin,)
    others = [s for s in tensor.models if not s.same_bytes_as(tensor.origin)]
    return (tensor.origin, *others, *([] if tensor.base is None else [tensor.base]))


def describe(plan: Plan) -> dict[str, object]:
    """Return the account of every tensor, ready for JSON: the dry run and the final report."""
    return {
        "method": plan.method.name,
        "parameters": dict(plan.parameters),
        "reference": plan.lineup.reference.name,
        "bytes_in": plan.bytes_in,
        "bytes_out": plan.bytes_out,
        "shards": [shard.name for shard in plan.shards],
        "counts": plan.counts,
        "findings": [
            {"level": f.level, "model": f.model, "what": f.what, "effect": f.effect}
            for f in plan.lineup.findings
        ],
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "dtype": BY_CODE[t.dtype].label,
                "action": t.action,
                "why": why_told(t),
                "sources": [source_label(source) for source in sources_read(t)],
                "ratios": dict(zip(t.model_names, t.ratios, strict=True)),
                "parameters": {
                    k: list(v) if isinstance(v, tuple) else v for k, v in t.parameters.items()
                },
                **({"masks": _masks_told(t)} if t.masks else {}),
            }
            for t in plan.tensors
        ],
    }


def why_told(tensor: PlannedTensor) -> str:
    """Return what happens to a tensor and why, with how much of each model its mask keeps."""
    kept = [
        f"{model} masked, {'' if told['counted'] else 'about '}{100 * told['kept']:.3g} % kept"
        for model, told in _masks_told(tensor).items()
    ]
    return "; ".join([tensor.why, *kept])


def _masks_told(tensor: PlannedTensor) -> dict[str, dict[str, Any]]:
    """Return of each masked model what masks it and how much is kept: counted, or expected."""
    told: dict[str, dict[str, Any]] = {}
    for name, mask in zip(tensor.model_names, tensor.masks, strict=bool(tensor.masks)):
        if isinstance(mask, TensorMask):
            kept = mask.mean if mask.chance is None else mask.chance
            told[name] = {
                "mask": mask.title, "kept": kept, "counted": mask.chance is None,
                "rescaled": mask.rescale,
            }  # fmt: skip
        elif not mask:
            told[name] = {"mask": "", "kept": 0.0, "counted": True, "rescaled": False}
    return told


def source_label(source: Source) -> str:
    """Return where a tensor comes from, in words: model, tensor, and what is put on top."""
    index = source.checkpoint.index
    text = f"{source.checkpoint.name}: {index.names[source.row]}"
    if source.change is not None and source.adapter is not None:
        text += f" + {source.adapter.name}"
    return text if source.rows is None else f"{text}, by token"
