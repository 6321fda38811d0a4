"""How strong each input of each Linear is on a calibration set: what Wanda's scores are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.header import read_header
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError

Floats = npt.NDArray[np.float32]
Mode = Literal["paper", "authors' code", "ours"]
MODES: tuple[Mode, ...] = get_args(Mode)
FORMULAS: dict[Mode, str] = {
    "paper": "(1/n) Σ_sequences ‖X_j‖₂, all tokens",
    "authors' code": "√( (1/n) Σ_sequences Σ_tokens x_tj² ), all tokens",
    "ours": "√( mean of x_tj² over the answers' tokens )",
}
_MARK = "trimtab_norms"
_VERSION = "1"
_PARTS = ("squares", "answer_squares", "lengths")


@dataclass(frozen=True)
class ActNorms:
    """Input strengths by the names of the Linears' weights.

    For a weight with `in` inputs, float32 [in] each: `squares` Σ x² over all tokens of all
    sequences, `answer_squares` over the tokens of the answers, `lengths` Σ over sequences of
    ‖X_j‖₂. `sequences` and `answer_tokens` count them. `transposed` names the weights that are
    stored [in, out], as GPT-2's are. `about` is the provenance: calibration, model, template.
    """

    squares: Mapping[str, Floats] = field(repr=False)
    answer_squares: Mapping[str, Floats] = field(repr=False)
    lengths: Mapping[str, Floats] = field(repr=False)
    sequences: int
    answer_tokens: int
    transposed: frozenset[str]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The weights' names, in the order of the model."""
        return tuple(self.squares)

    def norm(self, name: str, mode: Mode) -> Floats:
        """Return the strength of each input of a weight, float32 [in].

        - "paper" (Huang et al., Antidote, section 4): (1/n) Σ_sequences ‖X_j‖₂ over all tokens.
        - "authors' code" (of Wanda and Antidote): √((1/n) Σ_sequences Σ_tokens x²), where n counts
          sequences: long ones weigh more. Wanda's paper has ‖X_j‖₂, which is √n times as much.
        - "ours": √(mean of x² over the answers' tokens), so that neither length nor the number of
          examples matters, nor what the prompts have in common.

        Raises `UserError` with `no_answers` for "ours" where there were none.
        """
        if mode == "paper":
            return (self.lengths[name] / np.float32(self.sequences)).astype(np.float32)
        if mode == "authors' code":
            return _root(self.squares[name], self.sequences)
        if not self.answer_tokens:
            raise UserError(
                "no_answers",
                "The calibration set has no answers.",
                "This kind of score looks at the tokens of the answers alone.",
                "Give each prompt an answer, or choose the mode authors' code.",
            )
        return _root(self.answer_squares[name], self.answer_tokens)

    def save(self, path: Path) -> None:
        """Write all of it as one safetensors file."""
        parts: dict[str, Mapping[str, Floats]] = dict(
            zip(_PARTS, (self.squares, self.answer_squares, self.lengths), strict=True)
        )
        facts = {
            "sequences": self.sequences,
            "answer_tokens": self.answer_tokens,
            "transposed": sorted(self.transposed),
            "names": list(self.names),
            "about": dict(self.about),
        }
        keys = tuple(f"{name}/{part}" for name in self.names for part in _PARTS)
        metadata = {_MARK: _VERSION, "facts": json.dumps(facts, ensure_ascii=False)}
        with TensorFileWriter(path, keys, metadata) as writer:
            for name in self.names:
                for part in _PARTS:
                    writer.add(f"{name}/{part}", parts[part][name])
            writer.finish()

    @classmethod
    def load(cls, path: Path) -> ActNorms:
        """Read what `save` wrote. Raises `UserError` with `not_norms`, or as opening does."""
        metadata = read_header(path).metadata
        checkpoint = open_checkpoint(path)
        try:
            if metadata.get(_MARK) != _VERSION:
                raise ValueError("it says nothing of activations")
            facts = json.loads(metadata["facts"])
            found: dict[str, dict[str, Floats]] = {part: {} for part in _PARTS}
            with TensorReader() as reader:
                for name in facts["names"]:
                    for part in _PARTS:
                        row = checkpoint.index.row(f"{name}/{part}")
                        out = np.empty(int(checkpoint.index.numel[row]), dtype=np.float32)
                        reader.read_plain(checkpoint, row, 0, out.size, out)
                        found[part][name] = out
            return cls(
                squares=found["squares"],
                answer_squares=found["answer_squares"],
                lengths=found["lengths"],
                sequences=int(facts["sequences"]),
                answer_tokens=int(facts["answer_tokens"]),
                transposed=frozenset(facts["transposed"]),
                about=facts["about"],
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                "not_norms",
                f"{path.name} does not hold activation norms.",
                f"What is wrong with it: {error}.",
                "They are made by 'trimtab attribute'.",
                details=str(path),
            ) from error


def _root(squares: Floats, count: int) -> Floats:
    found: Floats = np.sqrt(squares / np.float32(count))
    return found
