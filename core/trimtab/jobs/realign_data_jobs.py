"""The job `realign`: brings safety back from calibration data, by one of several methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.attribution_jobs import open_calibration
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import RealignParams
from trimtab.realign.data_methods import DATA_METHODS, DataMethod, Options


def realign(params: RealignParams, control: Control) -> dict[str, Any]:
    """Run a method; returns its report with options, prompt sets and the files written.

    Raises `UserError` with `unknown_realign`, `realign_option`, `no_utility_set`, and as the method
    does.
    """
    from trimtab.activations.calibrated import Setting
    from trimtab.realign.work import open_work

    method = _method(params.method)
    options = _options(method, params.options)
    if method.utility and not params.utility:
        raise UserError(
            "no_utility_set",
            f"{method.title} needs useful prompts too.",
            "What is useful cannot be told from what is safe by safety prompts alone.",
            "Name a set of prompts with their answers.",
        )
    work = open_work(
        params.recipe,
        params.model,
        open_calibration(params.safety).spread(params.limit),
        [open_calibration(name).spread(params.limit) for name in params.utility],
        Setting(params.template, chosen_devices(params.device)[0], params.bfloat16),
        Path(params.output),
        params.overwrite,
    )
    if method.base and work.lineup.base is None:
        raise UserError(
            "no_base",
            f"{method.title} needs the model before alignment.",
            "It goes by what alignment changed.",
            "Add the base model to the recipe.",
        )
    report = _run(method.name)(work, options, control)
    return {
        "method": method.name,
        "title": method.title,
        "formula": method.formula,
        "reference": method.reference,
        "model": work.member.name,
        "options": options.model_dump(),
        "sets": work.sets(),
        **report,
    }


def _run(name: str) -> Callable[[Any, Any, Control], dict[str, Any]]:
    """Return the function of a method; each takes options of its own."""
    from trimtab.realign.actsvd import actsvd
    from trimtab.realign.actsvd_orthogonal import actsvd_orthogonal
    from trimtab.realign.led_merging import led_merging
    from trimtab.realign.nlsr import nlsr
    from trimtab.realign.safe_delta import safe_delta
    from trimtab.realign.set_difference import set_difference

    functions: dict[str, Callable[[Any, Any, Control], dict[str, Any]]] = {
        "set-difference": set_difference,
        "led-merging": led_merging,
        "nlsr": nlsr,
        "actsvd": actsvd,
        "actsvd-orthogonal": actsvd_orthogonal,
        "safe-delta": safe_delta,
    }
    return functions[name]


def _method(name: str) -> DataMethod:
    if name not in DATA_METHODS:
        raise UserError(
            "unknown_realign",
            f"There is no method {name}.",
            f"There are {', '.join(DATA_METHODS)}.",
            "Choose one of these.",
        )
    return DATA_METHODS[name]


def _options(method: DataMethod, given: dict[str, Any]) -> Options:
    try:
        return method.options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(
            "realign_option",
            f"{name} does not fit {method.title}.",
            f"{first['msg']}; it is {first['input']!r}.",
            f"Its options are {', '.join(method.options.model_fields)}.",
        ) from error
