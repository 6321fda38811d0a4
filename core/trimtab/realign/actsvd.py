"""ActSVD, recovered: the outputs' directions that safety uses go back to the aligned model."""

from __future__ import annotations

from typing import Any

from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.realign.data_methods import ActsvdOptions
from trimtab.realign.restored_model import Moments, Wide, restore_linears, second_moments
from trimtab.realign.work import Work
from trimtab.subspaces import get_subspace
from trimtab.subspaces.evidence import Activations, Evidence


def actsvd(work: Work, options: ActsvdOptions, control: Control) -> dict[str, Any]:
    """Write θ_f + U Uᵀ (θ_a − θ_f) for every Linear of the blocks.

    U are the r leading left singular vectors of the aligned weight's outputs on the answers of the
    safety set (Wei et al. 2024, arXiv 2402.05162, section 3.2). They take U out of the aligned
    model to see safety break; here what fine-tuning changed in U is taken back (ours). Biases stay
    fine-tuned.
    """
    with TensorReader() as reader, second_moments(work, work.safety, "answers", control) as safety:
        restore = SubspaceRestore("actsvd", {"rank": options.rank}, reader, safety)
        return restore_linears(
            work, restore, safety, reader, control, rest="finetuned",
            report={"mode": "ours", "method": "actsvd", "options": options.model_dump()},
        )  # fmt: skip


class SubspaceRestore:
    """Takes the change in a registered subspace of each weight's outputs back."""

    def __init__(
        self, name: str, values: dict[str, Any], reader: TensorReader, safety: Moments,
        utility: Moments | None = None,
    ):  # fmt: skip
        self._definition = get_subspace(name).for_writing()
        self._values = values
        self._reader, self._safety, self._utility = reader, safety, utility

    def __call__(self, name: str, aligned: Wide, own: Wide) -> Wide:
        """Return θ_f + Π (θ_a − θ_f), float64 [out, in]."""
        useful = (
            None if self._utility is None else Activations(self._utility.read(self._reader, name))
        )
        evidence = Evidence(
            aligned=aligned,
            safety=Activations(self._safety.read(self._reader, name)),
            utility=useful,
        )
        found = self._definition.find(evidence, **self._values)
        restored: Wide = own + found.apply(aligned - own)
        return restored
