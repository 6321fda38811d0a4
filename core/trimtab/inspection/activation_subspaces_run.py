"""Runs two sets of prompts through models, and compares what safe and useful answers activate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.blocks import Site
from trimtab.activations.calibrated import Setting, calibrated, count_tokens, provenance
from trimtab.activations.calibration import Calibration
from trimtab.activations.moment_watch import Layer, MomentWatch
from trimtab.activations.second_moments import Moments
from trimtab.activations.statistics import StateWatch, Which
from trimtab.activations.tokens import need_answers
from trimtab.activations.weights import ModelWeights, member_weights
from trimtab.checkpoints import Lineup, Member, Source
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.activation_subspaces import (
    GROUPS,
    ActivationSubspaces,
    MatrixOverlap,
    compare,
    refusal_layers,
)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """What is compared: of how many directions, with the mean or without, on which tokens."""

    rank: int = 16
    centre: bool = False
    tokens: Which = "answers"
    seed: int = 0


def matched(safe: Calibration, useful: Calibration, limit: int | None) -> tuple[Calibration, int]:
    """Return both sets as one, of as many examples of each, and that number.

    Raises `UserError` with `calibration_short` where prompts cannot be dealt out anew.
    """
    n = min(len(safe.examples), len(useful.examples), limit or len(safe.examples))
    if n < 2 * GROUPS:
        raise UserError(
            "calibration_short",
            f"There are only {n} examples of each kind.",
            f"Chance is told by dealing them out anew in {GROUPS} groups of at least two.",
            f"Give both sets at least {2 * GROUPS} examples.",
        )
    name = f"{safe.name} and {useful.name}"
    examples = (*safe.spread(n).examples, *useful.spread(n).examples)
    return Calibration(name, examples), n


def find_activation_subspaces(
    lineup: Lineup,
    member: Member,
    prompts: Calibration,
    harmful: int,
    setting: Setting,
    choice: Choice,
    control: Control,
) -> ActivationSubspaces:
    """Compare the subspaces of one model's outputs; of all models the refusal directions.

    The first `harmful` examples of `prompts` are harmful and refused, the others benign and
    answered. A model runs a block at a time. Raises `UserError` as `calibrated` does and with
    `no_answers`, and `JobCancelled`.
    """
    weights = member_weights(lineup, member)
    states: dict[str, Array] = {}
    rows: list[MatrixOverlap] = []
    with TensorReader() as reader:
        changes = _Changes(lineup, reader)

        def layer(site: Site) -> Layer:
            return _layer(weights, reader, site)

        def take(site: Site, moments: list[Moments]) -> None:
            control.check()
            rows.append(
                compare(
                    site.name, moments, changes.of(site), rank=choice.rank, centre=choice.centre,
                    seed=choice.seed,
                )
            )  # fmt: skip

        n = len(prompts.examples)
        group_of = [i % GROUPS if i < harmful else GROUPS + i % GROUPS for i in range(n)]
        with calibrated(weights, prompts, setting, control) as ready:
            if choice.tokens == "answers":
                need_answers(ready.tokens, prompts)
            watch = MomentWatch(group_of, 2 * GROUPS, choice.tokens, layer, take)
            kept = _state_watch(ready.model.model.config, len(ready.model.blocks), n)
            ready.run.forward([watch, kept])
            states[member.name] = kept.states
    for other in lineup.members:
        if other is not member:
            states[other.name] = _states(lineup, other, prompts, setting, control)
    about = {
        **provenance(weights, prompts, setting),
        "model": member.name, "examples": harmful, "rank": choice.rank, "centre": choice.centre,
        "tokens": choice.tokens, "seed": choice.seed, "counted": count_tokens(
            weights, prompts, setting
        ),
    }  # fmt: skip
    refusal = refusal_layers(states, harmful, member.name, choice.seed)
    return ActivationSubspaces(about, tuple(rows), tuple(refusal))


def _states(
    lineup: Lineup, member: Member, prompts: Calibration, setting: Setting, control: Control
) -> Array:
    with calibrated(member_weights(lineup, member), prompts, setting, control) as ready:
        n = len(prompts.examples)
        watch = _state_watch(ready.model.model.config, len(ready.model.blocks), n)
        ready.run.forward([watch])
    return watch.states


def _state_watch(config: Any, blocks: int, examples: int) -> StateWatch:
    return StateWatch(blocks, examples, int(config.get_text_config().hidden_size))


def _layer(weights: ModelWeights, reader: TensorReader, site: Site) -> Layer:
    """Return a Linear's weight [out, in] and bias [out], float64."""
    weight = weights.read(reader, site.name).astype(np.float64)
    name = site.name.removesuffix("weight") + "bias"
    bias = weights.read(reader, name).astype(np.float64) if name in weights.sources else None
    return (weight.T if site.transposed else weight), bias


class _Changes:
    """The changes of one weight from the reference to each other model: τ of a fine-tuned one.

    To the base it is −a. Tensors that a model or the reference lacks have none.
    """

    def __init__(self, lineup: Lineup, reader: TensorReader):
        self._lineup = lineup
        self._reader = reader

    def of(self, site: Site) -> dict[str, Array]:
        """Return them by the models' names, float32 [out, in]."""
        lineup = self._lineup
        if site.name not in lineup.sources:
            return {}
        reference = lineup.source(site.name, lineup.reference)
        others = [member for member in lineup.members if member is not lineup.reference]
        found = {}
        for member in others:
            own = lineup.source(site.name, member)
            if own is not None and reference is not None:
                change = self._read(own, site) - self._read(reference, site)
                found[member.name] = change
        return found

    def _read(self, source: Source, site: Site) -> Array:
        size = site.shape[0] * site.shape[1]
        values = self._reader.read(source, 0, size).reshape(site.shape)
        return values.T if site.transposed else values
