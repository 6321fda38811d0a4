"""What the jobs that ask models take: evaluations, decisions, conversations."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.jobs.params import Params
from trimtab.merging.recipe import Recipe


class EvaluateParams(Params):
    """Parameters of `evaluate`: see `trimtab.evaluation`.

    `models` are folders, hub ids or endpoint:MODEL@URL; of `recipes`, by the name their merge is
    to bear, the `roles` are evaluated. `limit` takes so many prompts of each kind. Without
    `output` the results go to the cache. `decoding` holds the fields of `Decoding`. `controls` adds
    what the merges have to be better than. `thresholds` are bounds such as "utility>=0.7", set at
    the time `thresholds_set` (ISO 8601, by default now) in `thresholds_source`. `calibration` names
    sets that the models were made with, besides those that masks know: none of their prompts may be
    in the suite, unless `allow_overlap`, which the results will say. `compare` is an endpoint that
    compares answers in pairs, `lm_eval` are tasks of the lm-evaluation-harness. With `hashes` the
    models' files are hashed.
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
    controls: bool = False
    thresholds: tuple[str, ...] = ()
    thresholds_set: str = ""
    thresholds_source: str = "option"
    calibration: tuple[str, ...] = ()
    allow_overlap: bool = False
    compare: str = ""
    lm_eval: tuple[str, ...] = ()
    lm_eval_include: str = ""
    hashes: bool = True


class DecideParams(Params):
    """Parameters of `decide`: see `trimtab.evaluation.decisions`; `results` is a results file."""

    results: str
    log: str
    who: str
    choice: Literal["accepted", "rejected", "deferred", "noted"] = "noted"
    note: str = ""


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatParams(Params):
    """Parameters of `chat`: see `trimtab.evaluation.chat`.

    The roles of `recipe` answer one after another, of several fine-tuned models each one; then
    `models`: folders, hub ids or endpoint:MODEL@URL. One of the two must be there.
    """

    recipe: Recipe | None = None
    models: tuple[str, ...] = ()
    conversation: tuple[ChatMessage, ...] = Field(min_length=1)
    roles: tuple[Literal["base", "aligned", "finetuned", "merged"], ...] = (
        "aligned", "finetuned", "merged",
    )  # fmt: skip
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    judge: str = "auto"
    key_variable: str = ""
    timeout: float = 120.0
