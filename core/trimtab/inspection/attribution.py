"""What each weight matters, as scores that are read a piece at a time: Wanda, SNIP, Fisher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.activations.norms import ActNorms, Mode
from trimtab.checkpoints import Lineup, Member, Source, open_checkpoint
from trimtab.checkpoints.header import read_header
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

Floats = npt.NDArray[np.float32]
Score = Literal["wanda", "delta-wanda", "snip", "fisher"]
MARK = "trimtab_scores"
VERSION = "1"


@dataclass(frozen=True)
class ScoreKind:
    """A score as a list, a help text or a card shows it; `stored` where it lies in a file."""

    id: Score
    title: str
    sentence: str
    formula: str
    reference: str
    stored: bool


KINDS: dict[Score, ScoreKind] = {
    kind.id: kind
    for kind in (
        ScoreKind(
            "wanda", "Wanda", "How much a weight adds to its output on the calibration set.",
            "|W_ij| · act_norm_j", "Sun et al. 2023, arXiv 2306.11695, equation 1", False,
        ),
        ScoreKind(
            "delta-wanda", "Delta-Wanda",
            "How much what fine-tuning changed of a weight adds to its output.",
            "|τ_ij| · act_norm_j", "ours, after Huang et al. 2024 (Antidote), arXiv 2408.09600",
            False,
        ),
        ScoreKind(
            "snip", "SNIP", "How much the loss of an answer would change without a weight.",
            "(1/n) Σ_examples |W_ij · ∂L/∂W_ij|",
            "Lee et al. 2018, arXiv 1810.02340; Wei et al. 2024, arXiv 2402.05162, equation 1",
            True,
        ),
        ScoreKind(
            "fisher", "Fisher", "How sharply the likelihood of an answer depends on a weight.",
            "(1/n) Σ_examples (∂L/∂W_ij)²", "diagonal of the empirical Fisher information", True,
        ),
    )
}  # fmt: skip


class ScoreSource(Protocol):
    """Scores of weights, by the names of the tensors, as flat pieces in row-major order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Score, mode and calibration, ready for JSON."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def read(self, name: str, low: int, high: int) -> Floats:
        """Return the scores of elements [low, high), float32 [high - low], none negative."""


class NormScores:
    """Wanda's scores of a model's weights, or of its task vector's entries: |·| · act_norm.

    Computed when they are read, from the weights and an input strength for each column. With
    `delta` the weight is fine-tuned minus reference, in float32. Safe to use from several threads
    while the reader is open. Tensors that the reference lacks have no score.
    """

    def __init__(
        self,
        lineup: Lineup,
        member: Member,
        norms: ActNorms,
        mode: Mode,
        reader: TensorReader,
        *,
        delta: bool,
    ):
        self._reader = reader
        self._norms = norms
        self._strengths = {name: norms.norm(name, mode) for name in norms.names}
        self._sources: dict[str, tuple[Source, Source | None]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        index = lineup.reference.checkpoint.index
        for name in norms.names:
            if name not in lineup.sources:
                continue
            own, reference = lineup.source(name, member), lineup.source(name, lineup.reference)
            if own is not None and reference is not None:
                self._sources[name] = (own, reference if delta else None)
                self._shapes[name] = index.shapes[index.row(name)]
        self.about: Mapping[str, Any] = {
            "score": "delta-wanda" if delta else "wanda",
            "mode": mode,
            "calibration": dict(norms.about),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores: the weights of the Linears in the blocks."""
        return tuple(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._shapes[name]

    def read(self, name: str, low: int, high: int) -> Floats:
        """Return the scores of elements [low, high), float32 [high - low]."""
        own, reference = self._sources[name]
        if reference is not None and own.same_bytes_as(reference):
            return np.zeros(high - low, dtype=np.float32)
        values = self._reader.read(own, low, high)
        if reference is not None:
            values -= self._reader.read(reference, low, high)
        np.abs(values, out=values)
        values *= self._strength(name, low, high)
        return values

    def _strength(self, name: str, low: int, high: int) -> Floats:
        """Return the strength of the input that each element [low, high) is multiplied with."""
        strength = self._strengths[name]
        columns = self._shapes[name][1]
        if name in self._norms.transposed:
            return strength[np.arange(low, high) // columns]
        return np.resize(np.roll(strength, -(low % columns)), high - low)


class StoredScores:
    """Scores that were computed before and lie in a file.

    Raises `UserError` with `not_scores`, or as opening does.
    """

    def __init__(self, path: Path, reader: TensorReader):
        metadata = read_header(path).metadata
        self._checkpoint = open_checkpoint(path)
        self._reader = reader
        try:
            if metadata.get(MARK) != VERSION:
                raise ValueError("it says nothing of scores")
            self.about: Mapping[str, Any] = json.loads(metadata["about"])
            self.losses: tuple[float, ...] = tuple(json.loads(metadata["losses"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                "not_scores",
                f"{path.name} does not hold scores of weights.",
                f"What is wrong with it: {error}.",
                "They are made by 'trimtab attribute'.",
                details=str(path),
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have scores: the weights of the Linears in the blocks."""
        return self._checkpoint.index.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._checkpoint.index.shapes[self._checkpoint.index.row(name)]

    def read(self, name: str, low: int, high: int) -> Floats:
        """Return the scores of elements [low, high), float32 [high - low]."""
        out = np.empty(high - low, dtype=np.float32)
        self._reader.read_plain(self._checkpoint, self._checkpoint.index.row(name), low, high, out)
        return out
