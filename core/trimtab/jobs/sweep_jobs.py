"""The job `sweep`: searches what may vary in a recipe for merges that no other one beats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import SweepParams
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.search.spec import Spec

#: what of the parameters is no part of a sweep's spec
_OF_THIS_RUN = frozenset(
    ("output", "trials", "minutes", "workers", "points", "device", "resume", "overwrite")
)


def sweep(params: SweepParams, control: Control) -> dict[str, Any]:
    """Search, or go on with a search; returns where to read what was found.

    On the way `sweep.json` in the output folder says where it stands. Cancelled or abandoned, all
    trials are kept to go on from.
    """
    from trimtab.evaluation.choosing import Connection
    from trimtab.evaluation.opening import open_judge, open_suite
    from trimtab.search.board import BOARD
    from trimtab.search.folder import begin
    from trimtab.search.run import Budget, Sweep

    folder = Path(params.output).expanduser().absolute()
    spec = _spec(params, folder)
    device = chosen_devices(params.device)[0]
    suite = open_suite(spec.suite, spec.format)
    judge = open_judge(spec.judge, Connection(), control, device=device)
    search = Sweep(folder, spec, suite, judge, device)  # what cannot be searched leaves no folder
    begin(folder, spec, resume=params.resume, overwrite=params.overwrite)
    budget = Budget(params.trials, params.minutes, params.workers, params.points)
    found = search.run(budget, control, cache_dir() / "answers")
    return {"path": str(folder / BOARD), "folder": str(folder), "front": len(found["front"])}


def _spec(params: SweepParams, folder: Path) -> Spec:
    """Return what was asked; of a sweep that goes on, what is there with what is given put on it.

    So that whoever goes on need not say everything again, and cannot change anything unseen.
    """
    from trimtab.evaluation.opening import open_suite
    from trimtab.evaluation.probes import is_demo
    from trimtab.merging.recipe import open_lineup
    from trimtab.methods import get_method
    from trimtab.search.space import default_space
    from trimtab.search.spec import Spec, load_spec, versions

    given = {name: getattr(params, name) for name in params.model_fields_set - _OF_THIS_RUN}
    given = {name: value for name, value in given.items() if value is not None}
    if params.resume:
        known = load_spec(folder)
        return known.model_copy(update=given)
    recipe = params.recipe
    if recipe is None:
        raise UserError(
            "no_recipe",
            "There is no recipe to search around.",
            "A new sweep needs one.",
            "Name a recipe, or go on with a sweep by --resume.",
        )
    suite = params.suite
    if suite == "auto":
        demo = is_demo(open_lineup(recipe).reference.checkpoint.folder)
        suite = "demo" if demo else "core"
    given |= {
        "suite": suite,
        "suite_digest": open_suite(suite, params.format).digest,
        "judge": params.judge or ("demo" if suite == "demo" else "phrases"),
        "space": params.space or default_space(get_method(recipe.method).weighted),
    }
    return Spec(**given, versions=versions())
