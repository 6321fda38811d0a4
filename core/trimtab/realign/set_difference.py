"""The set difference of Wei et al.: what matters for safety alone goes back to alignment."""

from __future__ import annotations

from typing import Any

from trimtab.activations.calibrated import act_norms
from trimtab.activations.calibration import Calibration
from trimtab.activations.weights import member_weights
from trimtab.checkpoints import Lineup, Member
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.inspection.attribution import NormScores, ScoreSource, StoredScores
from trimtab.inspection.attribution_run import gradient_scores
from trimtab.masks.builders import Difference, Largest, write_selection
from trimtab.masks.file import MaskWriter
from trimtab.masks.scores import TaskVector
from trimtab.realign.data_methods import SetDifferenceOptions
from trimtab.realign.work import Changed, Work, check_mask_name, finish_mask


def scores_of(
    work: Work,
    member: Member,
    prompts: Calibration,
    score: str,
    reader: TensorReader,
    control: Control,
    lineup: Lineup | None = None,
) -> ScoreSource:
    """Return a model's scores on a prompt set: SNIP or Wanda of its weights.

    `lineup` is the one that the member is of, by default the work's.

    SNIP is of the authors' code, each example a batch of its own, the loss of the answer's tokens
    alone. Wanda's norms are over the answers' tokens too. Raises as `gradient_scores` does.
    """
    lineup = lineup or work.lineup
    weights = member_weights(lineup, member)
    if score == "snip":
        paths, _ = gradient_scores(weights, prompts, work.setting, ["snip"], control)
        return StoredScores(paths["snip"], reader)
    norms, _ = act_norms(weights, prompts, work.setting, control)
    return NormScores(lineup, member, norms, "ours", reader, delta=False)


def set_difference(work: Work, options: SetDifferenceOptions, control: Control) -> dict[str, Any]:
    """Write the mask that reverts top-q of the safety scores, but top-p of the utility scores.

    Wei et al. 2024, arXiv 2402.05162, section 3.2, with recovery from the aligned model: they set
    the entries found to zero, or to the base model's, to see safety break; here they take a
    fine-tuned model's change back (ours). Both shares are of each tensor. Only Linears in the
    blocks are scored; other tensors stay fine-tuned. Returns the account of what is removed.
    """
    check_mask_name(work)
    aligned = work.aligned.name
    with TensorReader() as reader:
        vector = TaskVector(work.lineup, work.member, reader)
        pair = ((work.scored(options.scored), work.safety, options.safety),
                (work.scored(options.useful), work.utility[0], options.utility))  # fmt: skip
        safety, utility = (
            Largest(
                Changed(scores_of(work, member, prompts, options.score, reader, control), vector),
                keep=share,
            )
            for member, prompts, share in pair
        )
        about = work.about("set-difference", "ours", options.model_dump())
        with MaskWriter(work.output, about) as writer:
            write_selection(Difference(safety, utility), writer, control, remove=True)
            writer.finish()
        found = finish_mask(work, "set difference", vector, reader, control)
    return {"mode": "ours", "reverted_to": aligned, **found}
