"""The curves of safe and useful activations and of the refusal direction, beside chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QCoreApplication

from trimtab.checkpoints import Lineup
from trimtab.inspection.activation_subspaces import ActivationSubspaces
from trimtab.subspaces import get_subspace
from trimtab_gui import texts
from trimtab_gui.activations_found import Refusals, overlaps, refusals
from trimtab_gui.plots import Curve

Floats = npt.NDArray[np.float64]
ACTIVATIONS, LENGTH, TURN = "activations", "refusal length", "refusal turn"
KINDS = (ACTIVATIONS, LENGTH, TURN)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Inspect", text)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Curves with what their card tells of them; `formula` is what the (i) says."""

    curves: list[Curve]
    formula: tuple[str, str, str, str, str]
    summary: str


def title_of(kind: str) -> str:
    """Return what a kind of curves is called in a list."""
    return {
        ACTIVATIONS: _tr("Safe and useful answers"),
        LENGTH: _tr("Refusal: length"),
        TURN: _tr("Refusal: turn"),
    }[kind]


def draw(
    kind: str, found: ActivationSubspaces, columns: tuple[str, ...], lineup: Lineup
) -> Drawing:
    """Return the curves of a kind over the columns of the heatmap."""
    if kind == ACTIVATIONS:
        return _overlap(found, columns, lineup)
    of = refusals(found, columns)
    return _length(of, lineup) if kind == LENGTH else _turn(of, found, lineup)


def _role(lineup: Lineup, name: str) -> tuple[str, int]:
    """Return the role of a model, and its number among the fine-tuned ones."""
    finetuned = [member.name for member in lineup.finetuned]
    role = next((m.role for m in lineup.members if m.name == name), "finetuned")
    return role, finetuned.index(name) if name in finetuned else 0


def _span(draws: Floats) -> tuple[Floats, Floats]:
    return draws.min(1), draws.max(1)


def _overlap(found: ActivationSubspaces, columns: tuple[str, ...], lineup: Lineup) -> Drawing:
    of, name = overlaps(found, columns), str(found.about["model"])
    role, number = _role(lineup, name)
    low, high = _span(of.dealt)
    floor, ceiling = _span(of.relabelled)
    curves = [
        Curve("chance", _tr("chance"), "muted", of.chance, low=low, high=high, dashed=True),
        Curve("relabelled", _tr("relabelled"), "text", of.relabelled.mean(1), low=floor,
              high=ceiling, dashed=True),
        Curve("mso", name, role, of.mso, index=number),
    ]  # fmt: skip
    known = ~np.isnan(of.mso)
    apart = int((of.mso < floor)[known].sum())
    return Drawing(
        curves,
        (
            title_of(ACTIVATIONS),
            _tr("How far the leading output directions on harmful prompts, refused, and on benign "
                "ones coincide. Lower dashes: random directions; shaded, coordinates dealt out "
                "anew. Upper dashes: prompts dealt out anew among the two sets."),
            "‖U_sᵀU_u‖² / min(k_s, k_u), U of " + get_subspace("safe_activations").formula,
            _tr("0 to 1; chance gives max(k_s, k_u)/out"),
            "Safety Subspaces are Not Linearly Distinct, arXiv 2505.14185; "
            + get_subspace("safe_activations").mode,
        ),
        _tr("Safe and useful activations of {name}: overlap at most {top}; in {n} of {all} layers "
            "below that of prompts dealt out anew").format(
                name=name, top=texts.significant(float(np.nanmax(of.mso))), n=apart,
                all=int(known.sum())),
    )  # fmt: skip


_REFUSAL = "Arditi et al. 2024, arXiv 2406.11717 (paper), at the prompts' last token"


def _length(of: list[Refusals], lineup: Lineup) -> Drawing:
    curves = []
    for refusal in of:
        role, number = _role(lineup, refusal.model)
        curves.append(
            Curve(f"chance {refusal.model}", _tr("{name} by chance").format(name=refusal.model),
                  role, refusal.chance, index=number, dashed=True)
        )  # fmt: skip
        curves.append(Curve(refusal.model, refusal.model, role, refusal.length, index=number))
    without = [r.model for r in of if not (r.length > r.chance).any()]
    return Drawing(
        curves,
        (
            title_of(LENGTH),
            _tr("How far apart the mean states on harmful and on benign prompts are, measured by "
                "how long a state is. Dashed: what 95 % of dealings of the prompts stay below. "
                "It is measured and never written."),
            "|r| / mean |h|, r = mean(h | harmful) − mean(h | benign)", _tr("0 and up"), _REFUSAL,
        ),
        _tr("Refusal direction of {n} models; within chance everywhere: {names}").format(
            n=len(of), names=", ".join(without) or _tr("none")
        ),
    )  # fmt: skip


def _turn(of: list[Refusals], found: ActivationSubspaces, lineup: Lineup) -> Drawing:
    reference = str(found.about["model"])
    others = [r for r in of if r.model != reference]
    spread = found.refusal[0].spread
    zero = np.where(np.isnan(of[0].cosine), np.nan, 0.0)
    curves = [
        Curve("chance", _tr("random directions"), "muted", zero, low=zero - 2 * spread,
              high=zero + 2 * spread, dashed=True)
    ]  # fmt: skip
    for refusal in others:
        role, number = _role(lineup, refusal.model)
        curves.append(Curve(refusal.model, refusal.model, role, refusal.cosine, index=number))
    least = min(others, key=lambda r: float(np.nanmin(r.cosine)), default=None)
    return Drawing(
        curves,
        (
            title_of(TURN),
            _tr("Whether another model holds harmful and benign prompts apart in the direction "
                "that {name} does; 1 is the same. Shaded: two standard deviations of random "
                "directions. It is measured and never written.").format(name=reference),
            "cos(r, r_reference), r = mean(h | harmful) − mean(h | benign)", "−1 to 1", _REFUSAL,
        ),
        "" if least is None else _tr("Refusal direction turned most in {name}: cosine {c}").format(
            name=least.model, c=texts.significant(float(np.nanmin(least.cosine)))
        ),
    )  # fmt: skip
