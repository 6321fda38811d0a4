"""What a definition of a subspace may go by: weights, and second moments of activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError
from trimtab.subspaces.matrices import Floats
from trimtab.subspaces.subspace import Projector, leading

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Activations:
    """Sums over the tokens of a prompt set at one Linear y = Wx, in any float dtype.

    - `inputs` [in, in]: Σ x xᵀ
    - `outputs` [out, out]: Σ y yᵀ; where it is None, W · inputs · Wᵀ is the same without a bias
    - `output_sum` [out]: Σ y
    - `count`: how many tokens
    """

    inputs: Array | None = None
    outputs: Array | None = None
    output_sum: Array | None = None
    count: int = 0


@dataclass(frozen=True)
class Evidence:
    """All that may be known of one weight [out, in]; definitions say which of it they need.

    `aligned` and `base` are the two models' weights; `safety` and `utility` what was seen of the
    aligned model's activations on harmful prompts (refused) and on benign ones.
    """

    aligned: Array | None = None
    base: Array | None = None
    safety: Activations | None = None
    utility: Activations | None = None

    def alignment(self) -> Floats:
        """Return a = aligned − base, float64 [out, in]. `UserError` with `evidence_missing`."""
        if self.aligned is None or self.base is None:
            raise missing("the alignment vector", "Add the model before alignment to the lineup.")
        return self.aligned.astype(np.float64) - self.base.astype(np.float64)

    def output_gram(self, of: str) -> Floats:
        """Return Σ y yᵀ, float64 [out, out], on the prompts `of` "safety" or "utility".

        `UserError` with `evidence_missing` where neither outputs nor weight and inputs are known.
        """
        seen = self.seen(of)
        if seen.outputs is not None:
            return seen.outputs.astype(np.float64)
        if seen.inputs is None or self.aligned is None:
            raise missing(f"activations on {of} prompts", "Gather them on a calibration set.")
        weight = self.aligned.astype(np.float64)
        return weight @ seen.inputs.astype(np.float64) @ weight.T

    def output_mean(self, of: str) -> Floats:
        """Return the mean of y, float64 [out]; `UserError` with `evidence_missing`."""
        seen = self.seen(of)
        if seen.output_sum is None or seen.count < 1:
            raise missing(f"mean activations on {of} prompts", "Gather them on a calibration set.")
        return seen.output_sum.astype(np.float64) / seen.count

    def seen(self, of: str) -> Activations:
        """Return what was seen on "safety" or "utility"; `UserError` with `evidence_missing`."""
        seen = self.safety if of == "safety" else self.utility
        if seen is None:
            raise missing(f"activations on {of} prompts", "Gather them on a calibration set.")
        return seen


def leading_outputs(evidence: Evidence, of: str, k: int, centre: bool) -> Projector:
    """Project on the k leading directions of a weight's outputs on the prompts `of`.

    With `centre` the mean output is taken away first. `UserError` with `evidence_missing`.
    """
    gram = evidence.output_gram(of)
    if centre:
        mean = evidence.output_mean(of)
        gram = gram - evidence.seen(of).count * np.outer(mean, mean)
    return Projector(leading(gram, k))


def missing(what: str, fix: str) -> UserError:
    """Return the error for evidence that was not given."""
    return UserError(
        "evidence_missing",
        f"This subspace needs {what}.",
        "It is defined by that and nothing else.",
        fix,
    )
