"""The merge methods as the window knows them: as the worker tells, or the built-in ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.methods import MergeMethod, Parameter, methods
from trimtab.methods.registry import Kind, Scalar

#: which heading a method stands under, in the order in which headings and methods are shown
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Averages", ("linear", "model_stock", "passthrough")),
    ("Along the arc", ("slerp", "nuslerp", "multislerp", "karcher")),
    ("Task vectors", ("task_arithmetic", "nearswap")),
    ("Sparse task vectors", ("dare_linear", "della_linear", "breadcrumbs", "arcee_fusion")),
    (
        "Agreement and selection",
        ("ties", "dare_ties", "della", "breadcrumbs_ties", "sce", "ram", "ramplus_tl"),
    ),
    ("Singular vectors", ("tsv_merge", "iso_c", "iso_cts")),
    (
        "Back to safety",
        (
            "resta",
            "safety_arithmetic",
            "mergealign",
            "lox",
            "safe_lora",
            "safe_lora_projector",
            "safemerge",
            "alignment_subspace",
        ),
    ),
)
OTHERS = "Other packages’"
_HEADING = {name: heading for heading, names in GROUPS for name in names}


@dataclass(frozen=True)
class ParameterInfo:
    """A method's parameter, as forms and help show it."""

    name: str
    title: str
    sentence: str
    kind: Kind
    default: Scalar
    minimum: float
    maximum: float
    choices: Mapping[str, str]
    per_model: bool
    range_text: str


@dataclass(frozen=True)
class MethodInfo:
    """A merge method without its mathematics."""

    name: str
    title: str
    sentence: str
    formula: str
    reference: str
    parameters: tuple[ParameterInfo, ...]
    takes: tuple[int, int | None]
    weighted: bool
    random: bool
    origin: str
    needs_base: bool = False
    last: str = ""

    @property
    def heading(self) -> str:
        """The heading that the method stands under."""
        return _HEADING.get(self.name, OTHERS)

    def refusal(self, count: int, has_alignment: bool) -> str:
        """Return why the method cannot take `count` models, "" when it can.

        `has_alignment` says whether there is a base beside the aligned model.
        """
        least, most = self.takes
        if self.needs_base and not has_alignment:
            return "needs the base and the aligned model"
        if least <= count and (most is None or count <= most):
            return ""
        if least == most:
            return f"takes exactly {_models(least)}"
        if most is None or count < least:
            return f"takes at least {_models(least)}"
        return f"takes at most {_models(most)}"


def _models(count: int) -> str:
    return "one model" if count == 1 else f"{count} models"


def _parameter(given: Parameter) -> ParameterInfo:
    return ParameterInfo(
        given.name, given.title, given.sentence, given.kind, given.default, given.minimum,
        given.maximum, dict(given.choices), given.per_model, given.range_text,
    )  # fmt: skip


def of_method(method: MergeMethod) -> MethodInfo:
    """Describe a method of this process's registry."""
    return MethodInfo(
        method.name, method.title, method.sentence, method.formula, method.reference,
        tuple(_parameter(p) for p in method.parameters), method.takes, method.weighted,
        method.random, method.origin, method.needs_base, method.last,
    )  # fmt: skip


def of_json(said: Mapping[str, Any]) -> MethodInfo:
    """Describe a method as the worker's job `methods` does."""
    least, most = said["takes"]
    return MethodInfo(
        said["name"], said["title"], said["sentence"], said["formula"], said["reference"],
        tuple(
            ParameterInfo(
                p["name"], p["title"], p["sentence"], p["kind"], p["default"], p["minimum"],
                p["maximum"], p["choices"], p["per_model"], p["range"],
            )
            for p in said["parameters"]
        ),
        (int(least), None if most is None else int(most)), bool(said["weighted"]),
        bool(said["random"]), said["origin"], bool(said["needs_base"]), said["last"],
    )  # fmt: skip


class Catalogue:
    """All methods by name, in the order in which they are shown."""

    def __init__(self, found: Sequence[MethodInfo]) -> None:
        order = {name: i for i, name in enumerate(_HEADING)}
        shown = sorted(found, key=lambda m: (order.get(m.name, len(order)), m.title))
        self._methods = {method.name: method for method in shown}

    @classmethod
    def built_in(cls) -> Catalogue:
        """What is known before the worker has spoken: other packages' methods are left to it."""
        return cls([of_method(method) for method in methods()])

    @classmethod
    def told(cls, said: Sequence[Mapping[str, Any]]) -> Catalogue:
        """What the worker says."""
        return cls([of_json(method) for method in said])

    def __iter__(self) -> Iterator[MethodInfo]:
        return iter(self._methods.values())

    def get(self, name: str) -> MethodInfo | None:
        """Return the method called `name`, None when nobody has spoken of it."""
        return self._methods.get(name)

    def groups(self) -> list[tuple[str, list[MethodInfo]]]:
        """Return the headings that have methods, with these."""
        headings = [heading for heading, _ in GROUPS] + [OTHERS]
        found = [(h, [m for m in self._methods.values() if m.heading == h]) for h in headings]
        return [(heading, listed) for heading, listed in found if listed]
