"""ActSVD orthogonal to utility, recovered: what useful prompts use of the outputs stays."""

from __future__ import annotations

from typing import Any

from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.realign.actsvd import SubspaceRestore
from trimtab.realign.data_methods import ActsvdOrthogonalOptions
from trimtab.realign.restored_model import restore_linears, second_moments
from trimtab.realign.work import Work


def actsvd_orthogonal(
    work: Work, options: ActsvdOrthogonalOptions, control: Control
) -> dict[str, Any]:
    """Write θ_f + (I − Π_u) Π_s (θ_a − θ_f) for every Linear of the blocks.

    Π_s and Π_u project on the leading left singular vectors of the aligned weight's outputs on the
    answers of both sets (Wei et al. 2024, arXiv 2402.05162, section 3.2); that it takes back
    instead of out is ours. The authors' ranks, 1024, are a quarter of outputs 4096 wide; with a
    utility rank as large as the outputs nothing is restored.
    """
    with (
        TensorReader() as reader,
        second_moments(work, work.safety, "answers", control) as safety,
        second_moments(work, work.utility[0], "answers", control) as utility,
    ):
        restore = SubspaceRestore(
            "actsvd_orthogonal", options.model_dump(), reader, safety, utility
        )  # fmt: skip
        return restore_linears(
            work, restore, safety, reader, control, rest="finetuned",
            report={"mode": "ours", "method": "actsvd-orthogonal", "options": options.model_dump()},
        )  # fmt: skip
