"""What a method that works from data is given, and what it leaves beside its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.calibration import Calibration
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.attribution import ScoreSource
from trimtab.masks.account import take_account
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX, MaskAbout, Mode, Prompts
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack
from trimtab.merging.place import output_exists
from trimtab.merging.recipe import FineTuned, Recipe, open_lineup
from trimtab.realign.somf_recipe import takes_part

if TYPE_CHECKING:
    from trimtab.activations.calibrated import Setting


@dataclass(frozen=True)
class Work:
    """A recipe's lineup, one fine-tuned model of it, prompt sets, and where the result goes.

    `utility` holds one set, or one for each fine-tuned model that takes part.
    """

    recipe: Recipe
    lineup: Lineup
    member: Member
    model: FineTuned
    safety: Calibration
    utility: tuple[Calibration, ...]
    setting: Setting
    output: Path
    overwrite: bool = False

    @property
    def aligned(self) -> Member:
        """The model that is reverted to. Raises `UserError` with `no_aligned`."""
        if self.lineup.aligned is None:
            raise UserError(
                "no_aligned",
                "The recipe has no aligned model.",
                "This method takes back to it what fine-tuning changed.",
                "Add the aligned model to the recipe.",
            )
        return self.lineup.aligned

    def scored(self, which: str) -> Member:
        """Return the aligned or the fine-tuned model."""
        return self.aligned if which == "aligned" else self.member

    def about(
        self, builder: str, mode: Mode, parameters: Mapping[str, Any], seed: int | None = None
    ) -> MaskAbout:
        """Return where a mask is from: all prompt sets are in it."""
        return MaskAbout(
            builder=builder, mode=mode, parameters={**parameters, "model": self.member.name},
            seed=seed, lineup=self.lineup.fingerprint,
            prompts=tuple(
                Prompts(name=s.name, digest=s.digest, ids=s.ids)
                for s in dict.fromkeys((self.safety, *self.utility))
            ),
        )  # fmt: skip

    def sets(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is to be told of the prompt sets, ready for JSON."""

        def told(s: Calibration) -> dict[str, Any]:
            return {"name": s.name, "digest": s.digest, "ids": list(s.ids)}

        return {"safety": [told(self.safety)], "utility": [told(s) for s in self.utility]}


def open_work(
    recipe: Recipe,
    model: str,
    safety: Calibration,
    utility: Sequence[Calibration],
    setting: Setting,
    output: Path,
    overwrite: bool,
) -> Work:
    """Open a recipe's lineup and choose the model: by its name, or the first that takes part.

    Raises `UserError` with `cannot_merge`, `no_such_model`, `output_exists`.
    """
    output = output.expanduser().absolute()
    if output.exists() and not overwrite:
        raise output_exists(output)
    lineup = open_lineup(recipe)
    if lineup.errors:
        first = lineup.errors[0]
        raise UserError("cannot_merge", f"{first.model} does not fit.", first.what, first.effect)
    pairs = list(zip(lineup.finetuned, recipe.finetuned, strict=True))
    found = [p for p in pairs if (p[0].name == model if model else takes_part(p[1]))]
    if not found:
        raise UserError(
            "no_such_model",
            f"The recipe has no fine-tuned model {model}." if model else "No model takes part.",
            f"It has {', '.join(m.name for m in lineup.finetuned) or 'none'}.",
            "Name one of these; a model whose ratio is 0 must be named.",
        )
    return Work(
        recipe, lineup, *found[0], safety, tuple(utility), setting, output, overwrite
    )  # fmt: skip


class Changed:
    """Scores of those tensors alone that a model changes."""

    def __init__(self, scores: ScoreSource, vector: TaskVector):
        own = set(vector.names)
        self._scores = scores
        self.names = tuple(name for name in scores.names if name in own)
        self.about = scores.about
        if not self.names:
            raise UserError(
                "nothing_to_mask",
                "No tensor is left to choose from.",
                "The model changes no Linear in the blocks.",
                "Choose another model.",
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._scores.shape(name)

    def read(self, name: str, low: int, high: int) -> npt.NDArray[np.float32]:
        """Return the scores of elements [low, high), float32 [high - low]."""
        return self._scores.read(name, low, high)


def check_mask_name(work: Work) -> None:
    """Raise `UserError` unless the output is a mask's name, and its recipe's name is free.

    With `cannot_write` or `output_exists`.
    """
    path = work.output
    if not path.name.endswith(SUFFIX):
        raise UserError(
            "cannot_write",
            f"{path.name} is no name for a mask.",
            f"The names of masks end in {SUFFIX}.",
            f"Call it {path.name.split('.')[0]}{SUFFIX}.",
        )
    if beside(path).exists() and not work.overwrite:
        raise output_exists(beside(path))


def beside(mask: Path) -> Path:
    """Return the path of the recipe that uses a mask."""
    return mask.with_name(mask.name.removesuffix(SUFFIX) + ".trim")


def masked_recipe(work: Work, name: str) -> Recipe:
    """Return the recipe in which the model has the mask that was written, below its own ones."""
    entry = MaskEntry(path=str(work.output), name=name)
    masked = work.model.model_copy(update={"masks": (*work.model.masks, entry)})
    models = tuple(masked if m is work.model else m for m in work.recipe.finetuned)
    return work.recipe.model_copy(update={"finetuned": models})


def finish_mask(
    work: Work, name: str, vector: TaskVector, reader: TensorReader, control: Control
) -> dict[str, Any]:
    """Write the recipe beside the mask, and return both paths and what the mask removes."""
    recipe = beside(work.output)
    masked_recipe(work, name).save(recipe)
    stack = MaskStack((MaskEntry(path=str(work.output)),), work.recipe.seed)
    account = take_account(stack, vector, work.lineup, reader, control)
    return {
        "accounts": {work.member.name: account.to_dict()},
        "files": {"mask": str(work.output), "recipe": str(recipe)},
    }
