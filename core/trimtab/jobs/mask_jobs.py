"""The jobs on masks: building one, joining several, what they remove, and their random control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.norms import ActNorms
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.inspection.attribution import NormScores, ScoreSource, StoredScores
from trimtab.jobs.mask_params import MaskScoresParams, MaskSharesParams
from trimtab.jobs.params import (
    MaskAccountParams,
    MaskBuildParams,
    MaskCombineParams,
    MaskControlParams,
    MaskScore,
)
from trimtab.masks.account import take_account
from trimtab.masks.builders import AtLeast, Difference, Largest, Selection, write_selection
from trimtab.masks.combine import common_shapes, write_stack
from trimtab.masks.entries import MaskEntry, Rule
from trimtab.masks.file import MaskAbout, MaskWriter, Mode, Prompts
from trimtab.masks.matched import write_control
from trimtab.masks.outputs import Inputs, NormInputs
from trimtab.masks.scores import Magnitude, TaskVector, finetuned
from trimtab.masks.spread import spread
from trimtab.masks.stack import MaskStack
from trimtab.merging.place import output_exists
from trimtab.merging.recipe import Recipe, open_lineup


@dataclass(frozen=True)
class _Opened:
    """A recipe's lineup, and one fine-tuned model of it."""

    recipe: Recipe
    lineup: Lineup
    member: Member
    reader: TensorReader
    vector: TaskVector

    @property
    def entries(self) -> tuple[MaskEntry, ...]:
        """The model's own masks in the recipe."""
        return self.recipe.finetuned[self.lineup.finetuned.index(self.member)].masks

    def stack(self, entries: tuple[MaskEntry, ...] | None) -> MaskStack:
        """Return a stack that fits the lineup: of these entries, or the model's own."""
        stack = MaskStack(self.entries if entries is None else entries, self.recipe.seed)
        stack.check(_shapes(self.lineup))
        return stack


@contextmanager
def _opened(recipe: Recipe, model: str) -> Iterator[_Opened]:
    lineup = open_lineup(recipe)
    member = finetuned(lineup, model)
    with TensorReader() as reader:
        yield _Opened(recipe, lineup, member, reader, TaskVector(lineup, member, reader))


def _shapes(lineup: Lineup) -> dict[str, tuple[int, ...]]:
    return dict(zip(lineup.names, lineup.reference.checkpoint.index.shapes, strict=True))


def mask_build(params: MaskBuildParams, control: Control) -> dict[str, Any]:
    """Write a mask whose entries are chosen by scores, and return what it removes."""
    output = _place(params.output, params.overwrite)
    with _opened(params.recipe, params.model) as opened:
        scores = _Scores(params.of, opened, params.only)
        selection, sources = _selection(params.of, scores), [scores]
        if params.minus is not None:
            less = _Scores(params.minus, opened, params.only)
            selection = Difference(selection, _selection(params.minus, less))
            sources.append(less)
        given = params.model_dump(mode="json", include={"of", "minus", "only"}, exclude_none=True)
        about = MaskAbout(
            builder=params.builder or _called(scores.about, params.minus),
            # where others rank within rows, one threshold for all is ours
            mode="ours" if params.of.threshold is not None else _mode(scores.about),
            parameters={**given, "model": opened.member.name},
            lineup=opened.lineup.fingerprint,
            prompts=tuple(p for source in sources for p in _prompts(source.about)),
        )
        with MaskWriter(output, about) as writer:
            removes = params.of.remove is not None or params.of.removes
            write_selection(selection, writer, control, remove=removes)
            writer.finish()
        entries = (_entry(output),)
        account = _account(opened, entries, control, by_tensor=params.by_tensor)
    return {"path": str(output), "account": account}


def mask_combine(params: MaskCombineParams, control: Control) -> dict[str, Any]:
    """Write a stack as one mask."""
    output = _place(params.output, params.overwrite)
    stack = MaskStack(params.entries, params.seed)
    account = None
    if params.recipe is None:
        shapes, lineup = common_shapes(stack.files), ""
        if not shapes:
            raise UserError(
                "nothing_to_mask",
                "The masks do not say which tensors there are.",
                "Rules and chance alone know no model.",
                "Name a recipe, or combine mask files.",
            )
        _write_stack(stack, shapes, output, params, lineup, control)
    else:
        with _opened(params.recipe, params.model) as opened:
            stack.check(_shapes(opened.lineup))
            shapes = {name: opened.vector.shape(name) for name in opened.vector.names}
            _write_stack(stack, shapes, output, params, opened.lineup.fingerprint, control)
            account = _account(opened, (_entry(output),), control)
    return {"path": str(output), "account": account}


