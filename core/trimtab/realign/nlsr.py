"""NLSR on weights: the safety neurons of tensors that fine-tuning turned away go back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.activations.calibrated import act_norms
from trimtab.activations.weights import member_weights
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.masks.bits import pack
from trimtab.masks.builders import count_kept
from trimtab.masks.file import MaskWriter
from trimtab.masks.scores import TaskVector
from trimtab.realign.data_methods import NlsrOptions
from trimtab.realign.work import Work, check_mask_name, finish_mask

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def region(scores: Floats, share: float) -> Bools:
    """Return where the highest `share` of a tensor's scores are; of equal ones the first."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat, kind="stable")[: count_kept(flat.size, share)]
    found = np.zeros(flat.size, dtype=np.bool_)
    found[order] = True
    return found.reshape(scores.shape)


def similarity(one: Floats, other: Floats, where: Bools) -> float:
    """Return the cosine of two changes on a region, in float64; 1 where either is zero there.

    What fine-tuning left at the base model, or alignment did not touch, has nothing to go back to.
    """
    a, b = one[where].astype(np.float64), other[where].astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 1.0


def chances(similarities: Sequence[float], share: float, epsilon: float) -> list[float]:
    """Return the probabilities of going back as the authors' code has them, each in [0, 1].

    share − ε for the least similar, share + ε for the most similar, in steps of rank between: the
    other way round from what their comment says, and their paper.
    """
    n = len(similarities)
    order = np.argsort(-np.asarray(similarities), kind="stable")
    rank = np.empty(n)
    rank[order] = np.arange(n, 0, -1)
    along = (rank - 1) / max(n - 1, 1)
    found: list[float] = np.clip(share - epsilon + along * 2 * epsilon, 0, 1).tolist()
    return found


def chosen(similarities: Sequence[float], options: NlsrOptions) -> list[bool]:
    """Return which tensors go back."""
    if options.choice == "least-similar":
        order = np.argsort(similarities, kind="stable")
        taken = set(order[: round(options.share * len(order))].tolist())
        return [i in taken for i in range(len(similarities))]
    random = np.random.Generator(np.random.Philox(options.seed))
    p = chances(similarities, options.share, options.epsilon)
    return [bool(draw < each) for draw, each in zip(random.random(len(p)), p, strict=True)]


@dataclass(frozen=True)
class _Matrix:
    name: str
    shape: tuple[int, ...]
    where: Bools
    cosine: float


def nlsr(work: Work, options: NlsrOptions, control: Control) -> dict[str, Any]:
    """Write the mask that takes back the safety neurons of the chosen tensors.

    Yi et al. 2024, arXiv 2412.12497, moved from adapters to weights (ours): in place of the factors
    B A of the fine-tuned and of the safety adapter stand the changes from the base model, in place
    of the region by ActSVD on factors the highest entries of |θ_a − θ_b| · ‖x‖ on the safety set,
    and what is put back is the aligned model's own entry and not one amplified 1.9 times. The
    choice "bernoulli" has the law of the authors' code, whose ranking favours tensors that are
    still alike; its bits are our own generator's. Linears in the blocks alone.
    """
    check_mask_name(work)
    aligned = work.aligned
    norms, _ = act_norms(
        member_weights(work.lineup, aligned), work.safety, work.setting, control
    )  # fmt: skip
    strengths = {name: norms.norm(name, "ours") for name in norms.names}
    with TensorReader() as reader:
        vector = TaskVector(work.lineup, work.member, reader)
        names = [name for name in vector.names if name in strengths]
        control.stage("Comparing", len(names))
        cosines: dict[str, float] = {}
        for matrix in _matrices(
            work, names, strengths, norms.transposed, options, reader, control
        ):  # fmt: skip
            cosines[matrix.name] = matrix.cosine
            control.advance(1)
        if not cosines:
            raise UserError(
                "nothing_to_mask",
                "No tensor is left to choose from.",
                "Neither alignment nor the model changes a Linear in the blocks.",
                "Choose another model.",
            )
        taken = chosen(list(cosines.values()), options)
        back = [name for name, is_taken in zip(cosines, taken, strict=True) if is_taken]
        seed = options.seed if options.choice == "bernoulli" else None
        about = work.about("NLSR", "ours", options.model_dump(), seed)
        with MaskWriter(work.output, about) as writer:
            control.stage("Writing the mask", len(back))
            # the regions are found once more, so that one of them is in memory at a time
            for matrix in _matrices(
                work, back, strengths, norms.transposed, options, reader, control
            ):  # fmt: skip
                if options.reverts == "tensor":
                    writer.constant(matrix.name, matrix.shape, keep=False)
                else:
                    writer.bits(matrix.name, matrix.shape, pack(~matrix.where.reshape(-1)))
                control.advance(1)
            writer.finish()
        found = finish_mask(work, "NLSR", vector, reader, control)
    return {
        "mode": "ours",
        "reverted_to": aligned.name,
        "similarities": cosines,
        "tensors": back,
        "facts": {"put back": f"{len(back)} of {len(cosines)} tensors, cosines "
                              f"{min(cosines.values()):.3f} to {max(cosines.values()):.3f}"},
        **found,
    }  # fmt: skip


def _matrices(
    work: Work, names: Sequence[str], strengths: dict[str, Floats], transposed: frozenset[str],
    options: NlsrOptions, reader: TensorReader, control: Control,
) -> Iterator[_Matrix]:  # fmt: skip
    lineup = work.lineup
    base, aligned = lineup.base, work.aligned
    assert base is not None  # the job has seen to it
    shapes = dict(zip(lineup.names, lineup.reference.checkpoint.index.shapes, strict=True))
    for name in names:
        control.check()
        sources = [lineup.source(name, member) for member in (base, aligned, work.member)]
        shape = shapes[name]
        below, above, own = (
            None if source is None
            else reader.read(source, 0, int(np.prod(shape, dtype=np.int64))).reshape(shape)
            for source in sources
        )  # fmt: skip
        if below is None or above is None or own is None:
            continue
        alignment = above - below
        strength = strengths[name]
        inputs = strength[:, None] if name in transposed else strength[None, :]
        where = region(np.abs(alignment) * inputs, options.region)
        yield _Matrix(name, shape, where, similarity(own - below, alignment, where))
