"""LED-Merging: of each task what matters for it, before and after training, and for no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.activations.calibration import Calibration
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.account import take_account
from trimtab.masks.builders import Difference, Flags, Largest, Selection, write_selection
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX, MaskWriter
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack
from trimtab.merging.place import output_exists
from trimtab.merging.recipe import FineTuned, Recipe, open_lineup
from trimtab.realign.data_methods import LedMergingOptions
from trimtab.realign.set_difference import scores_of
from trimtab.realign.somf_recipe import takes_part
from trimtab.realign.work import Changed, Work


@dataclass
class Common:
    """What two selections of the same tensors both choose."""

    one: Largest
    other: Largest

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that the first one chooses from."""
        return self.one.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.one.shape(name)

    def prepare(self, control: Control) -> None:
        """Prepare both."""
        self.one.prepare(control)
        self.other.prepare(control)

    def chosen(self, name: str) -> Iterator[Flags]:
        """Yield which entries of a tensor are chosen, bool, in flat order."""
        # both are read in the same pieces
        for flags, others in zip(self.one.chosen(name), self.other.chosen(name), strict=True):
            yield flags & others


@dataclass(frozen=True)
class _Task:
    """A model, what it was made from, its prompts, and the share of entries that it takes."""

    before: Member
    after: Member
    prompts: Calibration
    share: float


def led_merging(work: Work, options: LedMergingOptions, control: Control) -> dict[str, Any]:
    """Write a mask for each model that is merged, and the recipe that merges them.

    Ma et al. 2025, arXiv 2502.16770, from the formula: the released code is an ablation, in which
    scores are drawn at random. Scores are SNIP's, shares of each tensor; tensors without scores,
    which are all but the Linears in the blocks, keep every model's change. From the origin base
    the aligned model is merged as the task of safety (paper); from the origin aligned (ours) it
    is what changes are added to, and what matters for safety is left alone. λ are the recipe's
    ratios. Raises `UserError` with `cannot_write`, `utility_sets`, `led_adapter`.
    """
    if work.output.suffix != ".trim":
        raise UserError(
            "cannot_write",
            f"{work.output.name} is no name for a recipe.",
            "This method writes a recipe and, beside it, a mask for each model.",
            f"Call it {work.output.name.split('.')[0]}.trim.",
        )
    recipe, lineup = _lineup(work, options)
    tasks = _tasks(work, options, lineup)
    merged = [task for task in tasks if task.after in lineup.finetuned]
    places = [_place(work, task.after.name) for task in merged]
    masks: dict[str, tuple[MaskEntry, ...]] = {}
    accounts: dict[str, Any] = {}
    with TensorReader() as reader:
        for task, place in zip(merged, places, strict=True):
            vector = TaskVector(lineup, task.after, reader)
            within = _Within(work, lineup, vector, reader, control)
            selection: Selection = within.common(task)
            for other in tasks:
                if other is not task:
                    selection = Difference(selection, within.common(other))
            about = work.about("LED-Merging", "paper" if options.origin == "base" else "ours",
                               {**options.model_dump(), "mask_of": task.after.name})  # fmt: skip
            with MaskWriter(place, about) as writer:
                write_selection(selection, writer, control, remove=False)
                writer.finish()
            masks[task.after.name] = (MaskEntry(path=str(place), name="LED-Merging"),)
            stack = MaskStack(masks[task.after.name], recipe.seed)
            account = take_account(stack, vector, lineup, reader, control)
            accounts[task.after.name] = account.to_dict()
    models = tuple(
        model.model_copy(update={"masks": (*model.masks, *masks[member.name])})
        for member, model in zip(lineup.finetuned, recipe.finetuned, strict=True)
    )
    recipe.model_copy(update={"finetuned": models}).save(work.output)
    written = {f"mask {i}": str(place) for i, place in enumerate(places, 1)}
    return {
        "mode": "paper" if options.origin == "base" else "ours",
        "accounts": accounts,
        "files": {"recipe": str(work.output), **written},
    }


class _Within:
    """Makes selections of the tensors that one model changes."""

    def __init__(
        self, work: Work, lineup: Lineup, vector: TaskVector, reader: TensorReader, control: Control
    ):
        self._work, self._lineup, self._vector = work, lineup, vector
        self._reader, self._control = reader, control

    def common(self, task: _Task) -> Common:
        """Return what matters for a task before and after training."""
        one, other = (
            Largest(
                Changed(
                    scores_of(
                        self._work, member, task.prompts, "snip", self._reader, self._control,
                        self._lineup if member in self._lineup.members else self._work.lineup,
                    ),
                    self._vector,
                ),
                keep=task.share,
            )
            for member in (task.before, task.after)
        )  # fmt: skip
        return Common(one, other)


def _lineup(work: Work, options: LedMergingOptions) -> tuple[Recipe, Lineup]:
    """Return the recipe that is to be merged, as yet without masks, and its lineup."""
    models = [m for m in work.recipe.finetuned if takes_part(m)]
    plain = {"method": "task_arithmetic", "parameters": {}}
    if options.origin == "aligned":
        recipe = work.recipe.model_copy(update={**plain, "finetuned": tuple(models)})
        return recipe, open_lineup(recipe)
    _check_origin(work)
    assert work.recipe.aligned is not None
    aligned = FineTuned(**work.recipe.aligned.model_dump(), ratio=options.strength)
    if not aligned.name:
        aligned = aligned.model_copy(update={"name": work.aligned.name})
    recipe = work.recipe.model_copy(
        update={**plain, "aligned": None, "finetuned": (aligned, *models)}
    )
    return recipe, open_lineup(recipe)


def _check_origin(work: Work) -> None:
    """Raise `UserError` with `led_adapter` for an adapter, whose change is from the aligned one."""
    for member in work.lineup.finetuned:
        if member.checkpoint.kind == "adapter":
            raise UserError(
                "led_adapter",
                f"{member.name} is an adapter.",
                "What it changes is measured from the model it was trained on, not from the base.",
                "Choose the origin aligned, or merge the adapter into its model first.",
            )


def _tasks(work: Work, options: LedMergingOptions, lineup: Lineup) -> list[_Task]:
    first = work.aligned if options.origin == "aligned" else lineup.finetuned[0]
    models = lineup.finetuned if options.origin == "aligned" else lineup.finetuned[1:]
    base = work.lineup.base if options.origin == "aligned" else lineup.base
    assert base is not None  # the job has seen to it
    sets = _sets(work.utility, len(models))
    return [
        _Task(base, first, work.safety, options.safety),
        *(
            _Task(lineup.reference, member, prompts, options.utility)
            for member, prompts in zip(models, sets, strict=True)
        ),
    ]


def _sets(found: Sequence[Calibration], models: int) -> Sequence[Calibration]:
    if len(found) in (1, models):
        return found if len(found) == models else [found[0]] * models
    raise UserError(
        "utility_sets",
        f"There are {len(found)} sets of useful prompts for {models} models.",
        "Each model has a task of its own.",
        "Name one set for each, in the recipe's order, or one for all.",
    )


def _place(work: Work, name: str) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    place = work.output.with_name(f"{work.output.stem}-{safe}{SUFFIX}")
    if place.exists() and not work.overwrite:
        raise output_exists(place)
    return place
