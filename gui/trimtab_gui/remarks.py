"""Notices and errors that say what was found on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QCoreApplication

from trimtab.checkpoints import Lineup
from trimtab.errors import UserError
from trimtab.inspection.result import Inspection
from trimtab_gui.notices import Notice


def _tr(text: str) -> str:
    return QCoreApplication.translate("remarks", text)


def non_finite(lineup: Lineup, inspection: Inspection) -> Notice | None:
    """Name the models that hold NaN or Inf: their numbers here mean nothing there."""
    reference = lineup.reference.name
    models = [lineup.base.name if lineup.base else reference, reference, *inspection.finetuned]
    bad = {m: int(n) for m, n in zip(models, inspection.non_finite.sum(axis=0), strict=True)}
    listed = ", ".join(f"{m} ({n:,})" for m, n in bad.items() if n)
    if not listed:
        return None
    return Notice(
        "warning",
        _tr("There is NaN or Inf in the weights."),
        _tr("Entries that are not finite: {models}.").format(models=listed),
        _tr("A merge stops at them: get that model again, or leave it out."),
        topic="finite",
    )


def methods_missing(problems: Sequence[str]) -> Notice:
    """Say that a package's methods could not be had."""
    return Notice(
        "warning",
        _tr("A package with merge methods could not be loaded."),
        _tr("Its methods are missing; all others work."),
        _tr("Look at the details, and mend or remove that package."),
        "\n".join(problems),
        topic="methods",
    )


def imported(name: str, notes: Sequence[str]) -> Notice:
    """Say that a recipe of mergekit's has become a project, and what was left out as idle."""
    what = _tr("{name} is a recipe of mergekit’s; it was opened as a new project.")
    return Notice("info", what.format(name=name), " ".join(notes), topic="open")


def damaged(path: str) -> UserError:
    """Return the error for an inspection whose file cannot be read."""
    return UserError(
        "inspection_unreadable",
        "The inspection's result cannot be read.",
        f"{Path(path).name} in the cache is missing or damaged.",
        "Try again: it is computed anew.",
        details=path,
    )
