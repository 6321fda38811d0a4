"""Writes a recipe as mergekit's YAML, or says what of it mergekit cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from trimtab.checkpoints.index import ADAPTER_CONFIG
from trimtab.errors import UserError
from trimtab.merging.mergekit_methods import (
    METHODS,
    TheirMethod,
    Theirs,
    chain,
    translate_back,
)
from trimtab.merging.mergekit_models import Reference
from trimtab.merging.mergekit_weights import scaled, weight_setting
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, Slice
from trimtab.merging.settings import Filtered, ModelToken
from trimtab.methods import get_method

Data = dict[str, Any]
# what tells our methods of a base; mergekit is told by base_model
_OF_THE_BASE = ("origin", "reference_ratio")


def from_recipe(recipe: Recipe, names: Sequence[str]) -> str:
    """Return the recipe as a document of mergekit's.

    `names` are the reference's tensors: ratios of layers and modules become gradients and filters
    on them. Arithmetic is asked for in float32, as here. Names of models, and a base beside an
    aligned model, are left out: mergekit has no place for them, and they change no result. Raises
    `UserError` with `cannot_export` that names what mergekit cannot do.
    """
    if recipe.method not in METHODS:
        raise _cannot("method", recipe.method, "mergekit has no such method.")
    for model in recipe.finetuned:
        if model.masked:
            names_of = ", ".join(entry.title for entry in model.masks if entry.on)
            raise _cannot(f"masks of {_name(model)}", names_of, "mergekit has no masks.")
    return _Writer(recipe, names).document()


class _Writer:
    def __init__(self, recipe: Recipe, names: Sequence[str]):
        self.recipe = recipe
        self.names = names
        self.theirs: TheirMethod = METHODS[recipe.method]
        self.ours = get_method(recipe.method)
        reference = recipe.aligned or recipe.base
        if reference is None:
            raise _cannot("aligned and base", "empty", "There is no model to start from.")
        self.reference = _reference(reference, None)
        #: every model of the lineup by the name that slices and tokens use
        self.models = {_name(reference): self.reference}
        for model in recipe.finetuned:
            self.models[_name(model)] = self._finetuned(model)
        self.base = self._base()

    def _finetuned(self, model: FineTuned) -> Reference:
        """Return a fine-tuned model; an adapter stands behind the model it was trained on."""
        if not (Path(model.path).expanduser() / ADAPTER_CONFIG).is_file():
            return _reference(model, None)
        beneath = self.recipe.base if model.adapter_base == "base" else self.recipe.aligned
        return _reference(beneath or self.recipe.aligned or self.recipe.base or model, model)

    def _base(self) -> Reference | None:
        """Return base_model; None where the reference gives no more than the output's form."""
        parameters = self.recipe.parameters
        slices = [*self.recipe.slices, *(s for t in self.recipe.towers.values() for s in t.slices)]
        if slices:
            with_base = all(self._base_of(part) is not None for part in slices)
            return self.reference if with_base or self.theirs.base == "input" else None
        merged = self.reference in [self.models[_name(m)] for m in self.recipe.finetuned]
        if self.theirs.base == "optional" and parameters.get("origin") == "zero":
            return None
        if self.theirs.base == "input" and not merged:
            # as one more model it would be in the mean
            linear = self.theirs.name == "linear"
            return self.reference if linear and parameters.get("reference_ratio", 1) != 0 else None
        return self.reference

    def _base_of(self, part: Slice) -> Reference | None:
        """Return the origin of a slice's changes, None where there is none."""
        origin = chain(part.parameters.get("origin"), self.recipe.parameters.get("origin"))
        if self.theirs.base == "input" or origin == "zero":
            return None
        return self.reference if part.base is None else self.models[part.base]

    def document(self) -> str:
        recipe = self.recipe
        data: Data = {"merge_method": self.theirs.name}
        if self.base is not None:
            data["base_model"] = _written(self.base)
        of_models = {p.ours for p in self.theirs.each} | set(_OF_THE_BASE)
        for name, tower in recipe.towers.items():
            if inner := of_models & set(tower.parameters):
                raise _cannot(f"towers.{name}.parameters", min(inner), "It is no tower's there.")
        if recipe.towers:
            data["modules"] = {
                name: {
                    **({"slices": self._slices(tower.slices)} if tower.slices
                       else {"models": self._models()}),
                    **self._parameters(tower.parameters, self.theirs.shared, f"towers.{name}"),
                }
                for name, tower in recipe.towers.items()
            }  # fmt: skip
        elif recipe.slices:
            data["slices"] = self._slices(recipe.slices)
        else:
            data["models"] = self._models()
        data |= self._parameters(self._with_defaults(), self.theirs.shared, "parameters")
        data |= self._dtypes() | self._tokenizer()
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        return "# Written by Trimtab.\n" + text

    def _with_defaults(self) -> Data:
        """Return the merge's parameters with our defaults, which need not be mergekit's."""
        given = dict(self.recipe.parameters)
        for parameter in self.ours.parameters:
            if not parameter.per_model and parameter.name not in _OF_THE_BASE:
                given[parameter.name] = chain(given.get(parameter.name), parameter.default)
        return given

    def _parameters(self, given: Mapping[str, Any], known: Sequence[Theirs], key: str) -> Data:
        """Return a scope's `parameters`, empty where all are at mergekit's default."""
        by_name = {p.ours: p for p in known if p.kind != "hint"}
        of_models = {p.ours for p in self.theirs.each}
        found = {}
        for name, setting in given.items():
            if name in _OF_THE_BASE or (name in of_models and name not in by_name):
                continue
            if name not in by_name:
                raise _cannot(f"{key}.{name}", setting, f"mergekit's {self.theirs.name} lacks it.")
            value = translate_back(by_name[name], setting, f"{key}.{name}")
            if key != "parameters" or value != by_name[name].default:
                found[by_name[name].name] = _plain(value)
        return {"parameters": found} if found else {}

    def _each(self, scopes: Sequence[Mapping[str, Any]], key: str) -> Data:
        """Return a model's own parameters but its weight, joined from the inner scope outwards."""
        found: Data = {}
        for theirs in self.theirs.each:
            if theirs.kind == "hint" or theirs.name == "weight":
                continue
            default = self.ours.parameter(theirs.ours).default
            setting = chain(*(scope.get(theirs.ours) for scope in scopes), default)
            value = translate_back(theirs, setting, f"{key}.{theirs.ours}")
            if value != theirs.default:
                found[theirs.name] = _plain(value)
        return found

    def _models(self) -> list[Data]:
        shared = self.recipe.parameters
        listed = []
        merged = [self.models[_name(model)] for model in self.recipe.finetuned]
        if self.theirs.name == "linear" and self.base is not None and self.base not in merged:
            share = chain(shared.get("reference_ratio"), 1.0)
            listed.append(_entry(self.base, {"weight": _plain(share)}))
        for model in self.recipe.finetuned:
            parameters = self._each([model.parameters, shared], f"finetuned.{_name(model)}")
            if self.theirs.weighted:
                place = self.recipe.finetuned.index(model)
                weight = weight_setting(self.recipe, place, self.names)
                parameters = {"weight": _plain(weight)} | parameters
            listed.append(_entry(self.models[_name(model)], parameters))
        return listed

    def _slices(self, slices: Sequence[Slice]) -> list[Data]:
        made = []
        by_name = {_name(model): model for model in self.recipe.finetuned}
        for i, part in enumerate(slices):
            key = f"slices[{i}]"
            sources = []
            for source in part.sources:
                model = by_name.get(source.model)
                parameters: Data = {}
                if model is not None and source.model != part.base:
                    parameters = self._of_source(model, source.parameters, part, key)
                elif self.theirs.name == "linear":
                    share = chain(
                        part.parameters.get("reference_ratio"),
                        self.recipe.parameters.get("reference_ratio"),
                        1.0,
                    )
                    parameters = {"weight": _plain(share)}
                entry = _entry(self.models[source.model], parameters)
                entry = {"model": entry.pop("model"), "layer_range": list(source.layers)} | entry
                sources.append(entry)
            base = self._base_of(part)
            if base is not None and base not in [self.models[s.model] for s in part.sources]:
                raise _cannot(key, "its base", "mergekit wants its layers among the sources.")
            entry = {"sources": sources}
            if base is not None and base != self.base:
                entry["base_model"] = _written(base)
            made.append(entry | self._parameters(part.parameters, self.theirs.shared, key))
        return made

    def _of_source(self, model: FineTuned, own: Data, part: Slice, key: str) -> Data:
        scopes = [own, model.parameters, part.parameters, self.recipe.parameters]
        parameters = self._each(scopes, f"{key}.{_name(model)}")
        if self.theirs.weighted:
            if model.layers or model.modules:
                raise _cannot(
                    f"layers and modules of {_name(model)}", "set",
                    "Beside slices, mergekit counts layers differently.",
                )  # fmt: skip
            weights = (own.get("weight"), model.weight, part.parameters.get("weight"),
                       self.recipe.parameters.get("weight"), 1.0)  # fmt: skip
            weight = scaled(chain(*weights), model.ratio)
            parameters = {"weight": _plain(weight)} | parameters
        return parameters

    def _dtypes(self) -> Data:
        wanted: str | None = self.recipe.output.dtype
        if wanted == "reference":
            wanted = _own_dtype(Path(self.reference.path).expanduser())
        if wanted is None:
            return {}  # mergekit then computes in the stored precision: there is no other way
        return {"dtype": "float32"} | ({"out_dtype": wanted} if wanted != "float32" else {})

    def _tokenizer(self) -> Data:
        recipe = self.recipe
        data: Data = {}
        if recipe.tokenizer is not None:
            source: Any = recipe.tokenizer.source
            if source in self.models:
                source = _written(self.models[source])
            made: Data = {"source": source}
            tokens = {}
            for token, given in recipe.tokenizer.tokens.items():
                entry = given.model_dump(exclude_none=True, exclude_defaults=True)
                if isinstance(given.source, ModelToken):
                    entry["source"]["model"] = self._known(given.source.model, token)
                elif isinstance(given.source, str):
                    entry["source"] = self._known(given.source, token)
                tokens[token] = entry
            if tokens:
                made["tokens"] = tokens
            if recipe.tokenizer.pad_to_multiple_of is not None:
                made["pad_to_multiple_of"] = recipe.tokenizer.pad_to_multiple_of
            data["tokenizer"] = made
        if recipe.chat_template is not None:
            data["chat_template"] = recipe.chat_template
        return data

    def _known(self, name: str, token: str) -> Any:
        if name not in self.models:
            raise _cannot(f"tokenizer.tokens[{token!r}]", name, "No model is called so.")
        return _written(self.models[name])