def _write_stack(
    stack: MaskStack,
    shapes: Mapping[str, tuple[int, ...]],
    output: Path,
    params: MaskCombineParams,
    lineup: str,
    control: Control,
) -> None:
    entries = [e.model_dump(exclude_defaults=True, mode="json") for e in params.entries if e.on]
    about = MaskAbout(
        builder="stack", parameters={"entries": entries}, seed=params.seed, lineup=lineup,
        prompts=_prompts_of(stack),
    )  # fmt: skip
    with MaskWriter(output, about) as writer:
        write_stack(stack, shapes, writer, control)
        writer.finish()


def mask_account(params: MaskAccountParams, control: Control) -> dict[str, Any]:
    """Return what masks remove of a task vector, by tensor, layer and module, and in all.

    `measured` says on which prompts the output's energy was found, and of which tokens.
    """
    with _opened(params.recipe, params.model) as opened:
        files = opened.stack(params.entries).files
        inputs: Inputs | None = None
        measured: dict[str, Any] | None = None
        if params.calibration:
            from trimtab.jobs.mask_inputs import calibrated_inputs

            inputs, measured = calibrated_inputs(
                params, opened.lineup, opened.member, opened.reader, control
            )
        elif params.norms:
            inputs = NormInputs(ActNorms.load(Path(params.norms)), params.mode)
        found = _account(opened, params.entries, control, inputs, by_tensor=params.by_tensor)
    masks = [{"path": str(f.path), **f.about.model_dump(mode="json")} for f in files]
    return {**found, "measured": measured, "masks": masks}


def mask_shares(params: MaskSharesParams, control: Control) -> dict[str, Any]:
    """Return how much of each tensor a stack keeps, and of all entries after each of its steps.

    Only masks are read, not the models: `so_far` has a share for each entry that is on, else None.
    """
    with _opened(params.recipe, params.model) as opened:
        opened.stack(params.entries)
        entries = opened.entries if params.entries is None else params.entries
        shapes = {name: opened.vector.shape(name) for name in opened.vector.names}
        total = sum(math.prod(shape) for shape in shapes.values())
        so_far: list[float | None] = []
        kept = {name: float(math.prod(shape)) for name, shape in shapes.items()}
        control.stage("Counting", len(entries) * len(shapes))
        for count, entry in enumerate(entries, 1):
            if not entry.on:
                so_far.append(None)
                continue
            stack = MaskStack(entries[:count], opened.recipe.seed)
            for name, shape in shapes.items():
                control.check()
                mask = stack.of(name, shape)
                kept[name] = math.prod(shape) * mask if isinstance(mask, bool) else mask.kept
                control.advance(1)
            so_far.append(sum(kept.values()) / total if total else 1.0)
    tensors = {name: {"entries": math.prod(shapes[name]), "kept": kept[name]} for name in shapes}
    return {"model": opened.member.name, "so_far": so_far, "tensors": tensors}


def mask_overlap(params: MaskSharesParams, control: Control) -> dict[str, Any]:
    """Return how much of τ, and of what masks keep of it, lies in alignment's directions."""
    from trimtab.masks.overlap import find_overlap, told

    with _opened(params.recipe, params.model) as opened:
        stack = opened.stack(params.entries)
        found = find_overlap(stack, opened.vector, opened.lineup, opened.reader, control)
    return {"model": opened.member.name, "tensors": told(found)}


def mask_scores(params: MaskScoresParams, control: Control) -> dict[str, Any]:
    """Return how the scores that a mask would be built by are spread: see `masks.spread`.

    `spared` entries are those that `minus` chooses, which are not counted.
    """
    with _opened(params.recipe, params.model) as opened:
        minus = None
        if params.minus is not None:
            minus = _selection(params.minus, _Scores(params.minus, opened, params.only))
        found, spared = spread(_Scores(params.of, opened, params.only), control, minus)
    return {"score": params.of.score, "logarithmic": True, "spared": spared, **found.to_dict()}


def mask_control(params: MaskControlParams, control: Control) -> dict[str, Any]:
    """Write a random mask that removes as much as another, and return how near it comes."""
    output = _place(params.output, params.overwrite)
    with _opened(params.recipe, params.model) as opened:
        stack = opened.stack(params.entries)
        about = MaskAbout(
            builder="random control",
            parameters={
                "match": params.match, "over": params.over, "model": opened.member.name,
                "of": [f.path.name for f in stack.files],
            },
            seed=params.seed, lineup=opened.lineup.fingerprint, prompts=_prompts_of(stack),
        )  # fmt: skip
        with MaskWriter(output, about) as writer:
            matched = write_control(
                stack, opened.vector, writer, control,
                match=params.match, over=params.over, seed=params.seed,
            )  # fmt: skip
            writer.finish()
        wanted, removed = sum(m.wanted for m in matched), sum(m.removed for m in matched)
        return {
            "path": str(output),
            "match": params.match,
            "worst_error": max((m.error for m in matched), default=0.0),
            "error": abs(removed - wanted) / wanted if wanted else 0.0,
            "tensors": [
                {**asdict(m), "error": m.error} for m in (matched if params.by_tensor else ())
            ],
            "account": _account(opened, (_entry(output),), control, by_tensor=params.by_tensor),
        }


