"""A causal language model of which no more than one block's weights are in memory at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from trimtab.activations.loading import load_skeleton, positions_of
from trimtab.activations.tokens import Batch
from trimtab.activations.weights import ModelWeights
from trimtab.checkpoints.adapter_names import expert_tensors, stored_name
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError


@dataclass(frozen=True)
class Site:
    """A Linear of a block: its weight's name among the model's files, the block, the shape.

    `transposed` where the weight is stored [in, out].
    """

    name: str
    block: int
    shape: tuple[int, int]
    transposed: bool

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return self.shape[0] if self.transposed else self.shape[1]


class Call(NamedTuple):
    """What a model hands a block besides the hidden states: masks, positions and their like."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Stop(Exception):
    """Ends a forward pass from which all is known that was asked."""


class _Weight(NamedTuple):
    """A parameter, or a buffer that files hold, by its owners: tied ones have several.

    `experts` are the tensors that a stacked parameter is stored as: joined along the rows of each
    expert, stacked over the experts.
    """

    owners: tuple[tuple[nn.Module, str], ...]
    stored: str
    experts: tuple[tuple[str, ...], ...]
    trained: bool

    @property
    def numel(self) -> int:
        owner, leaf = self.owners[0]
        return int(getattr(owner, leaf).numel())


class BlockModel:
    """A model's skeleton, whose weights are read when they are needed and let go of after.

    Everything is computed in `dtype` on `device`. Works for models that hand one tensor of hidden
    states from block to block and nothing else. Use within the `reader`'s context. Raises
    `UserError` with `cannot_run`, `weights_missing` or `not_streamable`.
    """

    def __init__(
        self,
        weights: ModelWeights,
        reader: TensorReader,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.weights = weights
        self.dtype = dtype
        self.device = torch.device(device)
        self._reader = reader
        self.model: Any = load_skeleton(weights.folder, dtype)
        self.blocks = _find_blocks(self.model, weights.name)
        self._parts = _placed(self.model, self.blocks, weights)
        self._tuples = False
        self._probed = False
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device))

    @property
    def positions(self) -> int | None:
        """How many positions the model has, where its config says so."""
        return positions_of(self.model.config)

    @property
    def live_parameters(self) -> int:
        """How many parameters are in memory at this moment."""
        return sum(p.numel() for p in self.model.parameters() if not p.is_meta)

    @property
    def most_parameters(self) -> int:
        """How many parameters are in memory at the same time at most."""
        parts = [*self._parts[:-1], self._outside(head=False), self._outside(head=True)]
        return max(sum(weight.numel for weight in part) for part in parts)

    def sites(self, block: int) -> list[tuple[Site, nn.Module]]:
        """Return the Linears of a block with their modules, in the order of the model."""
        names = {weight.owners[0]: weight.stored for weight in self._parts[block]}
        found: list[tuple[Site, nn.Module]] = []
        for module in self.blocks[block].modules():
            # routers of experts are Linears that answer with more than their product
            if isinstance(module, (nn.Linear, Conv1D)) and "Router" not in type(module).__name__:
                rows, columns = module.weight.shape
                transposed = isinstance(module, Conv1D)
                site = Site(names[module, "weight"], block, (rows, columns), transposed)
                found.append((site, module))
        return found

    @contextmanager
    def block(self, number: int) -> Iterator[nn.Module]:
        """Hold the weights of one block."""
        with self._held(self._parts[number]):
            yield self.blocks[number]

    @contextmanager
    def outside(self, *, head: bool) -> Iterator[None]:
        """Hold what is outside the blocks: what comes before them, or with `head` what follows."""
        with self._held(self._outside(head=head)):
            yield

    def _outside(self, *, head: bool) -> list[_Weight]:
        other = self.model.get_input_embeddings() if head else self.model.get_output_embeddings()
        return [w for w in self._parts[-1] if any(owner is not other for owner, _ in w.owners)]

    @contextmanager
    def _held(self, weights: Iterable[_Weight]) -> Iterator[None]:
        skeleton: list[tuple[nn.Module, str, torch.Tensor]] = []
        try:
            for weight in weights:
                found = self._read(weight).to(self.device, self.dtype)
                if weight.trained:
                    found = nn.Parameter(found, requires_grad=False)
                for owner, leaf in weight.owners:
                    skeleton.append((owner, leaf, getattr(owner, leaf)))
                    setattr(owner, leaf, found)
            yield
        finally:
            for owner, leaf, empty in skeleton:
                setattr(owner, leaf, empty)

    def _read(self, weight: _Weight) -> torch.Tensor:
        def tensor(name: str) -> torch.Tensor:
            return torch.from_numpy(self.weights.read(self._reader, name))

        if not weight.experts:
            return tensor(weight.stored)
        return torch.stack([torch.cat([tensor(n) for n in parts]) for parts in weight.experts])

    # The model's own forward pass, around its blocks.

    def front(self, batch: Batch) -> tuple[torch.Tensor, list[Call]]:
        """Return the hidden states before the first block, and how each block is to be called.

        Call it while `outside(head=False)` is held. Hidden states are [rows, tokens, hidden].
        """
        ids = batch.ids.to(self.device)
        if not self._probed:
            self._probe(ids[:1, :1])
        calls: list[Call] = []
        first: list[torch.Tensor] = []
        handed: list[torch.Tensor] = []

        def passed(*args: Any, **kwargs: Any) -> Any:
            hidden, call = _split(args, kwargs)
            if not first:
                first.append(hidden)
            elif hidden is not handed[-1]:
                raise _not_streamable(
                    self.weights.name, "Its blocks hand on more than one tensor of hidden states."
                )
            calls.append(call)
            if len(calls) == len(self.blocks):
                raise _Stop
            # another tensor each time, or what lies between two blocks would go unnoticed
            handed.append(hidden.view_as(hidden))
            return (handed[-1],) if self._tuples else handed[-1]

        given = {name: value.to(self.device) for name, value in batch.given.items()}
        with self._replaced([passed] * len(self.blocks)), torch.no_grad():
            self._until_stop(input_ids=ids, use_cache=False, **given)
        if len(calls) != len(self.blocks):
            raise _not_streamable(self.weights.name, "Its blocks are not called once each.")
        return first[0].detach(), calls

    def run(self, number: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
        """Return what a block makes of hidden states; call it while the block is held."""
        out = self.blocks[number](hidden, *call.args, **call.kwargs)
        return cast(torch.Tensor, out[0] if isinstance(out, tuple) else out)

    def logits(self, hidden: torch.Tensor, keep: int) -> torch.Tensor:
        """Return the logits of the last `keep` positions, [rows, keep, vocabulary].

        Call it while `outside(head=True)` is held.
        """

        def inject(*args: Any, **kwargs: Any) -> Any:
            return (hidden,) if self._tuples else hidden

        def passed(*args: Any, **kwargs: Any) -> Any:
            given, _ = _split(args, kwargs)
            return (given,) if self._tuples else given

        more = {"logits_to_keep": keep} if _takes(self.model, "logits_to_keep") else {}
        with self._replaced([inject, *[passed] * (len(self.blocks) - 1)]):
            out = self.model(inputs_embeds=torch.zeros_like(hidden), use_cache=False, **more)
        return cast(torch.Tensor, out.logits[:, -keep:])

    def _probe(self, ids: torch.Tensor) -> None:
        """Learn from the first block whether blocks answer with a tensor or with a tuple."""

        def seen(module: nn.Module, args: Any, output: Any) -> None:
            self._tuples = isinstance(output, tuple)
            raise _Stop

        handle = self.blocks[0].register_forward_hook(seen)
        try:
            with self.block(0), torch.no_grad():
                self._until_stop(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
        self._probed = True

    def _until_stop(self, **inputs: Any) -> None:
        try:
            self.model(**inputs)
        except _Stop:
            return

    @contextmanager
    def _replaced(self, functions: Iterable[Any]) -> Iterator[None]:
        try:
            for block, function in zip(self.blocks, functions, strict=True):
                block.forward = function
            yield
        finally:
            for block in self.blocks:
                block.__dict__.pop("forward", None)


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, Call]:
    if args:
        return args[0], Call(args[1:], kwargs)
    rest = dict(kwargs)
    return rest.pop("hidden_states"), Call((), rest)


def _takes(model: Any, parameter: str) -> bool:
    return parameter in inspect.signature(model.forward).parameters


def _find_blocks(model: Any, name: str) -> list[nn.Module]:
    """Return the model's blocks: the list of as many modules as its config says it has layers."""
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList)]
    found = [modules for modules in lists if len(modules) == wanted]
    if not found:
        raise _not_streamable(name, "It is not built of a list of blocks.")
    return found[0]


