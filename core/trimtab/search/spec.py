"""What a sweep was asked to do, as it is kept beside its trials."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab import __version__
from trimtab.errors import UserError
from trimtab.merging.recipe import Recipe
from trimtab.search.objectives import DEFAULT
from trimtab.search.space import Space

SPEC = "spec.json"
_TITLES = {
    "recipe": "the recipe", "space": "the space", "suite": "the suite",
    "suite_digest": "the suite's prompts", "decoding": "how answers are drawn",
    "held_out": "the share held out", "limit": "the limit of prompts",
}  # fmt: skip


class Spec(BaseModel):
    """All that trials depend on: a sweep goes on only where all of it is as it was.

    `suite`, `format` and `judge` are as in `trimtab.evaluation.opening`; `suite_digest` is the
    suite's. `held_out` is the share of prompts that the search never sees; of the others `limit` of
    each kind are searched on. `linear_steps` ratios are the baseline. `versions` are told, not
    compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trimtab_sweep: Literal[1] = 1
    recipe: Recipe
    space: Space
    sampler: Literal["grid", "random", "tpe", "cmaes", "nsga2"] = "tpe"
    seed: int = Field(default=0, ge=0)
    population: int = Field(default=0, ge=0)
    steps: int = Field(default=5, ge=2)
    objectives: tuple[str, ...] = DEFAULT
    constraints: tuple[str, ...] = ()
    measure: Literal["probes", "answers"] = "probes"
    suite: str = "auto"
    format: str | None = None
    suite_digest: str = ""
    judge: str = "phrases"
    held_out: float = Field(default=0.5, gt=0, lt=1)
    limit: int | None = Field(default=128, ge=1)
    linear_steps: int = Field(default=10, ge=1)
    decoding: dict[str, int | float | str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into a sweep's folder, whole or not at all; raises `OSError`."""
        write_whole(folder / SPEC, self.model_dump_json(indent=1) + "\n")

    def differing(self, other: Spec) -> list[str]:
        """Return in words what trials depend on and the two do not share."""
        names = [name for name in Spec.model_fields if name != "versions"]
        return [
            _TITLES.get(name, name.replace("_", " "))
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


def load_spec(folder: Path) -> Spec:
    """Read the spec of a sweep's folder. Raises `UserError` with `no_sweep`, `bad_sweep`."""
    path = folder / SPEC
    if not path.is_file():
        raise UserError(
            "no_sweep",
            f"There is no sweep in {folder.name}.",
            f"It has no {SPEC}.",
            "Start one without --resume.",
            details=str(folder),
        )
    try:
        return Spec.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise UserError(
            "bad_sweep",
            f"The sweep in {folder.name} cannot be read.",
            f"The reader says: {' '.join(str(error).split())[:300]}.",
            "Start another one in a folder of its own.",
            details=str(path),
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of what trials are made with."""
    return {
        "trimtab": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("optuna", "cmaes", "torch", "transformers", "numpy")},
    }


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads meanwhile finds the old one or the new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def to_json(data: Any) -> str:
    """Return JSON without numbers that JSON does not have."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False)