class _Scores:
    """The scores that a mask is built by, of the tensors that a rule names."""

    def __init__(self, wanted: MaskScore, opened: _Opened, only: Rule | None):
        self._source = _source(wanted, opened)
        shapes = _shapes(opened.lineup)
        for name in self._source.names:
            if shapes.get(name) != self._source.shape(name):
                raise UserError(
                    "scores_do_not_fit",
                    f"The scores do not fit {name}.",
                    f"They are {list(self._source.shape(name))} and the model has "
                    + (f"{list(shapes[name])}." if name in shapes else "no such tensor."),
                    "Compute them anew for these models.",
                    details=wanted.file,
                )
        changed = set(opened.vector.names)
        self.names = tuple(
            n for n in self._source.names if n in changed and (only is None or only.matches(n))
        )
        self.about: Mapping[str, Any] = self._source.about
        if not self.names:
            raise UserError(
                "nothing_to_mask",
                "No tensor is left to choose from.",
                "A mask is of tensors that have scores, were changed and fit the rule.",
                "Use other scores, or another rule.",
            )

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def read(self, name: str, low: int, high: int) -> npt.NDArray[np.float32]:
        return self._source.read(name, low, high)


def _source(wanted: MaskScore, opened: _Opened) -> ScoreSource:
    if wanted.score == "magnitude":
        return Magnitude(opened.vector)
    if not wanted.file:
        raise UserError(
            "no_scores",
            f"The scores of {wanted.score} need a file.",
            "They are made of what a model does on a calibration set.",
            "Make one with 'trimtab attribute'.",
        )
    if wanted.score == "stored":
        return StoredScores(Path(wanted.file), opened.reader)
    norms = ActNorms.load(Path(wanted.file))
    delta = wanted.score == "delta-wanda"
    member = opened.lineup.aligned if wanted.scored == "aligned" else opened.member
    if member is None:
        raise UserError(
            "no_aligned",
            "The recipe has no aligned model.",
            "Its weights are what is to be scored.",
            "Add the aligned model to the recipe, or score the fine-tuned one.",
        )
    return NormScores(opened.lineup, member, norms, wanted.mode, opened.reader, delta=delta)


def _selection(wanted: MaskScore, scores: ScoreSource) -> Selection:
    if wanted.threshold is not None and wanted.keep is None and wanted.remove is None:
        return AtLeast(scores, wanted.threshold)
    return Largest(scores, wanted.keep, wanted.remove, wanted.extent, wanted.smallest)


def _called(about: Mapping[str, Any], minus: MaskScore | None) -> str:
    return str(about["score"]) if minus is None else "set-difference"


def _mode(about: Mapping[str, Any]) -> Mode:
    mode = about.get("mode", "ours")
    return mode if mode in ("paper", "authors' code") else "ours"


def _prompts(about: Mapping[str, Any]) -> tuple[Prompts, ...]:
    """Return the calibration prompts that scores speak of."""
    inner = about.get("calibration")
    said = inner if isinstance(inner, Mapping) else about
    if "digest" not in said:
        return ()
    name, ids = str(said.get("calibration", "")), said.get("ids", ())
    return (Prompts(name=name, digest=str(said["digest"]), ids=tuple(map(str, ids))),)


def _prompts_of(stack: MaskStack) -> tuple[Prompts, ...]:
    found = dict.fromkeys(prompts for file in stack.files for prompts in file.about.prompts)
    return tuple(found)


def _account(
    opened: _Opened,
    entries: tuple[MaskEntry, ...] | None,
    control: Control,
    inputs: Inputs | None = None,
    *,
    by_tensor: bool = True,
) -> dict[str, Any]:
    account = take_account(
        opened.stack(entries), opened.vector, opened.lineup, opened.reader, control, inputs=inputs
    )
    return {"model": opened.member.name, **account.to_dict(by_tensor)}


def _place(output: str, overwrite: bool) -> Path:
    path = Path(output).expanduser().absolute()
    if path.exists() and not overwrite:
        raise output_exists(path)
    return path


def _entry(path: Path) -> MaskEntry:
    return MaskEntry(path=str(path))
