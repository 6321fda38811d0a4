"""Runs a calibration set through a model block by block, forwards and backwards, with watchers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from trimtab.activations.blocks import BlockModel, Call, Site
from trimtab.activations.shelf import Shelf
from trimtab.activations.tokens import Batch
from trimtab.control import Control

#: logits that are in memory at once
_LOGITS = 1 << 26
#: elements of examples' slopes that are computed at once, few enough for the processor's cache;
#: a larger weight's are computed an example at a time
_SLOPES = 1 << 18


class Watcher(Protocol):
    """Sees what flows forwards; tensors are its own only while it is called."""

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """See the inputs of a Linear, [rows, tokens, in], and the batch they are of."""

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        """See what a block hands on, [rows, tokens, hidden]."""

    def done(self, block: int) -> None:
        """Hear that a block has seen all batches."""


class Slopes(Protocol):
    """Sees what flows backwards."""

    def linear(self, site: Site, weight: torch.Tensor, slopes: torch.Tensor) -> None:
        """See dL/dW of some examples, float32 [examples, *the weight's shape].

        The slopes may be written over, and are gone afterwards.
        """

    def done(self, block: int) -> None:
        """Hear that a block has seen all batches."""


class Watch:
    """A watcher that looks away; others say what they look at."""

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """Look away."""

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        """Look away."""

    def done(self, block: int) -> None:
        """Look away."""


class Pass:
    """One run of a calibration set through a model, whose blocks' inputs lie on a shelf.

    `forward` goes once through the blocks; `backward` may follow where it was told to keep their
    inputs. Results do not depend on how the examples are cut into batches, but for rounding.
    """

    def __init__(self, model: BlockModel, batches: Sequence[Batch], shelf: Shelf, control: Control):
        self._model = model
        self._batches = batches
        self._shelf = shelf
        self._control = control
        self._calls: list[list[Call]] = []
        self._last = len(model.blocks)
        self._scratch: torch.Tensor | None = None

    @torch.no_grad()
    def forward(self, watchers: Sequence[Watcher] = (), *, keep: bool = False) -> None:
        """Run all batches through one block after another.

        With `keep` the inputs of all blocks stay on the shelf. Raises `JobCancelled` between
        batches.
        """
        model, shelf = self._model, self._shelf
        self._control.stage("Running", self._last * len(self._batches))
        with model.outside(head=False):
            for number, batch in enumerate(self._batches):
                self._control.check()
                hidden, calls = model.front(batch)
                shelf.put((0, number), hidden)
                self._calls.append(calls)
        for block in range(self._last):
            with model.block(block):
                sight = _Sight(model, block, watchers)
                for number, batch in enumerate(self._batches):
                    self._control.check()
                    given = shelf.get((block, number)) if keep else shelf.take((block, number))
                    with sight.on(batch):
                        states = model.run(
                            block, given.to(model.device), self._calls[number][block]
                        )
                    for watcher in watchers:
                        watcher.hidden(block, states, batch)
                    shelf.put((block + 1, number), states)
                    self._control.advance(1)
            for watcher in watchers:
                watcher.done(block)

    def logits(self, number: int, keep: int) -> torch.Tensor:
        """Return the logits of a batch's last `keep` positions, [rows, keep, vocabulary]."""
        with self._model.outside(head=True):
            hidden = self._shelf.get((self._last, number)).to(self._model.device)
            return self._model.logits(hidden, keep)

    def all_logits(self, keep: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield each batch's logits as `logits` does, of its last `keep` positions.

        The head's weights are read once, and the hidden states are gone afterwards. Raises
        `JobCancelled` between batches.
        """
        with self._model.outside(head=True):
            for number, count in enumerate(keep):
                self._control.check()
                hidden = self._shelf.take((self._last, number)).to(self._model.device)
                with torch.no_grad():
                    logits = self._model.logits(hidden, count)
                yield logits

    def backward(self, watchers: Sequence[Slopes]) -> list[float]:
        """Run back through the blocks; return each example's loss, in the set's order.

        The loss of an example is the mean cross-entropy of its answer's tokens, in nats. Each
        block is computed once more from its inputs, so that no more than one is in memory. Raises
        `JobCancelled` between batches.
        """
        model, shelf = self._model, self._shelf
        losses = [0.0] * sum(len(batch.places) for batch in self._batches)
        self._control.stage("Running back", self._last * len(self._batches))
        with model.outside(head=True):
            for number, batch in enumerate(self._batches):
                self._control.check()
                slope, found = self._tail(shelf.take((self._last, number)), batch)
                shelf.put(("slope", number), slope)
                for place, loss in zip(batch.places, found, strict=True):
                    losses[place] = loss
        for block in reversed(range(self._last)):
            with model.block(block):
                modules = model.sites(block)
                for number, batch in enumerate(self._batches):
                    self._control.check()
                    slope = self._back(block, number, batch, modules, watchers)
                    if block:
                        shelf.put(("slope", number), slope)
                    self._control.advance(1)
                for watcher in watchers:
                    watcher.done(block)
        return losses

    def _tail(self, hidden: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, list[float]]:
        """Return dL/d(last hidden states) [rows, tokens, hidden] and the loss of each row."""
        model = self._model
        hidden = hidden.to(model.device)
        # an answer's first token is what the position before it says
        keep = int(batch.answer.any(0).sum()) + 1
        targets = torch.where(batch.answer, batch.ids, -100).to(model.device)[:, -keep + 1 :]
        vocabulary = int(model.model.config.get_text_config().vocab_size)
        step = max(1, _LOGITS // (keep * vocabulary))
        slope, losses = torch.empty_like(hidden), []
        for low in range(0, len(hidden), step):
            part = hidden[low : low + step].detach().requires_grad_()
            logits = model.logits(part, keep)[:, :-1].float()
            wanted = targets[low : low + step]
            each = cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
            loss = each.sum(1) / (wanted >= 0).sum(1)
            slope[low : low + step] = torch.autograd.grad(loss.sum(), part)[0]
            losses += loss.detach().tolist()
        return slope, losses

    def _back(
        self,
        block: int,
        number: int,
        batch: Batch,
        modules: list[tuple[Site, nn.Module]],
        watchers: Sequence[Slopes],
    ) -> torch.Tensor:
        """Run one batch back through one block; return dL/d(its inputs)."""
        model = self._model
        given = self._shelf.take((block, number)).to(model.device).requires_grad_()
        slope = self._shelf.take(("slope", number)).to(model.device)
        seen: dict[Site, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        handles = [module.register_forward_hook(_recorder(seen, site)) for site, module in modules]
        try:
            out = model.run(block, given, self._calls[number][block])
        finally:
            for handle in handles:
                handle.remove()
        outputs = [output for uses in seen.values() for _, output in uses]
        first, *others = torch.autograd.grad(out, [given, *outputs], slope)
        coming = iter(others)
        weights = {site: module.weight for site, module in modules}
        # in the order in which they were called, which need not be that of the modules
        for site, uses in seen.items():
            pairs = [(_rows(x, batch).float(), _rows(next(coming), batch).float()) for x, _ in uses]
            weight = weights[site]
            assert isinstance(weight, torch.Tensor)
            step = max(1, _SLOPES // weight.numel())
            for low in range(0, len(batch.places), step):
                found = self._slopes(
                    site, weight, [(x[low:][:step], s[low:][:step]) for x, s in pairs]
                )
                for watcher in watchers:
                    watcher.linear(site, weight.detach(), found)
        return first

    @torch.no_grad()
    def _slopes(
        self, site: Site, weight: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """Return dL/dW of each row, of a Linear's inputs and dL/d(outputs), [rows, tokens, …].

        In memory that is used again: new memory each time would cost more than the product.
        """
        rows = len(pairs[0][0])
        if self._scratch is None or self._scratch.numel() < rows * weight.numel():
            self._scratch = torch.empty(rows * weight.numel(), device=weight.device)
        out = self._scratch[: rows * weight.numel()].view(rows, *weight.shape)
        for number, (inputs, slopes) in enumerate(pairs):
            left, right = (inputs, slopes) if site.transposed else (slopes, inputs)
            torch.baddbmm(out, left.transpose(1, 2), right, beta=float(number > 0), out=out)
        return out


def _recorder(seen: dict[Site, list[tuple[torch.Tensor, torch.Tensor]]], site: Site) -> Any:
    def record(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.setdefault(site, []).append((args[0].detach(), output))

    return record


def _rows(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return what goes into or out of a Linear by rows and tokens, which some blocks join."""
    if values.dim() == 3:
        return values  # the very tensor: watchers see by it which Linears share their inputs
    return values.reshape(*batch.ids.shape, values.shape[-1])


class _Sight:
    """Shows the watchers what goes into a block's Linears while a batch runs through it."""

    def __init__(self, model: BlockModel, block: int, watchers: Sequence[Watcher]):
        self._modules = model.sites(block) if watchers else []
        self._watchers = watchers
        self._handles: list[Any] = []

    def on(self, batch: Batch) -> _Sight:
        """Look at this batch, as long as the context lasts."""
        for site, module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._shower(site, batch)))
        return self

    def _shower(self, site: Site, batch: Batch) -> Any:
        def show(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            for watcher in self._watchers:
                watcher.linear(site, _rows(args[0], batch), batch)

        return show

    def __enter__(self) -> _Sight:
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
