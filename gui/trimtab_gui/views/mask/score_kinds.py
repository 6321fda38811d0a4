"""The scores that builders go by, as data: what each is, how it is found, what a threshold does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_gui.plots.scale import number
from trimtab_gui.views.mask.builders import Values, antidote_params

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreKind:
    """Scores as a card shows them.

    With `removes` what reaches the threshold goes, else it is what stays. `runs` says that a model
    must be run for them, `empty` what will be here.
    """

    id: str
    title: str
    aside: str
    caption: str
    sentence: str
    formula: str
    reference: str
    role: str
    empty: str
    removes: bool = False
    runs: bool = False


MAGNITUDE = ScoreKind(
    "magnitude", "Size of τ", "", "|τ|",
    "How far fine-tuning moved each entry; entries that did not move are not drawn.",
    "|θ − θ_ref|", "", "finetuned", "How large the entries of τ are.",
)  # fmt: skip
SOMF = ScoreKind(
    "somf", "Keep probability σ(x)", "", "keep probability",
    "How sure SOMF is to keep an entry.", "σ(x) = 1 / (1 + e⁻ˣ)",
    "Yi et al. 2024, arXiv 2405.09055", "aligned",
    "How sure SOMF is of each entry: as it learns, and then with a threshold to drag.",
)  # fmt: skip
ANTIDOTE = ScoreKind(
    "antidote", "Antidote's scores", "", "score on harmful text",
    "What harmful text makes of each entry. The form takes the highest of each row; the threshold "
    "here is one for all rows (ours).",
    "h_ij = |w_ij| · ‖x_j‖, w what goes", "Huang et al. 2024, arXiv 2408.09600", "finetuned",
    "What harmful text makes of each entry, with a threshold to drag.",
    removes=True, runs=True,
)  # fmt: skip
DIFFERENCE = ScoreKind(
    "difference", "Safety scores", "without utility's", "score on safety prompts",
    "What each entry of the aligned model matters for safety, without those that utility ranks "
    "highest. The form takes a share of each tensor; the threshold here is one for all (ours).",
    "S_ij = |W_ij · ∂L/∂W_ij|, or |W_ij| · ‖x_j‖ by Wanda",
    "Wei et al. 2024, arXiv 2402.05162, section 3.2", "aligned",
    "What entries matter for safety and not for use, with a threshold to drag.",
    removes=True, runs=True,
)  # fmt: skip
KINDS = {kind.id: kind for kind in (MAGNITUDE, SOMF, ANTIDOTE, DIFFERENCE)}


def kind_of(builder: str) -> ScoreKind:
    """Return the scores of a builder; those that have none of their own show |τ|."""
    return KINDS.get(builder, MAGNITUDE)


@dataclass(frozen=True, eq=False)
class Spread:
    """Counts float64 [n] between `edges` [n + 1], and how many entries lie below them all."""

    edges: Floats
    counts: Floats
    below: float
    logarithmic: bool


def spread_of(result: Mapping[str, Any]) -> Spread:
    """Return how scores lie, as any of the jobs on scores tells it.

    Entries that are spared count as below: no threshold takes them.
    """
    found = result.get("spread", result)
    return Spread(
        np.array(found["edges"], dtype=np.float64), np.array(found["counts"], dtype=np.float64),
        float(found["zeros"]) + float(result.get("spared", 0)),
        bool(result.get("logarithmic", True)),
    )  # fmt: skip


def question(
    kind: ScoreKind, values: Values, recipe: Mapping[str, Any], model: str, logits: str
) -> tuple[str, dict[str, Any]]:
    """Return the job that finds the scores of a builder set so, and what it takes."""
    if kind is SOMF:
        return "somf_scores", {"logits": logits}
    if kind is ANTIDOTE:
        return "antidote_estimate", {"recipe": recipe, **antidote_params(values, model)}
    if kind is DIFFERENCE:
        params = {
            "recipe": recipe, "model": model, "safe": values["safe"], "useful": values["useful"],
            "utility": values["utility"], "score": values["score"],
        }  # fmt: skip
        return "difference_scores", params
    return "mask_scores", {"recipe": recipe, "model": model, "of": {"score": "magnitude"}}


def build(
    kind: ScoreKind,
    result: Mapping[str, Any],
    recipe: Mapping[str, Any],
    model: str,
    logits: str,
    threshold: float,
    output: str,
) -> tuple[str, dict[str, Any], str]:
    """Return the job that builds a mask by a threshold, what it takes, and the mask's name."""
    if kind is SOMF:
        params = {"logits": logits, "output": output, "form": "threshold",
                  "cut": min(max(threshold, 1e-6), 1 - 1e-6)}  # fmt: skip
        return "somf_export", params, f"SOMF, σ(x) > {threshold:.2f}"
    common = {"recipe": recipe, "model": model, "output": output, "by_tensor": False}
    value = number(threshold)
    if kind is ANTIDOTE:
        of = {"score": "delta-wanda", "file": result["norms"], "removes": True,
              "mode": result["settings"]["norm"], "threshold": threshold}  # fmt: skip
        params = {**common, "of": of, "builder": "Antidote, threshold"}
        return "mask_build", params, f"Antidote, h < {value}"
    if kind is DIFFERENCE:
        of = {**result["of"], "threshold": threshold, "removes": True}
        params = {**common, "of": of, "minus": result["minus"]}
        return "mask_build", params, f"Safety − utility, S < {value}"
    of = {"score": "magnitude", "threshold": threshold}
    return "mask_build", {**common, "of": of}, f"|τ| ≥ {value}"
