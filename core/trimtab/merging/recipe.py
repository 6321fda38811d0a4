"""The recipe: everything a merge needs, as a file that can be read, diffed and run again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trimtab.checkpoints import Lineup, Member, build_lineup, open_checkpoint
from trimtab.checkpoints.hub import is_hub_id, resolve
from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.merging.settings import Setting, Tokenizer
from trimtab.methods import get_method

Finite = Annotated[float, Field(allow_inf_nan=False)]
RECIPE_SUFFIXES = (".trim", ".yaml", ".yml")
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRef(_Part):
    """A model by its path or hub id; `name` is what cards and messages call it.

    `lora` is an adapter on top of it. Revisions count for hub ids, which are looked up in the
    local cache alone.
    """

    path: str
    name: str = ""
    revision: str = ""
    lora: str = ""
    lora_revision: str = ""


class FineTuned(ModelRef):
    """A fine-tuned model and its ratio in each tensor.

    A tensor in layer l of module m gets `layers.get(l, ratio) * modules.get(m, 1)`, times what
    `weight` says; outside the blocks `ratio` takes the layer's place. `parameters` are the method's
    parameters for this model. `adapter_base` says which model of the lineup a LoRA adapter was
    trained on when its own config does not tell. Of its task vector `masks`, from top to bottom,
    say which entries survive; with `rescale` these are divided by the mask's mean in each tensor.
    """

    ratio: Finite = 1.0
    layers: dict[int, Finite] = Field(default_factory=dict)
    modules: dict[str, Finite] = Field(default_factory=dict)
    weight: Setting | None = None
    parameters: dict[str, Setting] = Field(default_factory=dict)
    adapter_base: Literal["aligned", "base"] | None = None
    masks: tuple[MaskEntry, ...] = ()
    rescale: bool = False

    @property
    def masked(self) -> bool:
        """Whether any of its masks is on."""
        return any(entry.on for entry in self.masks)


class SliceSource(_Part):
    """Layers [first, last) of a model of the lineup, by its name; parameters for these alone.

    Among the parameters, `weight` takes the place of the model's own.
    """

    model: str
    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    parameters: dict[str, Setting] = Field(default_factory=dict)


class Slice(_Part):
    """Consecutive layers of the output, merged from as many layers of each source.

    `base` names the model that is the reference here; by default the lineup's own.
    """

    sources: tuple[SliceSource, ...] = Field(min_length=1)
    base: str | None = None
    parameters: dict[str, Setting] = Field(default_factory=dict)


class Tower(_Part):
    """One part of a model of several, such as the text model: its slices and parameters."""

    slices: tuple[Slice, ...] = ()
    parameters: dict[str, Setting] = Field(default_factory=dict)


class Output(_Part):
    """How the result is written; "reference" keeps the reference model's own choice."""

    dtype: Literal["reference", "float32", "float16", "bfloat16"] = "reference"
    shard_size: int | Literal["reference"] = "reference"

    @field_validator("shard_size", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        if isinstance(value, str) and value != "reference":
            number, unit = value[:-2].strip(), value[-2:].upper()
            try:
                return int(float(number) * SIZE_UNITS[unit])
            except (KeyError, ValueError, OverflowError):
                raise ValueError("write a size as a number with KB, MB, GB or TB") from None
        return value

    @field_validator("shard_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 10**6:
            raise ValueError("a shard holds at least 1 MB")
        return value


class Recipe(_Part):
    """A merge: who takes part, by which method, with which ratios, written how.

    `parameters` are the method's, for the whole merge; those of slices, towers, models and sources
    come before them. With `slices` the output's layers are stacked from those named. `seed`
    decides random masks.
    """

    trimtab: Literal[1] = 1
    method: str = "task_arithmetic"
    parameters: dict[str, Setting] = Field(default_factory=dict)
    base: ModelRef | None = None
    aligned: ModelRef | None = None
    finetuned: tuple[FineTuned, ...] = ()
    slices: tuple[Slice, ...] = ()
    towers: dict[str, Tower] = Field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    seed: int = 0
    output: Output = Field(default_factory=Output)

    def to_yaml(self) -> str:
        """Return the recipe as YAML; what is at its default is left out."""
        data = self.model_dump(exclude_defaults=True)
        data = {"trimtab": 1, "method": self.method} | data
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        if any(character in text for character in "\x85\u2028\u2029"):
            # YAML takes these for line breaks: they are read back only when written as escapes
            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False)
        return text

    def save(self, path: Path) -> None:
        """Write to `path` atomically, with model paths relative to it where they are near."""
        text = self.relative_to(path.parent).to_yaml()
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise UserError(
                "cannot_write",
                f"{path.name} could not be saved.",
                f"The system says: {error.strerror}.",
                "Choose another folder.",
                details=str(path),
            ) from error

    def _with_paths(self, change: Any) -> Recipe:
        def moved(model: Any) -> Any:
            if model is None:
                return None
            paths = {"path": change(model.path), "lora": model.lora and change(model.lora)}
            if isinstance(model, FineTuned):
                paths["masks"] = tuple(
                    entry.model_copy(update={"path": entry.path and change(entry.path)})
                    for entry in model.masks
                )
            return model.model_copy(update=paths)

        return self.model_copy(
            update={
                "base": moved(self.base),
                "aligned": moved(self.aligned),
                "finetuned": tuple(moved(model) for model in self.finetuned),
            }
        )

    def relative_to(self, folder: Path) -> Recipe:
        """Return a copy whose paths are relative to `folder` where they lie in or beside it."""
        root = folder.absolute()

        def shorten(path: str) -> str:
            target = Path(os.path.expanduser(path))  # noqa: PTH111 - knows no unknown user
            if target.is_absolute() and target.is_relative_to(root.parent):
                return Path(os.path.relpath(target, root)).as_posix()
            return path

        return self._with_paths(shorten)

    def absolute(self, folder: Path) -> Recipe:
        """Return a copy whose paths are absolute; relative ones start at `folder`.

        What looks like a hub id, and is no path from there, stays as it is.
        """

        def whole(path: str) -> str:
            place = os.path.normpath(folder.absolute() / os.path.expanduser(path))  # noqa: PTH111 - knows no unknown user
            at_hub = "/" in path and is_hub_id(path) and not Path(place).parent.exists()
            return path if at_hub else place

        return self._with_paths(whole)

    def ratios(
        self, layers: npt.NDArray[np.int32], modules: tuple[str, ...]
    ) -> npt.NDArray[np.float64]:
        """Return the ratio of each fine-tuned model in each row, float64 [n, m].

        `layers` is int32 [n], -1 outside the blocks; `modules` names each row's module.
        """
        out = np.empty((len(modules), len(self.finetuned)), dtype=np.float64)
        for i, model in enumerate(self.finetuned):
            out[:, i] = model.ratio
            for layer, ratio in model.layers.items():
                out[layers == layer, i] = ratio
            for module, factor in model.modules.items():
                out[[m == module for m in modules], i] *= factor
        return out

    def coefficients(
        self, layers: npt.NDArray[np.int32], modules: tuple[str, ...]
    ) -> npt.NDArray[np.float64] | None:
        """Return the c [n, m] of merged = reference + sum_i c_i tau_i for rows as in `ratios`.

        None when the result is no such sum, or is one only once the weights have been read.
        """
        method = get_method(self.method)
        if method.coefficients is None or self.depends_on_names:
            return None
        shared = {k: v for k, v in self.parameters.items() if k != "weight"}
        parameters = method.check(shared)
        result: npt.NDArray[np.float64] | None = method.coefficients(
            self.ratios(layers, modules), **parameters
        )
        return result

    @property
    def depends_on_names(self) -> bool:
        """Whether any value changes with tensor names, along gradients or from entry to entry,
        or layers are stacked.
        """
        settings = [*self.parameters.values(), *(model.weight for model in self.finetuned)]
        own = any(model.parameters for model in self.finetuned)
        varied = any(isinstance(setting, list) for setting in settings)
        weighed = "weight" in self.parameters or any(m.weight is not None for m in self.finetuned)
        varied |= any(model.masked for model in self.finetuned)
        return bool(varied or own or weighed or self.slices or self.towers or self.tokenizer)


def parse_recipe(text: str, origin: str = "The recipe") -> Recipe:
    """Parse YAML; raises `UserError` with `bad_recipe` that names the key at fault."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            "bad_recipe",
            f"{origin} is not YAML.",
            f"The parser says: {' '.join(str(error).split())}.",
            "Correct the line named.",
        ) from error
    if not isinstance(data, dict) or "trimtab" not in data:
        raise UserError(
            "bad_recipe",
            f"{origin} is not a Trimtab recipe.",
            "A recipe starts with the line 'trimtab: 1'.",
            "Save one from the window, or add that line.",
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        ]
        raise UserError(
            "bad_recipe",
            f"{origin} has a mistake at {problems[0]}.",
            "Every key of a recipe has a meaning; unknown ones are never ignored.",
            "Correct it and run again.",
            details="\n".join(problems),
        ) from error
    check_parameters(recipe, origin)
    return recipe


def check_parameters(recipe: Recipe, origin: str = "The recipe") -> None:
    """Raise `UserError` for a parameter that the method does not have, or a plain value of it that
    is out of range; what changes over tensors is checked when it is evaluated.
    """
    method = get_method(recipe.method)
    groups = [recipe.parameters, *(model.parameters for model in recipe.finetuned)]
    for part in (*recipe.slices, *(s for t in recipe.towers.values() for s in t.slices)):
        groups += [part.parameters, *(source.parameters for source in part.sources)]
    groups += [tower.parameters for tower in recipe.towers.values()]
    for group in groups:
        for name, setting in group.items():
            if name == "weight" and method.weighted:
                continue
            parameter = method.parameter(name)
            if isinstance(setting, str) and parameter.kind != "choice":
                raise UserError(
                    "bad_recipe",
                    f"{origin} has a mistake at parameters.{name}.",
                    f"It is {setting!r}; {method.title} takes {parameter.range_text}.",
                    "Correct it and run again.",
                )
            if not isinstance(setting, list):
                parameter.check(setting, method.title)


def is_recipe(path: Path) -> bool:
    """Whether a path is that of a recipe rather than of a model, by its name."""
    return path.suffix.lower() in RECIPE_SUFFIXES


def read_text(path: Path) -> str:
    """Return the text of a recipe file; `UserError` with `unreadable` when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "unreadable",
            f"{path.name} cannot be read.",
            f"The system says: {error}.",
            "Check that the path exists and is a recipe.",
            details=str(path),
        ) from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; its relative paths are taken from the file's own folder."""
    return parse_recipe(read_text(path), path.name).absolute(path.parent)


def open_lineup(recipe: Recipe) -> Lineup:
    """Open the recipe's models by their headers and check that they fit together."""

    def member(ref: ModelRef, role: Literal["base", "aligned", "finetuned"]) -> Member:
        checkpoint = open_checkpoint(resolve(ref.path, ref.revision))
        adapter = open_checkpoint(resolve(ref.lora, ref.lora_revision)) if ref.lora else None
        name = ref.name or checkpoint.name + (f" + {adapter.name}" if adapter else "")
        base = ref.adapter_base if isinstance(ref, FineTuned) else None
        return Member(role, checkpoint, name, base, adapter)

    base = member(recipe.base, "base") if recipe.base else None
    aligned = member(recipe.aligned, "aligned") if recipe.aligned else None
    return build_lineup(base, aligned, [member(ref, "finetuned") for ref in recipe.finetuned])
