"""What goes into each Linear on the realignment data, and into an adapter's two factors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trimtab.activations.blocks import Site
from trimtab.activations.calibrated import (
    Setting,
    act_norms,
    calibrated,
    content_key,
    norms_path,
    provenance,
)
from trimtab.activations.calibration import Calibration, Example, load_calibration
from trimtab.activations.loading import load_tokenizer
from trimtab.activations.norms import ActNorms, Mode
from trimtab.activations.statistics import NormWatch
from trimtab.activations.stream import Watch
from trimtab.activations.tokens import Batch, Template
from trimtab.activations.weights import ModelWeights
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.realign.antidote import Floats
from trimtab.realign.preferences import read_preferences

# of how many adapters the factors' norms are remembered: α is tried out on the same ones
_ROOM = 2


def realignment_set(path: Path) -> Calibration:
    """Read harmful prompts with harmful answers: of preference pairs the rejected ones.

    Files without pairs are read by `load_calibration`, and raise as it does.
    """
    try:
        pairs = read_preferences(path)
    except UserError as error:
        if error.code not in ("pairs_format", "suite_unreadable"):
            raise
        return load_calibration(path)
    examples = tuple(Example(p.id, p.prompt, p.rejected) for p in pairs.pairs)
    return Calibration(pairs.name, examples)


@dataclass(frozen=True)
class Inputs:
    """Norms of every Linear's inputs, and of A x for the A given: by the weight's name.

    `path` is the file in the cache where the former are kept, if they are.
    """

    norms: ActNorms
    projected: Mapping[str, Floats]
    path: Path | None = None

    def of(self, name: str, mode: Mode) -> Floats:
        """Return the norms of a Linear's inputs, float32 [in]."""
        return self.norms.norm(name, mode)


_REMEMBERED: OrderedDict[str, Inputs] = OrderedDict()


def measure(
    weights: ModelWeights,
    calibration: Calibration,
    factors: Mapping[str, Floats],
    mode: Mode,
    control: Control,
    device: str,
) -> Inputs:
    """Run the set through the model, block by block, weights as they are: nothing is pruned yet.

    `factors` holds an adapter's A [rank, in] by the name of the weight it belongs to. In float32.
    Norms are kept in the cache, and those of A x as long as the process lives. Raises `UserError`
    as `encode` and `BlockModel` do.
    """
    setting = Setting(_template(weights), device)
    if not factors:
        norms, _ = act_norms(weights, calibration, setting, control)
        return Inputs(norms, {}, norms_path(weights, calibration, setting))
    key = content_key(weights, calibration, setting, "factors", mode, sorted(factors))
    if key not in _REMEMBERED:
        watch, through = NormWatch(), _FactorWatch(factors, mode)
        with calibrated(weights, calibration, setting, control) as ready:
            ready.run.forward([watch, through])
        found = watch.result(provenance(weights, calibration, setting))
        _REMEMBERED[key] = Inputs(found, through.result())
        while len(_REMEMBERED) > _ROOM:
            _REMEMBERED.popitem(last=False)
    return _REMEMBERED[key]


def _template(weights: ModelWeights) -> Template:
    """Return the model's own template where its tokenizer has one."""
    return "model" if getattr(load_tokenizer(weights.folder), "chat_template", None) else "plain"


class _FactorWatch(Watch):
    """Adds up the squares of A x, as `ActNorms.norm` does those of x."""

    def __init__(self, factors: Mapping[str, Floats], mode: Mode):
        self._factors = {name: torch.from_numpy(np.array(a)) for name, a in factors.items()}
        self._mode = mode
        self._sums: dict[str, torch.Tensor] = {}
        self._sequences = self._answered = 0

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """Add a batch's projected inputs."""
        a = self._factors.get(site.name)
        if a is None:
            return
        squares = (inputs.float() @ a.to(inputs.device).T).double().square()
        if self._mode == "paper":
            found = squares.sum(1).sqrt().sum(0)
        elif self._mode == "ours":
            found = (squares * batch.answer.to(squares.device)[..., None]).sum((0, 1))
        else:
            found = squares.sum((0, 1))
        self._sums[site.name] = self._sums.get(site.name, torch.zeros_like(found)) + found

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        """Count the examples once."""
        if block == 0:
            self._sequences += len(batch.places)
            self._answered += int(batch.answer.sum())

    def result(self) -> dict[str, Floats]:
        """Return the norms of A x, float32 [rank], by the weights' names."""
        count = self._answered if self._mode == "ours" else self._sequences
        found = {}
        for name, total in self._sums.items():
            mean = total.cpu().numpy() / max(count, 1)
            found[name] = (mean if self._mode == "paper" else np.sqrt(mean)).astype(np.float32)
        return found
