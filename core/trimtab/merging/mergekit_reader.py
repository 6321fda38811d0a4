"""Turns one document of mergekit's into the data of a recipe."""

from __future__ import annotations

from typing import Any

from trimtab.errors import UserError
from trimtab.merging.mergekit_methods import METHODS
from trimtab.merging.mergekit_models import Models, Reference
from trimtab.merging.mergekit_papers import output_data, tokenizer_data
from trimtab.merging.mergekit_scopes import Data, Scopes, check_keys, entries, mistake

SECTIONS = ("models", "slices", "modules")
_KEYS = (
    "name", "merge_method", *SECTIONS, "base_model", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "int8_mask",
)  # fmt: skip
#: what mergekit calls the part of a model that has no others
_ONLY_MODULE = "default"


class Reader:
    """Reads one document; every mistake is named by its whole key.

    A base_model is the origin of task vectors, or one input among the others ("input"). In the
    latter case, and without any, the recipe's `base` only gives the output its form.
    """

    def __init__(self, document: Data, models: Models):
        self.document = document
        self.models = models
        self.notes: list[str] = []
        check_keys(document, _KEYS, "")
        method = document.get("merge_method")
        if not isinstance(method, str) or method not in METHODS:
            raise mistake(
                f"merge_method is {method!r}." if method else "There is no merge_method.",
                f"mergekit's methods are: {', '.join(sorted(METHODS))}.",
                "Correct the key merge_method.",
            )
        self.method = METHODS[method]
        self.scopes = Scopes(self.method, self.notes)
        base = document.get("base_model")
        self.base = None if base is None else models.parse(base, "base_model")
        self.layout = self.base
        #: the recipe's fine-tuned models, with what is theirs alone
        self.inputs: dict[Reference, Data] = {}

    def recipe(self) -> Data:
        """Return the recipe as plain data."""
        document = self.document
        given = [key for key in SECTIONS if document.get(key)]
        if len(given) != 1:
            raise mistake(
                f"The document has {' and '.join(given) or 'none of models, slices and modules'}.",
                "mergekit takes exactly one of models, slices and modules.",
                "Keep one of these keys.",
            )
        outer = [self.scopes.read(document, "parameters")]
        if given == ["modules"]:
            data = self._modules(outer)
        else:
            data = self._part(document, given[0], "", outer)
        parameters = self.scopes.shared(outer, defaults=True) | data.pop("own", {})
        data = {"method": self.method.name, "parameters": parameters} | data | self._lineup()
        if document.get("int8_mask") is not None:
            self.scopes.hint("int8_mask")
        data |= output_data(document, self.notes)
        return data | tokenizer_data(document, self.models)

    def _part(self, owner: Data, section: str, at: str, outer: list[Data]) -> Data:
        """Read `models` or `slices` of the document or of one of its modules."""
        key = f"{at}{section}"
        listed = entries(owner[section], key)
        if section == "models":
            return {"own": self._models(listed, key, outer)}
        return {"slices": [self._slice(e, f"{key}[{i}]", outer) for i, e in enumerate(listed)]}

    def _models(self, listed: list[Any], key: str, outer: list[Data]) -> Data:
        """Read `models` into the inputs; return what this says of the whole merge."""
        base, method = self.base, self.method
        given: dict[Reference, tuple[str, Data]] = {}
        for i, entry in enumerate(listed):
            at = f"{key}[{i}]"
            check_keys(entry, ("model", "parameters"), at)
            reference = self.models.parse(entry.get("model"), f"{at}.model")
            if reference in given:
                raise _twice(reference, at)
            given[reference] = (at, self.scopes.read(entry, f"{at}.parameters", of_model=True))
        if base is not None and base not in given:
            given[base] = ("base_model", {})  # mergekit adds it behind the others
        self.scopes.require(outer, key)
        if method.base == "required" and base is None:
            raise self._no_base("base_model")
        self._check_count(len(given) - (base is not None and method.base != "input"), key)
        self.layout = base or next(iter(given))
        own: Data = {}
        for reference, (at, mine) in given.items():
            is_base = reference == base
            if is_base and method.base != "input":
                continue
            found = self.scopes.of_model(reference, [mine, *outer], at)
            if is_base and method.name == "linear":
                own["reference_ratio"] = found["weight"]
                continue
            weight = found.pop("weight", None)
            model = {"weight": weight, "parameters": found}
            if self.inputs.get(reference) not in (None, {}, model):
                raise mistake(
                    f"{at} gives {reference} other parameters than another part of the model.",
                    "A model has one weight for all parts, or else slices with their own.",
                    "Give a filter on the tensors' names, or slices.",
                )
            self.inputs[reference] = model
        return self._origin(base is not None) | own

    def _origin(self, has_base: bool) -> Data:
        """Return what tells our method whether there is a base."""
        if self.method.base == "optional":
            return {"origin": "reference" if has_base else "zero"}
        return {"reference_ratio": 0} if self.method.name == "linear" and not has_base else {}

    def _slice(self, entry: Any, key: str, outer: list[Data]) -> Data:
        check_keys(entry, ("sources", "base_model", "parameters", "residual_weight"), key)
        if entry.get("residual_weight") is not None:
            raise mistake(
                f"{key}.residual_weight is {entry['residual_weight']!r}.",
                "mergekit itself takes this key and does nothing with it.",
                "Remove it.",
            )
        base, method = self.base, self.method
        if entry.get("base_model") is not None:
            base = self.models.parse(entry["base_model"], f"{key}.base_model")
        own = self.scopes.read(entry, f"{key}.parameters")
        self.scopes.require([own, *outer], key)
        sources: dict[Reference, Data] = {}
        for i, source in enumerate(entries(entry.get("sources"), f"{key}.sources")):
            at = f"{key}.sources[{i}]"
            check_keys(source, ("model", "layer_range", "parameters"), at)
            reference = self.models.parse(source.get("model"), f"{at}.model")
            if reference in sources:
                raise _twice(reference, at)
            mine = self.scopes.read(source, f"{at}.parameters", of_model=True)
            is_origin = reference == base and method.base != "input"
            sources[reference] = {
                "model": self.models.name(reference),
                "layers": _layer_range(source, at),
                "parameters": {}
                if is_origin
                else self.scopes.of_model(reference, [mine, own, *outer], at),
            }
        lengths = sorted({s["layers"][1] - s["layers"][0] for s in sources.values()})
        if len(lengths) > 1:
            raise mistake(
                f"The sources of {key} have {' and '.join(map(str, lengths))} layers.",
                "The layers of a slice are merged one by one: all must have as many.",
                f"Make each layer_range of {key} equally long.",
            )
        return self._finished(key, base, own, sources)

    def _finished(
        self, key: str, base: Reference | None, own: Data, sources: dict[Reference, Data]
    ) -> Data:
        """Check the part of the base in a slice, and return the slice."""
        method = self.method
        inside = base is not None and base in sources
        if base is None and method.base == "required":
            raise self._no_base(f"base_model of {key}")
        if base is not None and not inside and method.base != "input":
            raise mistake(
                f"base_model is {base}, and {key} does not have it among its sources.",
                "The base takes part with layers of its own in every slice.",
                "Add it to the sources with its layer_range.",
            )
        self._check_count(len(sources) - (inside and method.base != "input"), key)
        parameters = self.scopes.shared([own]) | self._origin(inside)
        made: Data = {"sources": list(sources.values()), "parameters": parameters}
        role = base if inside and (method.base != "input" or method.name == "linear") else None
        if role is not None:
            made["base"] = self.models.name(role)
            found = sources[role].pop("parameters")
            if method.name == "linear":
                parameters["reference_ratio"] = found["weight"]
        for reference in sources:
            if reference != role or reference != self.base:
                self.inputs.setdefault(reference, {})
        self.layout = self.layout or next(iter(sources))
        return made

    def _modules(self, outer: list[Data]) -> Data:
        section = self.document["modules"]
        if not isinstance(section, dict):
            raise mistake(f"modules is {section!r}.", "It has a key for each part of the model.")
        towers: Data = {}
        for name, module in section.items():
            at = f"modules.{name}"
            check_keys(module, ("models", "slices", "parameters"), at)
            inner = [key for key in ("models", "slices") if module.get(key)]
            if len(inner) != 1:
                raise mistake(
                    f"{at} has {' and '.join(inner) or 'neither models nor slices'}.",
                    "mergekit takes one of the two.",
                    "Keep one of them.",
                )
            own = self.scopes.read(module, f"{at}.parameters")
            if list(section) == [_ONLY_MODULE]:
                outer.insert(0, own)
                return self._part(module, inner[0], f"{at}.", outer)
            part = self._part(module, inner[0], f"{at}.", [own, *outer])
            of_base = part.pop("own", {})
            towers[str(name)] = part | {"parameters": self.scopes.shared([own]) | of_base}
        return {"towers": towers}

    def _lineup(self) -> Data:
        assert self.layout is not None
        name = self.models.name(self.layout)
        if self.layout in self.inputs:
            # it is merged as one of the models, and the base gives no more than the form
            name += " (layout)"
        finetuned = [
            {**reference.fields(), "name": self.models.name(reference)}
            | {key: value for key, value in found.items() if value not in (None, {})}
            for reference, found in self.inputs.items()
        ]
        return {"base": {**self.layout.fields(), "name": name}, "finetuned": finetuned}

    def _check_count(self, count: int, key: str) -> None:
        low, high = self.method.models
        if count >= low and (high is None or count <= high):
            return
        wanted = f"{low}" if low == high else f"at least {low}"
        beside = "" if self.method.base == "input" else " beside the base"
        raise mistake(
            f"{key} gives {self.method.name} {count} models{beside}.",
            f"It takes {wanted}.",
            f"Correct {key}.",
        )

    def _no_base(self, key: str) -> UserError:
        return mistake(
            f"{key} is missing.", f"{self.method.name} starts from a base.", "Add base_model."
        )


def _layer_range(source: Data, key: str) -> tuple[int, int]:
    value: Any = source.get("layer_range")
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(type(n) is int for n in numbers) and 0 <= numbers[0] < numbers[1]:
        return (numbers[0], numbers[1])
    raise mistake(f"{key}.layer_range is {value!r}.", "It is [first, last + 1], counted from 0.")


def _twice(reference: Reference, key: str) -> UserError:
    return mistake(
        f"{key} names {reference} a second time.",
        "A model takes part once in a merge or slice.",
        "Remove one of the entries.",
    )
