"""The methods that bring safety back from calibration data: what each needs, takes and leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

WEI = "Wei et al. 2024, arXiv 2402.05162"


class Options(BaseModel):
    """Options of a method; each field's description is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SetDifferenceOptions(Options):
    """Options of the set difference."""

    safety: float = Field(
        default=0.5, gt=0, le=1, description="q: this share of each tensor matters most for safety"
    )
    utility: float = Field(
        default=0.5, ge=0, le=1, description="p: but not this share, which matters most for utility"
    )
    score: Literal["snip", "wanda"] = Field(
        default="snip", description="by what entries matter: snip takes gradients, wanda none"
    )
    scored: Literal["aligned", "finetuned"] = Field(
        default="aligned", description="the model that the safety set is scored on"
    )
    useful: Literal["aligned", "finetuned"] = Field(
        default="aligned", description="the model that the utility set is scored on"
    )


class LedMergingOptions(Options):
    """Options of LED-Merging."""

    origin: Literal["aligned", "base"] = Field(
        default="aligned",
        description="what changes are measured from: base is the paper's, and merges alignment as "
        "one task among others; aligned (ours) is for models fine-tuned from the aligned one",
    )
    safety: float = Field(default=0.1, gt=0, le=1, description="share of entries that safety takes")
    utility: float = Field(
        default=0.5, gt=0, le=1, description="share of entries that each task takes"
    )
    strength: float = Field(
        default=1.0, ge=0, le=4, description="λ of the alignment vector, where the origin is base"
    )


class NlsrOptions(Options):
    """Options of NLSR."""

    region: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="share of each tensor that is taken for the safety neurons",
    )
    choice: Literal["least-similar", "bernoulli"] = Field(
        default="least-similar",
        description="which tensors go back: the least similar ones (ours), or by chance as in the "
        "authors' code, which favours the most similar",
    )
    share: float = Field(
        default=0.5, ge=0, le=1, description="of the tensors go back, by chance on the average"
    )
    epsilon: float = Field(
        default=0.2, ge=0, le=0.5, description="how far chance may differ from the share, by rank"
    )
    reverts: Literal["region", "tensor"] = Field(
        default="region", description="what goes back of these tensors"
    )
    seed: int = Field(default=42, ge=0, description="of chance")


class ActsvdOptions(Options):
    """Options of ActSVD."""

    rank: int = Field(
        default=10, ge=1, le=65536, description="r: this many directions of each output"
    )


class ActsvdOrthogonalOptions(Options):
    """Options of ActSVD, orthogonal to utility."""

    safety_rank: int = Field(
        default=1024,
        ge=1,
        le=65536,
        description="directions that safety uses; the authors' of 4096",
    )
    utility_rank: int = Field(
        default=1024,
        ge=1,
        le=65536,
        description="directions that utility uses; the authors' of 4096",
    )


class SafeDeltaOptions(Options):
    """Options of Safe Delta."""

    s: float = Field(default=0.1, ge=0, description="how much safety may be lost")
    budget: Literal["code", "share"] = Field(
        default="code",
        description="what s is a part of: the authors' constants, made for matrices 4096 wide, or "
        "(ours) the loss of the whole change, whatever width and size it has",
    )
    spared: float = Field(
        default=0.15, ge=0, lt=1, description="this share, the most harmful, never changes"
    )


@dataclass(frozen=True)
class DataMethod:
    """A method as a list, a help text and a card show it.

    `utility` says whether it needs useful prompts beside the safety prompts; `base` whether the
    model before alignment. It leaves a mask with a recipe, a recipe with its masks, or a model
    folder.
    """

    name: str
    title: str
    sentence: str
    formula: str
    reference: str
    options: type[Options]
    result: Literal["mask", "recipe", "model"]
    utility: bool = True
    base: bool = False


DATA_METHODS: dict[str, DataMethod] = {
    method.name: method
    for method in (
        DataMethod(
            "set-difference",
            "Set difference, recovered from the aligned model",
            "Revert what matters for safety and not for utility to the aligned model.",
            "θ_f → θ_a on top_q(S_safety) \\ top_p(S_utility), tensor by tensor",
            WEI,
            SetDifferenceOptions,
            "mask",
        ),
        DataMethod(
            "led-merging",
            "LED-Merging",
            "Merge of each task what matters for it, before and after, and for no other.",
            "θ = θ_0 + Σᵢ λᵢ mᵢ ⊙ τᵢ,  mᵢ = (top_r S₀ ∧ top_r Sᵢ) \\ ⋃ⱼ≠ᵢ (top_r S₀ ∧ top_r Sⱼ)",
            "Ma et al. 2025, LED-Merging, arXiv 2502.16770",
            LedMergingOptions,
            "recipe",
            base=True,
        ),
        DataMethod(
            "nlsr",
            "Neuron-level safety realignment",
            "Revert the safety neurons of the tensors that fine-tuning turned furthest away.",
            "θ_f → θ_a on M of tensors of low cos(M ⊙ (θ_f − θ_b), M ⊙ (θ_a − θ_b))",
            "Yi et al. 2024, NLSR, arXiv 2412.12497",
            NlsrOptions,
            "mask",
            utility=False,
            base=True,
        ),
        DataMethod(
            "actsvd",
            "ActSVD, recovered from the aligned model",
            "Take the outputs' directions that safety uses back to the aligned model.",
            "θ_f + U Uᵀ (θ_a − θ_f),  U: the r leading left singular vectors of θ_a X_safety",
            WEI,
            ActsvdOptions,
            "model",
            utility=False,
        ),
        DataMethod(
            "actsvd-orthogonal",
            "ActSVD orthogonal to utility, recovered from the aligned model",
            "Take what safety, and not utility, uses of the outputs back to the aligned model.",
            "θ_f + (I − Π_u) Π_s (θ_a − θ_f)",
            WEI,
            ActsvdOrthogonalOptions,
            "model",
        ),
        DataMethod(
            "safe-delta",
            "Safe Delta",
            "Add what was fine-tuned to the aligned model as far as safety's budget reaches.",
            "θ_a + m ⊙ Δ + compensation,  Σ m Δ² / d² ≤ budget,  d = diag chol(H⁻¹),  "
            "H = 2 X Xᵀ / n + 0.01 mean(diag) I",
            "Lu et al. 2025, Safe Delta, arXiv 2505.12038",
            SafeDeltaOptions,
            "model",
            utility=False,
        ),
    )
}
