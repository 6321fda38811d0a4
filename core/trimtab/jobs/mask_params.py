"""What the jobs take that only show masks: how much is kept, and how scores are spread."""

from __future__ import annotations

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

    The entries of the tensors that `only` names, of one fine-tuned model.
    """

    recipe: Recipe
    of: MaskScore
    only: Rule | None = None
    model: str = ""


class SomfScoresParams(Params):
    """Parameters of `somf_scores`: the file of the logits whose σ(x) are counted."""

    logits: str