def _placed(model: Any, blocks: list[nn.Module], weights: ModelWeights) -> list[list[_Weight]]:
    """Return the weights of each block, and last those outside, by the names in the files."""
    block_of = {module: i for i, block in enumerate(blocks) for module in block.modules()}
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        for leaf, tensor in _stored_parts(module):
            owners.setdefault(id(tensor), []).append((module, leaf))
            names.setdefault(id(tensor), []).append(f"{prefix}.{leaf}" if prefix else leaf)
    parts: list[list[_Weight]] = [[] for _ in range(len(blocks) + 1)]
    base = f"{getattr(model, 'base_model_prefix', '')}."
    for key, called in names.items():
        module, leaf = owners[key][0]
        tensor = getattr(module, leaf)
        stored = next(
            (s for n in called for s in _spellings(n, base, weights) if s in weights.sources), None
        )
        trained = isinstance(tensor, nn.Parameter)
        experts = () if stored else tuple(expert_tensors(called[0], weights.sources))
        if stored is None and not experts:
            if not trained:
                continue  # computed from the config
            raise UserError(
                "weights_missing",
                f"{weights.name} lacks weights that its config asks for.",
                f"{called[0]} is not there, or is kept in another form than files have it.",
                "Get the model again, or correct its config.json.",
            )
        if stored and tuple(weights.shapes[stored]) != tuple(tensor.shape):
            raise _not_streamable(
                weights.name,
                f"{stored} is stored as {list(weights.shapes[stored])} and computed with as "
                f"{list(tensor.shape)}.",
            )
        entry = _Weight(tuple(owners[key]), stored or called[0], experts, trained)
        parts[block_of.get(module, -1)].append(entry)
    return parts


def _stored_parts(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    for leaf, buffer in module.named_buffers(recurse=False):
        if leaf not in module._non_persistent_buffers_set:
            yield leaf, buffer


def _spellings(name: str, base: str, weights: ModelWeights) -> Iterator[str]:
    yield stored_name(name, weights.sources)
    yield name.removeprefix(base)
    yield base + name
    if name == "lm_head.weight":
        yield "embed_out.weight"  # what GPT-NeoX's files call it


def _not_streamable(name: str, why: str) -> UserError:
    return UserError(
        "not_streamable",
        f"{name} cannot be run block by block.",
        why,
        "Models of the families Llama, Qwen, Mistral, Gemma, Phi, GPT-2 and their like can be.",
    )