def _name(model: ModelRef) -> str:
    return model.name or Path(model.path).name


def _reference(model: ModelRef, adapter: ModelRef | None) -> Reference:
    own = Reference(model.path, model.revision, model.lora, model.lora_revision)
    if adapter is None:
        return own
    return replace(own, lora=adapter.path, lora_revision=adapter.revision)


def _written(reference: Reference) -> Any:
    """Return a model as mergekit reads it: one text, or keys where a path has a + or an @."""
    if not any(c in reference.path + reference.lora for c in "+@"):
        return str(reference)

    def place(path: str, revision: str) -> Data:
        return {"path": path} | ({"revision": revision} if revision else {})

    written = {"model": place(reference.path, reference.revision)}
    if reference.lora:
        written["lora"] = place(reference.lora, reference.lora_revision)
    return written


def _entry(model: Reference, parameters: Data) -> Data:
    return {"model": _written(model)} | ({"parameters": parameters} if parameters else {})


def _plain(setting: Any) -> Any:
    if not isinstance(setting, list):
        return setting
    return [
        entry.model_dump(exclude_none=True) if isinstance(entry, Filtered) else entry
        for entry in setting
    ]


def _own_dtype(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        found = config.get("dtype") or config.get("torch_dtype")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if found in ("float32", "float16", "bfloat16") else None


def _cannot(key: str, value: object, why: str) -> UserError:
    return UserError(
        "cannot_export",
        f"{key}: {value} cannot be written for mergekit.",
        why,
        "Merge it with Trimtab, or change it first.",
    )
