"""What Antidote looks at in a recipe's model: matrices with their scores, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from trimtab.activations.calibration import Calibration
from trimtab.activations.norms import Mode
from trimtab.activations.weights import member_weights
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.naming import parse
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.merging.recipe import FineTuned, Recipe, open_lineup
from trimtab.realign.antidote import (
    Bools,
    Floats,
    Removed,
    Variant,
    added_up,
    pruned_in_row,
    removed,
)
from trimtab.realign.antidote_count import low_ranks, target_of
from trimtab.realign.antidote_norms import Inputs, measure
from trimtab.realign.antidote_sinks import Part
from trimtab.realign.somf_recipe import takes_part


@dataclass(frozen=True)
class AntidoteOptions:
    """What is pruned: `alpha` of every row, by scores with `norm`, in these `modules` (none: all).

    `model` names the fine-tuned model, where several take part. `seed` decides the random control.
    `rescale` (ours, of delta-revert) has the recipe divide by each tensor's mean of the mask.
    """

    variant: Variant = "delta-revert"
    alpha: float = 0.1
    norm: Mode = "authors' code"
    modules: tuple[str, ...] = ()
    model: str = ""
    seed: int = 0
    rescale: bool = False

    @property
    def mode(self) -> Mode:
        """Whose method this is: reverting to the aligned model is ours, whatever the scores."""
        return "ours" if self.variant == "delta-revert" else self.norm


@dataclass
class Found:
    """What was pruned so far, by module; in `floored` matrices it is more than α."""

    parts: list[tuple[str, Removed]] = field(default_factory=list)
    floored: int = 0

    def add(self, part: Part, pruned: Bools, control: Bools, alpha: float) -> None:
        """Add one matrix."""
        self.parts.append((part.module, removed(part.values, part.scores, pruned, control)))
        width = part.scores.shape[0 if part.transposed else 1]
        self.floored += pruned_in_row(width, alpha) > alpha * width


@dataclass(frozen=True)
class Pruning:
    """A recipe's fine-tuned model, checked for what the options want; `target` is what is pruned.

    `model` is the member as the recipe has it.
    """

    options: AntidoteOptions
    lineup: Lineup
    member: Member
    model: FineTuned
    target: Checkpoint

    @classmethod
    def open(cls, recipe: Recipe, options: AntidoteOptions) -> Pruning:
        """Open it. Raises `UserError` with `antidote_alpha`, `cannot_merge`, `no_such_model`, and
        with `antidote_variant` where variant and model do not go together.
        """
        if not 0 < options.alpha <= 1:
            raise UserError(
                "antidote_alpha",
                f"α is {options.alpha:g}.",
                "It is the share of each row that is pruned: above 0, and at most 1.",
                "Choose such a share; the authors use 0.01 to 0.2.",
            )
        lineup = open_lineup(recipe)
        if lineup.errors:
            first = lineup.errors[0]
            raise UserError(
                "cannot_merge", f"{first.model} does not fit.", first.what, first.effect
            )
        member, model = _chosen(recipe, lineup, options.model)
        return cls(options, lineup, member, model, target_of(lineup, member, options.variant))

    def measure(
        self, calibration: Calibration, reader: TensorReader, control: Control, device: str
    ) -> Inputs:
        """Run the calibration set through the model as it is. Raises as `measure` does."""
        factors: dict[str, Floats] = {}
        if self.options.variant == "lora-space":
            factors = {
                name: _read(reader, self.target, change.a)
                for name, change in low_ranks(self.lineup, self.member)
            }
        weights = member_weights(self.lineup, self.member)
        return measure(weights, calibration, factors, self.options.norm, control, device)

    def pruned(
        self, inputs: Inputs, reader: TensorReader, control: Control
    ) -> Iterator[tuple[Part, Bools, Bools]]:
        """Yield every matrix, what is pruned of it, and what its random control prunes.

        Raises `UserError` with `nothing_to_prune` where there is none.
        """
        control.stage("Pruning", len(inputs.norms.names))
        found = 0
        for part in self._parts(inputs, reader):
            control.check()
            yield part, *part.chosen(self.options.alpha, self.options.seed)
            control.advance(1)
            found += 1
        if not found:
            raise UserError(
                "nothing_to_prune",
                f"{self.member.name} has nothing that this variant prunes.",
                f"Looked at: {', '.join(self.options.modules) or 'every Linear that differs'}.",
                "Choose other modules.",
            )

    def _parts(self, inputs: Inputs, reader: TensorReader) -> Iterator[Part]:
        """Yield every matrix that is looked at; one is in memory at a time."""
        options, lineup, member = self.options, self.lineup, self.member
        known = set(inputs.norms.names)

        def wanted(name: str) -> bool:
            return name in known and (not options.modules or parse(name).module in options.modules)

        if options.variant == "lora-space":
            for name, change in low_ranks(lineup, member):
                if not wanted(name):
                    continue
                module = parse(name).module
                norms = (inputs.of(name, options.norm), inputs.projected[name])
                for side, row, norm in zip("AB", (change.a, change.b), norms, strict=True):
                    values = _read(reader, self.target, row)
                    yield Part(f"{name} {side}", row, values, norm, False, f"{module} {side}")
            return
        for name in lineup.names:
            source = lineup.source(name, member)
            if source is None or not wanted(name):
                continue
            row = lineup.reference.checkpoint.index.row(name)
            shape = lineup.reference.checkpoint.index.shapes[row]
            count = int(np.prod(shape, dtype=np.int64))
            values = reader.read(source, 0, count)
            if options.variant == "delta-revert":
                own = lineup.source(name, lineup.reference)
                assert own is not None
                values = values - reader.read(own, 0, count)
                if not values.any():
                    continue
            else:
                row = source.row
            norm = inputs.of(name, options.norm)
            transposed = name in inputs.norms.transposed
            yield Part(name, row, values.reshape(shape), norm, transposed, parse(name).module)

    def report(self, found: Found, calibration: Calibration, device: str) -> dict[str, Any]:
        """Return what is to be known of a pruning, ready for JSON."""
        options, parts = self.options, found.parts
        modules = dict.fromkeys(module for module, _ in parts)
        return {
            "settings": {**asdict(options), "modules": list(options.modules)},
            "mode": options.mode,
            "model": self.member.name,
            "calibration": {"name": calibration.name, "digest": calibration.digest,
                            "examples": len(calibration.examples)},
            "device": device,
            "matrices": len(parts),
            "floored": found.floored,
            "total": added_up([part for _, part in parts]).to_dict(),
            "modules": {
                module: added_up([part for m, part in parts if m == module]).to_dict()
                for module in modules
            },
        }  # fmt: skip


def _chosen(recipe: Recipe, lineup: Lineup, name: str) -> tuple[Member, FineTuned]:
    pairs = list(zip(lineup.finetuned, recipe.finetuned, strict=True))
    found = [p for p in pairs if (p[0].name == name if name else takes_part(p[1]))]
    if not found:
        raise UserError(
            "no_such_model",
            f"The recipe has no fine-tuned model {name}." if name else "No model takes part.",
            f"It has {', '.join(m.name for m in lineup.finetuned) or 'none'}.",
            "Name one of these; a model whose ratio is 0 must be named.",
        )
    return found[0]


def _read(reader: TensorReader, checkpoint: Checkpoint, row: int) -> Floats:
    out = np.empty(int(checkpoint.index.numel[row]), dtype=np.float32)
    reader.read_plain(checkpoint, row, 0, out.size, out)
    return out.reshape(checkpoint.index.shapes[row])
