"""What one merge of one tensor is made from, as numpy arrays.

Only the task vector is rounded to float32, as its definition says: ranks and thresholds are about
that number. Everything after it is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from references_random import model_key

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
PerModel = float | Sequence[float]


@dataclass(frozen=True)
class Inputs:
    """What one merge of one tensor is made from."""

    reference: npt.NDArray[np.float32]
    models: Sequence[npt.NDArray[np.float32]]
    weights: Sequence[float]
    seed: int = 0
    tensor: str = "w"
    labels: Sequence[str] | None = None

    @property
    def base(self) -> Array:
        return self.reference.astype(np.float64)

    @property
    def values(self) -> list[Array]:
        return [x.astype(np.float64) for x in self.models]

    @property
    def deltas(self) -> list[Array]:
        return [np.asarray(x - self.reference, dtype=np.float64) for x in self.models]

    @property
    def keys(self) -> list[int]:
        labels = self.labels or [str(i) for i in range(len(self.models))]
        return [model_key(self.seed, self.tensor, label) for label in labels]

    def each(self, value: PerModel) -> list[float]:
        if isinstance(value, int | float):
            return [float(value)] * len(self.models)
        return [float(v) for v in value]
