"""What goes into a model's Linears on a calibration set, for the energy of what masks remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.activations.calibrated import (
    Setting,
    act_norms,
    content_key,
    covariances,
    keep_newest,
)
from trimtab.activations.covariance import Covariances
from trimtab.activations.loading import load_tokenizer
from trimtab.activations.weights import member_weights
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.attribution_jobs import open_calibration
from trimtab.jobs.common import chosen_devices
from trimtab.jobs.params import MaskAccountParams
from trimtab.masks.outputs import Inputs, MomentInputs, NormInputs
from trimtab.paths import cache_dir

if TYPE_CHECKING:
    from trimtab.activations.calibration import Calibration
    from trimtab.activations.statistics import Which
    from trimtab.activations.weights import ModelWeights
    from trimtab.checkpoints import Lineup, Member
    from trimtab.checkpoints.reader import TensorReader

#: Σ x xᵀ of a model are taken without being asked for where all of them have so many bytes
_SMALL = 256 << 20
_KEPT = 4


def calibrated_inputs(
    params: MaskAccountParams,
    lineup: Lineup,
    member: Member,
    reader: TensorReader,
    control: Control,
) -> tuple[Inputs, dict[str, Any]]:
    """Return the inputs of the fine-tuned model's Linears on `params.calibration`, and of what.

    Over the tokens of the answers, or over all where the set has no answers. What is gathered is
    kept in the cache. Raises `UserError` as `open_calibration` and `act_norms` do.
    """
    prompts = open_calibration(params.calibration).spread(params.limit)
    weights = member_weights(lineup, member)
    has_template = getattr(load_tokenizer(weights.folder), "chat_template", None)
    setting = Setting("model" if has_template else "plain", chosen_devices(params.device)[0])
    norms, _ = act_norms(weights, prompts, setting, control)
    which: Which = "answers" if norms.answer_tokens else "all"
    told = {"calibration": prompts.name, "digest": prompts.digest, "tokens": which,
            "examples": len(prompts.examples)}  # fmt: skip
    needed = sum(4 * norms.squares[name].size ** 2 for name in norms.names)
    if params.output == "diagonal" or (params.output == "auto" and needed > _SMALL):
        return NormInputs(norms, "ours" if which == "answers" else "authors' code"), told
    found = _moments(weights, prompts, setting, which, control)
    return MomentInputs(found, norms.transposed, reader), told


def _moments(
    weights: ModelWeights, prompts: Calibration, setting: Setting, which: Which, control: Control
) -> Covariances:
    key = content_key(weights, prompts, setting, "moments", which)
    path: Path = cache_dir() / "activations" / f"{key}.moments.safetensors"
    if path.exists():
        try:
            found = Covariances(path)
        except UserError:
            path.unlink()  # of another version, or damaged: it can be made again
        else:
            path.touch()
            return found
    covariances(weights, prompts, setting, path, control, which=which)
    keep_newest(path.parent, "*.moments.safetensors", _KEPT)
    return Covariances(path)
