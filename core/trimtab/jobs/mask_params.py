"""What the jobs take that only show masks: how much is kept, and how scores are spread."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.jobs.params import MaskScore, Params
from trimtab.masks.entries import MaskEntry, Rule
from trimtab.merging.recipe import Recipe


class MaskSharesParams(Params):
    """Parameters of `mask_shares` and `mask_overlap`.

    Without `entries` the stack is the model's own.
    """

    recipe: Recipe
    entries: tuple[MaskEntry, ...] | None = None
    model: str = ""


class MaskScoresParams(Params):
    """Parameters of `mask_scores`: how the scores are spread that `of` names.

    The entries of the tensors that `only` names, of one fine-tuned model, without those that
    `minus` chooses.
    """

    recipe: Recipe
    of: MaskScore
    minus: MaskScore | None = None
    only: Rule | None = None
    model: str = ""


class SomfScoresParams(Params):
    """Parameters of `somf_scores`: the file of the logits whose σ(x) are counted."""

    logits: str


class DifferenceScoresParams(Params):
    """Parameters of `difference_scores`: the scores that a set difference goes by.

    `safe` and `useful` are shipped sets, JSONL files or suite:NAME, of each of which `limit`
    examples are taken, evenly spread. The top share `utility` of each tensor is spared.
    """

    recipe: Recipe
    model: str = ""
    safe: str
    useful: str
    utility: float = Field(default=0.5, ge=0, le=1)
    score: Literal["snip", "wanda"] = "snip"
    limit: int | None = Field(default=128, ge=1)
    device: str = "auto"
