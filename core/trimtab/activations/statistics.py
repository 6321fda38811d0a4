"""What is gathered of the activations that flow through a model: norms, covariances, states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from trimtab.activations.blocks import Site
from trimtab.activations.norms import ActNorms
from trimtab.activations.stream import Watch
from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.activations.tokens import Batch

#: the tokens that are looked at: all, or those of the answers
Which = Literal["all", "answers"]


class NormWatch(Watch):
    """Adds up the squares of every Linear's inputs, in float64."""

    def __init__(self) -> None:
        self._sums: dict[Site, torch.Tensor] = {}
        self._rows = 0
        self._tokens = 0

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """Add a batch's inputs."""
        squares = inputs.double().square()
        per_row = squares.sum(1)
        answers = (squares * batch.answer.to(squares.device)[..., None]).sum((0, 1))
        found = torch.stack([per_row.sum(0), answers, per_row.sqrt().sum(0)])
        self._sums[site] = self._sums[site] + found if site in self._sums else found

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        """Count the examples once."""
        if block == 0:
            self._rows += len(batch.places)
            self._tokens += int(batch.answer.sum())

    def result(self, about: Mapping[str, Any]) -> ActNorms:
        """Return what was added up; `about` is the provenance."""
        sums = {site: s.cpu().numpy().astype(np.float32) for site, s in self._sums.items()}
        return ActNorms(
            squares={site.name: s[0] for site, s in sums.items()},
            answer_squares={site.name: s[1] for site, s in sums.items()},
            lengths={site.name: s[2] for site, s in sums.items()},
            sequences=self._rows,
            answer_tokens=self._tokens,
            transposed=frozenset(site.name for site in sums if site.transposed),
            about=about,
        )


class CovarianceWatch(Watch):
    """Adds up Σ x xᵀ of the inputs of chosen Linears, and writes each block's when it is done.

    Linears that share their inputs, as q, k and v do, share the matrix. Sums are float64, the file
    holds float32.
    """

    def __init__(
        self,
        writer: TensorFileWriter,
        which: Which,
        wanted: Callable[[Site], bool] = lambda s: True,
    ):
        self._writer = writer
        self._which = which
        self._wanted = wanted
        self._sums: dict[Site, torch.Tensor] = {}
        self._shown: tuple[Site, torch.Tensor] | None = None
        #: the Linear under whose name the matrix of each Linear lies
        self.leaders: dict[str, str] = {}

    def linear(self, site: Site, inputs: torch.Tensor, batch: Batch) -> None:
        """Add a batch's inputs, once for all Linears that are given them."""
        if not self._wanted(site):
            return
        if self._shown is not None and self._shown[1] is inputs:
            self.leaders[site.name] = self._shown[0].name
            return
        self._shown = (site, inputs)
        self.leaders[site.name] = site.name
        x = inputs.float()
        x = x[batch.answer.to(x.device)] if self._which == "answers" else x.flatten(0, 1)
        product = (x.T @ x).double()
        self._sums[site] = self._sums[site] + product if site in self._sums else product

    def done(self, block: int) -> None:
        """Write what the block has shown and forget it."""
        for site, values in self._sums.items():
            self._writer.add(site.name, values.float().cpu().numpy())
        self._sums.clear()
        self._shown = None


class StateWatch(Watch):
    """Keeps the hidden state of one token of each example behind each block.

    `states` is float32 [blocks, examples, hidden]: of the last token of the prompt, which is the
    last one there is where examples have no answer.
    """

    def __init__(self, blocks: int, examples: int, width: int):
        self.states: npt.NDArray[np.float32] = np.empty((blocks, examples, width), np.float32)

    def hidden(self, block: int, states: torch.Tensor, batch: Batch) -> None:
        """Keep a batch's states."""
        last = (~batch.answer).sum(1) - 1
        chosen = states[torch.arange(len(states)), last.to(states.device)]
        self.states[block, list(batch.places)] = chosen.float().cpu().numpy()


class GradientWatch:
    """Adds up what each weight matters for the loss, and writes each block's when it is done.

    With n examples, each of which is a batch of its own as in the authors' code:

    - "snip" (Lee et al.; Wei et al., section 3.1): (1/n) Σ |W ⊙ ∇W L|.
    - "fisher", the diagonal of the empirical Fisher information: (1/n) Σ (∇W L)².

    `writers` by these names take float32, in the weights' shapes and by the weights' names.
    """

    def __init__(self, writers: Mapping[str, TensorFileWriter], examples: int):
        self._writers = writers
        self._n = examples
        self._sums: dict[tuple[Site, str], torch.Tensor] = {}
        self._weights: dict[Site, torch.Tensor] = {}

    def linear(self, site: Site, weight: torch.Tensor, slopes: torch.Tensor) -> None:
        """Add the slopes of each example of a batch."""
        self._weights[site] = weight
        for kind in self._writers:
            if (site, kind) not in self._sums:
                self._sums[site, kind] = torch.zeros_like(slopes[0])
        if "fisher" in self._writers:
            for slope in slopes:
                self._sums[site, "fisher"].addcmul_(slope, slope)
        if "snip" in self._writers:
            slopes.abs_()
            for slope in slopes:
                self._sums[site, "snip"].add_(slope)

    def done(self, block: int) -> None:
        """Write what the block has shown and forget it."""
        for (site, kind), total in self._sums.items():
            if kind == "snip":
                # |W ⊙ ∇W L| is |W| ⊙ |∇W L|: the weight is the same for all examples
                total = total * self._weights[site].float().abs()
            self._writers[kind].add(site.name, (total / self._n).cpu().numpy())
        self._sums.clear()
        self._weights.clear()


def output_gram(
    weight: npt.NDArray[np.floating], covariance: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Return (WX)(WX)ᵀ, float64 [out, out], of W [out, in] and X Xᵀ [in, in].

    Its eigenvectors are the left singular vectors of WX (ActSVD, Wei et al., section 3.2).
    """
    w = weight.astype(np.float64)
    found: npt.NDArray[np.float64] = w @ covariance.astype(np.float64) @ w.T
    return (found + found.T) / 2
