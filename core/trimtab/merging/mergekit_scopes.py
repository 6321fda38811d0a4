"""The parameters of a mergekit document: checked, and joined from the inner scope outwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trimtab.errors import UserError
from trimtab.merging.mergekit_methods import (
    METHODS,
    REQUIRED,
    TheirMethod,
    Theirs,
    chain,
    translate,
)
from trimtab.merging.settings import Setting

Data = dict[str, Any]
_SETTING: TypeAdapter[Any] = TypeAdapter(Setting)
_PARAMETERS = {p.name for m in METHODS.values() for p in (*m.shared, *m.each)}


def mistake(what: str, why: str, fix: str = "Correct it and run again.") -> UserError:
    """Return the error for a mistake in a document; `what` names the key."""
    return UserError("bad_recipe", what, why, fix)


def check_keys(part: Any, known: tuple[str, ...], at: str) -> None:
    """Refuse what is no mapping, and unknown keys by their name; mergekit passes over them."""
    if not isinstance(part, dict):
        raise mistake(f"{at} is {part!r}.", "A mapping of keys is wanted.")
    for key in part:
        if key not in known:
            inside = " It is a parameter." if key in _PARAMETERS else ""
            raise mistake(
                f"{f'{at}.' if at else ''}{key} is no key that mergekit knows.",
                f"Known are: {', '.join(known)}.{inside}",
                f"Write it under parameters: {key} has no effect here."
                if inside
                else "Correct or remove it.",
            )


def entries(value: Any, key: str) -> list[Any]:
    """Return a list that has entries; refuse anything else."""
    if not isinstance(value, list) or not value:
        raise mistake(f"{key} is {value!r}.", "A list with at least one entry is wanted.")
    return value


class Scopes:
    """Reads the parameters of one method; what does nothing is said in `notes`."""

    def __init__(self, method: TheirMethod, notes: list[str]):
        self.method = method
        self.notes = notes

    def read(self, owner: Data, key: str, of_model: bool = False) -> Data:
        """Return the checked parameters of one scope, by mergekit's names in our values."""
        given = owner.get("parameters")
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise mistake(f"{key} is {given!r}.", "Parameters have names.")
        of_each = {p.name for p in self.method.each}
        known = {p.name: p for p in (*self.method.shared, *self.method.each)}
        found = {}
        for name, value in given.items():
            if name not in known:
                raise mistake(
                    f"{key}.{name} is no parameter of {self.method.name}.",
                    f"It has: {', '.join(known) or 'none'}. mergekit would pass over it silently.",
                    "Remove it.",
                )
            if of_model and name not in of_each and known[name].kind != "hint":
                raise mistake(
                    f"{key}.{name} is given for one model.",
                    f"{name} holds for the whole merge: mergekit would pass over it silently.",
                    "Move it to the parameters of the document or the slice.",
                )
            found[name] = self._setting(known[name], value, f"{key}.{name}")
        return found

    def _setting(self, parameter: Theirs, value: Any, key: str) -> Any:
        if parameter.kind == "hint":
            self.hint(parameter.name)
            return None
        try:
            setting = _SETTING.validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ").capitalize()
            raise mistake(f"{key} is {value!r}.", f"{why}.") from None
        return translate(parameter, setting, key)

    def hint(self, name: str) -> None:
        """Note a parameter that changes nothing."""
        self.notes.append(
            "int8_mask saves memory in mergekit; it has no effect on the result."
            if name == "int8_mask"
            else f"{name} does nothing in {self.method.name}, here as in mergekit."
        )

    def of_model(self, model: object, scopes: Sequence[Data], key: str) -> Data:
        """Return all of a model's own parameters by our names, the innermost scope first."""
        found = {}
        for parameter in self.method.each:
            if parameter.kind == "hint":
                continue
            default = parameter.default
            setting = chain(
                *(scope.get(parameter.name) for scope in scopes),
                translate(parameter, default, key) if default is not REQUIRED else None,
            )
            if setting is None:
                raise mistake(
                    f"{parameter.name} is missing for {model} ({key}).",
                    f"mergekit's {self.method.name} needs one for every model"
                    + (", for the base too." if key == "base_model" else "."),
                    f"Add {parameter.name} to its parameters, or to those of the document.",
                )
            found[parameter.ours] = setting
        return found

    def shared(self, scopes: Sequence[Data], defaults: bool = False) -> Data:
        """Return the parameters of the whole merge by our names, with mergekit's defaults."""
        found = {}
        for parameter in self.method.shared:
            if parameter.kind == "hint":
                continue
            setting = chain(*(scope.get(parameter.name) for scope in scopes))
            if defaults and parameter.default is not REQUIRED:
                setting = chain(setting, translate(parameter, parameter.default, parameter.name))
            if setting is not None:
                found[parameter.ours] = setting
        return found

    def require(self, scopes: Sequence[Data], key: str) -> None:
        """Refuse a merge or a slice that lacks a parameter without a default."""
        for parameter in self.method.shared:
            given = any(scope.get(parameter.name) is not None for scope in scopes)
            if parameter.default is REQUIRED and not given:
                raise mistake(
                    f"{parameter.name} is missing for {key}.",
                    f"mergekit's {self.method.name} needs it.",
                    f"Add {parameter.name} under parameters.",
                )
