"""What merges were calibrated on, held against the prompts that they are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.activations.calibration import SHIPPED, Calibration, load_calibration
from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, Suite
from trimtab.evaluation.suite_overlap import find_overlap
from trimtab.masks.file import MaskFile, Prompts
from trimtab.merging.recipe import Recipe

How = Literal["text", "ids", "unknown"]
_SHOWN = 5


@dataclass(frozen=True)
class Checked:
    """One set of prompts that was used, and which of the suite's prompts it holds.

    `how` says what was compared: texts; ids, where the texts are not at hand; or nothing.
    """

    name: str
    used_by: str
    how: How
    size: int
    met: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def as_prompts(calibration: Calibration) -> tuple[Prompt, ...]:
    """Return the examples' prompts as prompts to be compared."""
    return tuple(
        Prompt(example.id or str(number), "text", example.prompt)
        for number, example in enumerate(calibration.examples, 1)
        if example.prompt.strip()
    )


def check_calibration(
    suite: Suite, recipes: Iterable[Recipe], named: Sequence[Calibration]
) -> tuple[Checked, ...]:
    """Compare a suite with the sets that are `named` and those that the recipes' masks know.

    Raises `UserError` as opening masks does.
    """
    found = [_by_text(suite, each.name, "named with the run", as_prompts(each)) for each in named]
    paths = [
        entry.path
        for recipe in recipes
        for model in recipe.finetuned
        for entry in model.masks
        if entry.on and entry.path
    ]
    return (*found, *check_masks(suite, paths, named))


def check_masks(
    suite: Suite, paths: Iterable[str], named: Sequence[Calibration] = ()
) -> tuple[Checked, ...]:
    """Compare a suite with what mask files were found with.

    A mask file holds a digest and ids of its prompts. Where a named or shipped set has that digest
    its texts are compared; else the ids are. Raises `UserError` as opening masks does.
    """
    found = []
    for path in dict.fromkeys(paths):
        for used in MaskFile.open(Path(path)).about.prompts:
            texts = _texts_of(used, named)
            if texts is not None:
                found.append(_by_text(suite, used.name, Path(path).name, as_prompts(texts)))
            else:
                found.append(_by_ids(suite, used, Path(path).name))
    return tuple(found)


def refuse_overlap(
    checked: Sequence[Checked],
    suite: Suite,
    fix: str = "Use another suite, or go on with --allow-overlap, which the results will say.",
) -> None:
    """Raise `UserError` with `prompts_overlap` where a set holds prompts of the suite."""
    known = [each for each in checked if each.met]
    if not known:
        return
    met = {prompt for each in known for prompt in each.met}
    lines = [
        f"{each.name}, used by {each.used_by}: {len(each.met)} prompts (by {each.how}), such as "
        + "; ".join(each.examples)
        for each in known
    ]
    raise UserError(
        "prompts_overlap",
        f"{len(met)} of {len(suite.prompts)} evaluation prompts are also among the calibration "
        "prompts.",
        f"{lines[0]}. What was calibrated on a prompt looks better on it than on others.",
        fix,
        details="\n".join(lines),
    )


def limits_of_calibration(checked: Sequence[Checked]) -> tuple[str, ...]:
    """Return in sentences what was calibrated on the suite, and what could not be told."""
    found = [
        f"{len(each.met)} prompts of the suite are among those of {each.name}, which "
        f"{each.used_by} used: numbers on them are too good."
        for each in checked
        if each.met
    ]
    found += [
        f"{each.used_by} was found with the prompts of {each.name}, which are not at hand: whether "
        "the suite holds some of them is not known."
        for each in checked
        if each.how == "unknown"
    ]
    return tuple(found)


def _by_text(suite: Suite, name: str, used_by: str, prompts: Sequence[Prompt]) -> Checked:
    pairs = find_overlap(prompts, suite.prompts)
    met = dict.fromkeys(pair.evaluation.id for pair in pairs)
    examples = dict.fromkeys(pair.evaluation.text[:80] for pair in pairs)
    return Checked(name, used_by, "text", len(prompts), tuple(met), tuple(examples)[:_SHOWN])


def _by_ids(suite: Suite, used: Prompts, used_by: str) -> Checked:
    if not used.ids:
        same = used.digest == suite.digest
        met = tuple(prompt.id for prompt in suite.prompts) if same else ()
        return Checked(used.name, used_by, "ids" if same else "unknown", len(met), met, met[:1])
    # many sets have a prompt called 7: only a name says that two are the same
    ids = {name for name in used.ids if any(sign.isalpha() for sign in name)}
    if not ids:
        return Checked(used.name, used_by, "unknown", len(used.ids))
    met = tuple(prompt.id for prompt in suite.prompts if prompt.id in ids)
    return Checked(used.name, used_by, "ids", len(ids), met, met[:_SHOWN])


def _texts_of(used: Prompts, named: Sequence[Calibration]) -> Calibration | None:
    """Return the very prompts that a mask was found with, where they are at hand."""
    shipped = [load_calibration(used.name)] if used.name in SHIPPED else []
    ids = set(used.ids)
    for whole in (*named, *shipped):
        part = tuple(example for example in whole.examples if example.id in ids)
        for examples in (whole.examples, part):
            if examples and used.digest == Calibration(whole.name, examples).digest:
                return Calibration(used.name, examples)
    return None
