"""mergekit's merge methods: what they take, what is left out, and what that is called here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trimtab.errors import UserError
from trimtab.merging.settings import Filtered

#: marks a parameter that mergekit asks for
REQUIRED: Any = object()

Kind = Literal["number", "switch", "rescale", "hint"]


@dataclass(frozen=True)
class Theirs:
    """A parameter of mergekit's: our name for it, and mergekit's default.

    A "rescale" is a switch there and "l1" or "none" here; a "hint" changes no result.
    """

    name: str
    ours: str
    kind: Kind
    default: Any


@dataclass(frozen=True)
class TheirMethod:
    """A method of mergekit's.

    `base` tells what base_model is to it: "required" and "optional" are the origin of task
    vectors, "input" is one model among the others. `models` are the least and the most models
    beside the base (with it where it is an input). `shared` parameters hold for the whole merge,
    `each` for every model.
    """

    name: str
    base: Literal["required", "optional", "input"]
    models: tuple[int, int | None]
    shared: tuple[Theirs, ...] = ()
    each: tuple[Theirs, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether every model has a weight."""
        return any(parameter.name == "weight" for parameter in self.each)


def _number(name: str, default: Any, ours: str = "") -> Theirs:
    return Theirs(name, ours or name, "number", default)


def _switch(name: str, default: Any, ours: str = "") -> Theirs:
    return Theirs(name, ours or name, "switch", default)


_WEIGHT = _number("weight", REQUIRED)
_INT8 = Theirs("int8_mask", "", "hint", None)


def _delta(name: str, normalize: bool, rescale: bool | None, *each: Theirs) -> TheirMethod:
    """A method of the task arithmetic family; without `rescale` it drops nothing."""
    shared = [_switch("normalize", normalize), _number("lambda", 1.0, "scale"), _INT8]
    if rescale is None:
        # both are taken there and do nothing, for nothing is dropped
        shared.append(Theirs("rescale", "", "hint", None))
        density = Theirs("density", "", "hint", None)
    else:
        shared.append(Theirs("rescale", "rescale", "rescale", rescale))
        density = _number("density", 1.0)
    return TheirMethod(name, "required", (0, None), tuple(shared), (_WEIGHT, density, *each))


_GAMMA = _number("gamma", 0.01)
_EPSILON = _number("epsilon", 0.15)

_METHODS = (
    TheirMethod("linear", "input", (1, None), (_switch("normalize", True),), (_WEIGHT,)),
    TheirMethod("slerp", "required", (1, 1), (_number("t", REQUIRED),)),
    TheirMethod(
        "nuslerp", "optional", (2, 2),
        (
            _switch("nuslerp_flatten", True, "flatten"),
            _switch("nuslerp_row_wise", False, "row_wise"),
        ),
        (_WEIGHT,),
    ),
    TheirMethod(
        "multislerp", "optional", (1, None),
        (_switch("normalize_weights", True), _number("eps", 1e-8)),
        (_WEIGHT,),
    ),
    TheirMethod(
        "karcher", "input", (1, None), (_number("max_iter", 10), _number("tol", 1e-5))
    ),
    _delta("task_arithmetic", False, None),
    _delta("ties", True, False),
    _delta("dare_linear", False, True),
    _delta("dare_ties", False, True),
    _delta("breadcrumbs", False, False, _GAMMA),
    _delta("breadcrumbs_ties", False, False, _GAMMA),
    _delta("della", True, True, _EPSILON),
    _delta("della_linear", False, True, _EPSILON),
    TheirMethod("model_stock", "required", (2, None), (_switch("filter_wise", False),)),
    TheirMethod("sce", "required", (0, None), (_number("select_topk", 1.0), _INT8)),
    TheirMethod("nearswap", "required", (1, 1), (_number("t", REQUIRED),)),
    TheirMethod("passthrough", "input", (1, 1), (), (_number("scale", 1.0),)),
    TheirMethod("arcee_fusion", "required", (1, 1)),
    TheirMethod("ram", "required", (0, None), (_number("epsilon", 1e-5),)),
    TheirMethod(
        "ramplus_tl", "required", (0, None),
        (_number("r", 0.1), _number("alpha", 0.2), _number("epsilon", 1e-5)),
    ),
)  # fmt: skip

#: all of mergekit's methods by their name, which is also ours
METHODS = {method.name: method for method in _METHODS}


def translate(parameter: Theirs, setting: Any, key: str) -> Any:
    """Return a setting of mergekit's as one of ours; `UserError` naming `key` for another kind."""
    if isinstance(setting, list):
        return [
            entry.model_copy(update={"value": translate(parameter, entry.value, key)})
            if isinstance(entry, Filtered)
            else translate(parameter, entry, key)
            for entry in setting
        ]
    if parameter.kind == "number":
        if isinstance(setting, bool | str):
            raise _wrong_kind(key, setting, "a number")
        return setting
    if setting in (0, 1):
        setting = bool(setting)
    if not isinstance(setting, bool):
        raise _wrong_kind(key, setting, "true or false")
    if parameter.kind == "rescale":
        return "l1" if setting else "none"
    return setting


def translate_back(parameter: Theirs, setting: Any, key: str) -> Any:
    """Return a setting of ours as mergekit's; `UserError` where mergekit has no such thing."""
    if isinstance(setting, list):
        return [
            entry.model_copy(update={"value": translate_back(parameter, entry.value, key)})
            if isinstance(entry, Filtered)
            else translate_back(parameter, entry, key)
            for entry in setting
        ]
    if parameter.kind != "rescale":
        return setting
    if setting not in ("l1", "none"):
        raise UserError(
            "cannot_export",
            f"{key} is {setting}, which mergekit cannot do.",
            "mergekit rescales by the ratio of L1 norms or not at all.",
            "Set rescale to l1 or none, or merge with Trimtab.",
        )
    return setting == "l1"


def _wrong_kind(key: str, value: object, wanted: str) -> UserError:
    return UserError(
        "bad_recipe",
        f"{key} is {value!r}.",
        f"It takes {wanted}.",
        "Correct it and run again.",
    )


def chain(*settings: Any) -> Any:
    """Join settings of which a later one holds where the earlier ones say nothing; None: none."""
    joined: list[Any] = []
    for setting in settings:
        if setting is None or setting == []:
            continue
        filtered = isinstance(setting, list) and isinstance(setting[0], Filtered)
        if not filtered and not joined:
            return setting
        joined.extend(setting if filtered else [Filtered(value=setting)])
        if any(entry.filter in (None, "*") for entry in joined):
            break
    return joined or None
