"""What SOMF is told: granularity, merge, reference and training, with what the authors used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.errors import UserError
from trimtab.formatting import count, size
from trimtab.realign.somf_units import Granularity

Merge = Literal["single", "task_arithmetic", "ties", "dare"]
Reference = Literal["aligned", "authors"]
Rescale = Literal["tensor", "none"]
MERGES: tuple[Merge, ...] = ("single", "task_arithmetic", "ties", "dare")
#: λ, the scale of the merged change, as published for each merge
SCALES: dict[Merge, float] = {"single": 1.0, "task_arithmetic": 0.3, "ties": 0.4, "dare": 0.3}
#: share of entries that TIES keeps, and that DARE drops
TIES_KEEPS, DARE_DROPS = 0.2, 0.2
#: learning rates of the authors' runs, by what they were for
RATES = {"english": 1e-3, "other-languages": 5e-3, "multi-task": 1e-2}
#: the temperature of the Concrete distribution
TEMPERATURE = 0.5


@dataclass(frozen=True)
class SomfOptions:
    """How masks are learned.

    `merge` None is "single" for one task and task arithmetic for several; `scale` None is that
    merge's published λ; `rescale` None divides by each tensor's mean(m), but for "module", where
    that would undo the mask. `reference` of DPO is the frozen aligned model (what the paper means),
    or with "authors" what their code has: the fine-tuned models under masks drawn anew each time
    from logits that stay zero. AdamW without weight decay, betas 0.9 and 0.999, linear warm-up,
    cosine to zero, after HF's Trainer.
    """

    granularity: Granularity = "row"
    merge: Merge | None = None
    scale: float | None = None
    rescale: Rescale | None = None
    reference: Reference = "aligned"
    beta: float = 0.1
    rate: float = RATES["english"]
    steps: int = 500
    batch: int = 16
    warmup: int = 0
    seed: int = 0
    validation: float = 0.1
    log_every: int = 10
    checkpoint_every: int = 100

    def settled(self, tasks: int) -> Settled:
        """Return what these come to for so many tasks.

        Raises `UserError` with `somf_merge` and `somf_degenerate`.
        """
        merge = self.merge or ("single" if tasks == 1 else "task_arithmetic")
        if merge == "single" and tasks != 1:
            raise UserError(
                "somf_merge",
                f"The merge 'single' takes one fine-tuned model; {tasks} take part.",
                "A model with ratio 0 in the recipe takes no part.",
                "Choose another merge, or set the ratio of all but one to 0.",
            )
        if merge == "ties" and self.granularity == "module":
            raise UserError(
                "somf_merge",
                "TIES cannot be learned with one logit a tensor.",
                "It keeps the same entries of a tensor whatever all of them are multiplied by.",
                "Choose row, head or parameter, or another merge.",
            )
        rescale = self.rescale or ("none" if self.granularity == "module" else "tensor")
        if rescale == "tensor" and self.granularity == "module":
            raise UserError(
                "somf_degenerate",
                "One logit a tensor cannot be rescaled by the tensor's mean.",
                "m / mean(m) is 1 whatever m is: the mask would do nothing.",
                "Choose the rescaling none, or row, head or parameter.",
            )
        scale = SCALES[merge] if self.scale is None else self.scale
        return Settled(merge, scale, rescale == "tensor")

    def mode(self, merge: Merge) -> Literal["paper", "authors' code", "ours"]:
        """Return whose method this is; see docs/somf.md for what each differs in."""
        theirs = self.granularity == "parameter" and self.rescale != "none" and merge != "ties"
        if not theirs:
            return "ours"
        return "paper" if self.reference == "aligned" else "authors' code"

    def to_dict(self) -> dict[str, Any]:
        """Return the options, ready for JSON."""
        return asdict(self)

    def digest(self, *inputs: str) -> str:
        """Return a hex digest of what decides the learned logits: these options and `inputs`."""
        told = {k: v for k, v in asdict(self).items() if k not in ("log_every", "checkpoint_every")}
        text = json.dumps([told, *inputs], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Settled:
    """Merge, λ and whether changes are divided by mean(m), with nothing left open."""

    merge: Merge
    scale: float
    rescale: bool


def needed_bytes(model: int, entries: int, tasks: int, logits: int, granularity: str) -> int:
    """Estimate what learning takes: `model` bytes of weights, `entries` masked in float32.

    Held throughout: a task vector a task, the reference's entries, logits with gradient and two
    moments. While a step runs: per task the masked change and its gradient, the merged weights
    and theirs; with a logit an entry also the noise, the sample and their gradients.
    """
    step = entries * 4 * (2 * tasks + 2) + (logits * 16 if granularity == "parameter" else 0)
    return model + entries * 4 * (tasks + 1) + logits * 16 + step


def refuse_too_large(needed: int, free: int, entries: int, granularity: str) -> None:
    """Raise `UserError` with `somf_memory` and the numbers when there is not room enough."""
    if needed <= free:
        return
    fix = "Use a machine with more memory"
    if granularity == "parameter":
        fix = (
            "Choose the granularity row, which has no logits and moments a parameter; or u"
            + (fix[1:])
        )
    raise UserError(
        "somf_memory",
        f"Learning a mask a {granularity} takes about {size(needed)}; {size(free)} are free.",
        f"{count(entries)} parameters differ; their task vectors, masks and gradients are in "
        "memory together.",
        fix + ".",
    )
