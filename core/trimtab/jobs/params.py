"""What each job takes: checked where it comes in, as JSON from the window or from the command."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.evaluation.probes import PROBES
from trimtab.merging.recipe import Recipe


class Params(BaseModel):
    """Parameters of a job that takes none."""

    model_config = ConfigDict(extra="forbid")


class InspectParams(Params):
    """Parameters of `inspect`: the recipe whose lineup is looked at."""

    recipe: Recipe


class MergeParams(Params):
    """Parameters of `merge`.

    `device` "auto" is every CUDA device there is, or the CPU; several are separated by commas.
    `memory` is what the process may take, in bytes.
    """

    recipe: Recipe
    output: str
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"
    memory: int | None = None
    threads: int | None = None


class PlanParams(Params):
    """Parameters of `plan`: the recipe, and on what and within how many bytes it would run."""

    recipe: Recipe
    device: str = "auto"
    memory: int | None = None


class PreviewParams(Params):
    """Parameters of `preview`: see `trimtab.evaluation.preview.Request`."""

    recipe: Recipe
    suite: str = "auto"
    count: int = PROBES
    seed: int = 0
    device: str = "auto"
    against: int | None = None


class EvaluateParams(Params):
    """Parameters of `evaluate`: see `trimtab.evaluation`.

    `models` are folders, hub ids or endpoint:MODEL@URL; of `recipes`, by the name their merge is
    to bear, the `roles` are evaluated. `limit` takes so many prompts of each kind. Without
    `output` the results go to the cache. `decoding` holds the fields of `Decoding`.
    """

    models: tuple[str, ...] = ()
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    roles: tuple[Literal["base", "aligned", "finetuned", "merged"], ...] = ()
    suite: str = "core"
    format: str | None = None
    limit: int | None = Field(default=None, ge=1)
    judges: tuple[str, ...] = ("phrases",)
    baseline: str = ""
    decoding: dict[str, int | float | str] = Field(default_factory=dict)
    device: str = "auto"
    precision: Literal["auto", "float32", "stored"] = "auto"
    key_variable: str = ""
    timeout: float = 120.0
    concurrency: int = Field(default=4, ge=1, le=64)
    fresh: bool = False
    output: str | None = None
    overwrite: bool = False


class ExtractParams(Params):
    """Parameters of `extract_lora`: see `trimtab.lora.extract.ExtractOptions`."""

    finetuned: str
    reference: str
    output: str
    rank: int = 32
    energy: float | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    embeddings: bool = False
    whole: bool = False
    base_name: str = ""
    seed: int = 0
    overwrite: bool = False


class DiscardParams(Params):
    """Parameters of `discard`: the output whose interrupted merge is thrown away."""

    output: str
