"""Reads the covariances of activations that were written to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.header import read_header
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError


class Covariances:
    """Σ x xᵀ of the inputs of Linears, by the names of their weights; read one at a time.

    `names` are those of the Linears, `about` is the provenance. Raises `UserError` with
    `not_covariances`, or as opening does.
    """

    def __init__(self, path: Path):
        metadata = read_header(path).metadata
        self._checkpoint = open_checkpoint(path)
        try:
            if "trimtab_covariances" not in metadata:
                raise ValueError("it says nothing of covariances")
            self._leaders: Mapping[str, str] = json.loads(metadata["leaders"])
            self.about: Mapping[str, Any] = json.loads(metadata["about"])
            for leader in self._leaders.values():
                self._checkpoint.index.row(leader)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                "not_covariances",
                f"{path.name} does not hold covariances of activations.",
                f"What is wrong with it: {error}.",
                "Make it again.",
                details=str(path),
            ) from error
        self.names = tuple(self._leaders)

    def read(self, reader: TensorReader, name: str) -> npt.NDArray[np.float32]:
        """Return Σ x xᵀ of the inputs of a Linear, float32 [in, in]."""
        index = self._checkpoint.index
        row = index.row(self._leaders[name])
        out = np.empty(int(index.numel[row]), dtype=np.float32)
        reader.read_plain(self._checkpoint, row, 0, out.size, out)
        return out.reshape(index.shapes[row])
